"""Every fault of the matrix at random, for as long as asked, with one table at the end. ``scripts/soak`` starts it."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import strace
from tests.faults.cases import ANSWERS, NETWORK, SERVICE, Case, Stage
from tests.faults.clock import Shift
from tests.faults.ledger import Line
from tests.faults.oracle import Finding, Kind, harvest
from tests.faults.proxy import FaultProxy
from tests.faults.scene import Scene, scene
from tests.faults.zygote import Kill, Zygote, zygote

LIVES = 16
"""Lives of the process on one state directory, before it is drained."""
YEAR_S = 365 * 86400.0
KILL_AFTER = (None, "creating", "ack", "url", "put", "match", "answered")
DISK = (
    "fdatasync,fsync:error=EIO:when={n}",
    "fdatasync,fsync:error=EIO:when={n}+",
    "pwrite64:error=EIO:when={n}",
    "pwrite64:error=ENOSPC:when={n}",
)


@dataclass(slots=True)
class Result:
    """What happened; ``findings`` must be empty."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    directories: int = 0
    lives: int = 0
    acknowledged: int = 0
    refused: int = 0
    judged: int = 0
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, *kinds: Kind) -> int:
        return sum(finding.kind in kinds for finding in self.findings)

    @property
    def good(self) -> bool:
        return not self.findings and self.acknowledged > 0

    def rows(self) -> dict[str, int]:
        """The table, top to bottom."""
        named = {
            "captures acknowledged": self.acknowledged,
            "captures refused (disk full)": self.refused,
            "comparisons by the service": self.judged,
            "lost": self.count(Kind.LOST),
            "altered": self.count(Kind.ALTERED),
            "duplicated verdicts": self.count(Kind.DUPLICATED, Kind.TWO_ENDS),
            "wrong verdicts": self.count(Kind.WRONG, Kind.UNFOUNDED),
            "still open": self.count(Kind.OPEN, Kind.UNJUDGED),
        }
        others = len(self.findings) - sum(list(named.values())[3:])
        faults = {f"fault: {name}": number for name, number in sorted(self.faults.items())}
        lives = {"state directories": self.directories, "lives of the process": self.lives}
        return {**faults, **lives, **named, "other findings of the oracle": others}


class Soak:
    """Runs until ``stopped`` or the time is over, whichever comes first; a life under way is ended in order."""

    def __init__(self, seed: int, seconds: float, tell: Callable[[str], None] = lambda _: None) -> None:
        self.result = Result(seed)
        self.stopped = threading.Event()
        self._chance = random.Random(seed)
        self._seconds = seconds
        self._tell = tell
        self._can_trace = strace.why_not() is None

    def run(self) -> Result:
        began_s = time.monotonic()
        self._ends_at_s = began_s + self._seconds
        with zygote() as workers:
            while not self._is_over():
                with tempfile.TemporaryDirectory(prefix="soak-") as folder:
                    self._one_directory(Path(folder), workers)
                self._tell(
                    f"{self.result.lives} lives, {self.result.acknowledged} captures acknowledged, "
                    f"{len(self.result.findings)} findings"
                )
        self.result.seconds = time.monotonic() - began_s
        return self.result

    def _is_over(self) -> bool:
        return self.stopped.is_set() or time.monotonic() >= self._ends_at_s

    def _one_directory(self, folder: Path, workers: Zygote) -> None:
        with scene(folder) as here, FaultProxy(here.server.port) as proxy:
            here.base_url = f"http://localhost:{proxy.port}/"
            stage = _Directory(Stage(here, proxy), workers, self._chance, self.result, can_trace=self._can_trace)
            for _ in range(LIVES):
                if self._is_over() or self.result.findings:
                    break
                stage.one_life()
            stage.drain()
            self.result.directories += 1
            self.result.acknowledged += len(here.ledger.acknowledged)
            self.result.judged += len(here.service.judged)


class _Directory:
    """One state directory through its lives."""

    def __init__(
        self, stage: Stage, workers: Zygote, chance: random.Random, result: Result, *, can_trace: bool
    ) -> None:
        self._stage = stage
        self._workers = workers
        self._chance = chance
        self._result = result
        self._wall_is_wrong_by_s = 0.0
        self._ways = [self._kill, self._stop, self._cut_network, self._break_service, self._move_clock]
        if can_trace:
            self._ways.append(self._break_disk)

    @property
    def _scene(self) -> Scene:
        return self._stage.scene

    def one_life(self) -> None:
        """Something happens to it, the process ends one way or another, and the oracle looks."""
        self._chance.choice(self._ways)()
        self._stage.lift()
        self._result.lives += 1
        self._result.findings += self._scene.inspect(files=False)

    def drain(self) -> None:
        """All is well again: everything must end in a verdict, and nothing may be left in the files."""
        self._right_clock()
        ledger = self._scene.ledger
        delete: tuple[object, ...] = ()
        if ledger.acknowledged and self._chance.random() < 0.3:
            victim = self._chance.choice(list(ledger.acknowledged.values()))
            self._scene.gone = harvest(self._scene.state_dir, [victim.id])
            delete = ("--delete", victim.user)
            self._result.faults["user destroyed"] += 1
        self._live("--do", "forward", "--hurry", "--reopen", *delete)
        self._live("--do", "forward", "--hurry", "--reopen")
        self._result.findings += self._scene.inspect(drained=True)

    # -- lives

    def _live(self, *extra: object, kill: Kill | None = None) -> None:
        number = f"{self._result.directories}.{self._result.lives}"
        arguments = ("--seed", number, "--timeouts-s", 0.5, 1.0, 1.0, "--quarantine-s", 5)
        order = self._scene.arguments(*arguments, "--resolver-down", self._stage.no_dns, *extra)
        life = self._workers.run(order, kill)
        self._take(life.lines)

    def _take(self, lines: list[Line]) -> None:
        self._scene.ledger.absorb(lines)
        self._result.refused += sum(line["event"] == "refused" for line in lines)

    def _work(self) -> tuple[object, ...]:
        chance = self._chance
        return ("--captures", chance.randint(1, 8), "--gap-s", chance.choice((0.0, 0.01)))

    def _some_end(self) -> Kill:
        """Killed or told to stop, somewhere within the next second and a half."""
        chance = self._chance
        signum = chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        self._result.faults["killed" if signum == signal.SIGKILL else "stopped"] += 1
        return Kill(chance.uniform(0.2, 1.5), signum=signum)

    # -- what happens

    def _kill(self) -> None:
        chance = self._chance
        event = chance.choice(KILL_AFTER)
        kill = Kill(chance.uniform(0, 0.02 if event else 0.4), event, chance.randint(1, 4))
        self._result.faults["killed"] += 1
        self._live("--captures", 50, "--gap-s", 0.01, kill=kill)

    def _stop(self) -> None:
        self._result.faults["stopped"] += 1
        self._live(*self._work(), kill=Kill(self._chance.uniform(0.05, 0.5), signum=signal.SIGTERM))

    def _cut_network(self) -> None:
        self._play("network", self._chance.choice(NETWORK))

    def _break_service(self) -> None:
        self._play("service", self._chance.choice([*SERVICE, *ANSWERS]))

    def _play(self, kind: str, case: Case) -> None:
        """The fault lasts from the start, and is over while the process lives, or not."""
        self._result.faults[kind] += 1
        case.begin(self._stage)
        lift = threading.Timer(self._chance.uniform(0.1, 1.5), self._stage.lift)
        lift.start()
        try:
            self._live(*self._work(), kill=self._some_end())
        finally:
            lift.cancel()
            lift.join()

    def _break_disk(self) -> None:
        self._result.faults["disk"] += 1
        fault = self._chance.choice(DISK).format(n=self._chance.randint(1, 60))
        order = self._scene.arguments("--seed", f"disk.{self._result.lives}", *self._work(), "--live-share", 0)
        options = ("-e", "trace=fdatasync,fsync,pwrite64", "-e", f"inject={fault}")
        self._take(strace.traced(self._scene.folder, order, *options).lines)

    def _move_clock(self) -> None:
        """What a clock may do without anything having aged: nothing may expire, be reordered or be kept for ever."""
        self._result.faults["clock"] += 1
        chance, now = self._chance, Shift.read(self._scene.clock_file)
        what = chance.choice(("wrong year", "right again", "suspend", "reboot"))
        if what == "wrong year":
            self._wall_is_wrong_by_s += (jump_s := chance.choice((-50, -1, 1, 10)) * YEAR_S)
            self._scene.shift(wall_ahead_s=now.wall_ahead_s + jump_s, synchronised=False)
        elif what == "right again":
            self._right_clock()
        elif what == "suspend":
            self._scene.pass_time(chance.uniform(1.0, 3600.0))
        else:
            since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._scene.shift(ahead_s=5.0 - since_boot_s, boot=f"boot-{self._result.lives + 2}")
        self._live(*self._work(), kill=self._some_end())

    def _right_clock(self) -> None:
        now = Shift.read(self._scene.clock_file)
        self._scene.shift(wall_ahead_s=now.wall_ahead_s - self._wall_is_wrong_by_s, synchronised=True)
        self._wall_is_wrong_by_s = 0.0
