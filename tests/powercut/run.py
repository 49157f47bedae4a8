"""One run: cut after cut on the same disk, and after each the oracle over a copy of what was left."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.oracle import Finding, Kind
from tests.powercut.guest import PORT
from tests.powercut.look import Left, Told, look, whole_lines
from tests.powercut.machine import Machine
from tests.powercut.old import OLD_VERSION, pack_old, version
from tests.powercut.phases import DRIVEN, Line, Phase, counted_as, next_to_drive, under_way
from tests.powercut.report import End, Result, Row, count, summary

HOME = "/root"
"""Where the emulated machine's only user is at home."""
STATE = f"{HOME}/state"
OLD = f"{HOME}/old"
OLD_ARCHIVE = "old.tar"
OLD_CAPTURES = 3000
BASE_URL = f"http://127.0.0.1:{PORT}/"
USERS = 5
LIVES_PER_CUT = 2
"""A life may end where it was not meant to."""
LIFE_LIMIT_S = 120.0
DRAIN_LIMIT_S = 900.0
LAST_WORDS = ("drained", "error")
LOSS_CAPTURES = 40


@dataclass(frozen=True, slots=True)
class Drive:
    """How a phase is hit."""

    worker: str
    """Arguments."""
    sandbox: str
    """Arguments."""
    moments: tuple[tuple[Wait, ...], ...]
    """One is chosen: the plug is pulled at its end."""
    state: str = STATE


@dataclass(frozen=True, slots=True)
class Wait:
    """Until ``event`` is told, and then a random time between the two, in seconds."""

    event: str
    earliest_s: float
    latest_s: float


# In an enqueuing life the plug is pulled while one capture is being stored (some 50 ms in the machine). Three sequences
# of the backlog run at once, so nearly every moment of a life with one slow step is in that step.
DRIVES = {
    Phase.ENQUEUE: Drive("--do enqueue --captures 2000", "", ((Wait("ack", 1.0, 6.0), Wait("creating", 0.0, 0.04)),)),
    Phase.UPLOAD: Drive("--do both --captures 500 --gap-s 0.2", "--latency put=1.5", ((Wait("put", 0.1, 4.0),),)),
    Phase.MATCH: Drive("--do both --captures 500 --gap-s 0.2", "--latency match=1.5", ((Wait("match", 0.1, 4.0),),)),
    Phase.MIGRATION: Drive(
        "--do enqueue --captures 0", "", ((Wait("migrating", 0.0, 0.3),), (Wait("applied", 0.0, 0.03),)), state=OLD
    ),
}


class TimedPlug:
    """Due when these waits are over, one after the other, or when the worker said its last word."""

    def __init__(self, told: Path, waits: Sequence[Wait], chance: random.Random) -> None:
        self._told = told
        self._waits = [(wait.event, chance.uniform(wait.earliest_s, wait.latest_s)) for wait in waits]
        self._size = self._seen = 0
        self._due_s: float | None = None

    def __str__(self) -> str:
        return ", then ".join(f"{after_s:.2f} s after {event!r}" for event, after_s in self._waits)

    def is_due(self) -> bool:
        if self._due_s is None and self._is_told():
            self._due_s = time.monotonic() + self._waits[0][1]
        if self._due_s is None or time.monotonic() < self._due_s:
            return False
        if len(self._waits) > 1:  # the next wait is for what is told from now on
            self._due_s, self._seen, self._size = None, len(whole_lines(self._told)), 0
            del self._waits[0]
            return False
        return True

    def _is_told(self) -> bool:
        size = self._told.stat().st_size if self._told.exists() else 0
        if size == self._size:
            return False
        self._size = size
        events = [line["event"] for line in whole_lines(self._told)]
        return self._waits[0][0] in events[self._seen :] or not set(LAST_WORDS).isdisjoint(events)


@dataclass(frozen=True, slots=True)
class Life:
    """One boot that ended with a cut."""

    number: int
    state: str
    """Its state directory in the machine."""
    lines: Sequence[Line]
    acts: Sequence[Line]
    phase: Phase
    under_way: frozenset[Phase]

    @property
    def seconds(self) -> float:
        return float(self.lines[-1]["at_s"]) if self.lines else 0.0

    @property
    def failed(self) -> bool:
        """The outbox could not be opened, or not be used any more."""
        return any(line["event"] == "error" for line in self.lines)


@dataclass(slots=True)
class Run:
    """``tell`` is called with every row as soon as it is known, ``progress`` with what is being done."""

    machine: Machine
    synchronous: str
    cuts: int
    chance: random.Random
    tell: Callable[[Row], None]
    progress: Callable[[str], None]
    phases: tuple[Phase, ...] = DRIVEN
    rows: list[Row] = field(default_factory=list)
    hits: Counter[Phase] = field(default_factory=Counter)
    told: Told = field(default_factory=Told)
    old_lines: Sequence[Line] = ()
    """What was told when the captures of the version before were stored."""
    fresh: bool = True
    """The next migration begins anew: the last one came to its end."""
    lives: int = 0

    def all(self) -> Result:
        """Cut, look, go on; at the end forward everything. Ends early when the outbox cannot be used any more."""
        archive = self.machine.share / OLD_ARCHIVE
        self.old_lines = pack_old(archive, BASE_URL, captures=OLD_CAPTURES, users=USERS)
        last: Life | None = None
        while not self._enough() and not (last and last.failed):
            life = self._live_and_cut(last)
            if last:
                self._look_at(last, self.machine.out / f"left-{life.number}")
            last = life
        end = self._drain(last) if last and not last.failed else None
        if last and last.failed:
            self._hand_out(last)
        return Result(self.synchronous, tuple(self.rows), end, self.phases, self.cuts)

    def _enough(self) -> bool:
        return sum(self.hits.values()) >= self.cuts or self.lives >= LIVES_PER_CUT * self.cuts

    def _live_and_cut(self, last: Life | None) -> Life:
        """One life with a cut, which first hands out what the last one left."""
        self.lives += 1
        driven = next_to_drive(self.hits, self.phases)
        drive = DRIVES[driven]
        plug = TimedPlug(self._out("told"), self.chance.choice(drive.moments), self.chance)
        self.progress(f"life {self.lives}: {driven}, the plug is pulled {plug}")
        # how far the last cut let a migration come is known once this life has handed it out
        begin_anew = self.fresh or (last is not None and last.state == OLD)
        fresh = OLD_ARCHIVE if drive.state == OLD and begin_anew else "-"
        left = last.state if last else "-"
        arguments = ["--linger", *drive.sandbox.split(), *self._worker(drive.worker, drive.state)]
        self.machine.live([str(self.lives), left, fresh, drive.state, *arguments], limit_s=LIFE_LIMIT_S, plug=plug)
        life = self._read(driven, drive.state)
        if life.phase in self.phases:
            self.hits[life.phase] += 1
        return life

    def _worker(self, arguments: str, state: str) -> list[str]:
        """Arguments of guest.py from ``--synchronous`` on."""
        own = f"--synchronous {self.synchronous} --users {USERS} -- {state} {BASE_URL}"
        return f"{own} --seed {self.lives} --users {USERS} --sizes 1000 20000 {arguments}".split()

    def _out(self, name: str) -> Path:
        return self.machine.out / f"{name}-{self.lives}"

    def _read(self, driven: Phase, state: str) -> Life:
        lines, acts = whole_lines(self._out("told")), whole_lines(self._out("service"))
        found = under_way(lines)
        return Life(self.lives, state, lines, acts, counted_as(driven, found), found)

    def _look_at(self, life: Life, folder: Path) -> None:
        """The row of this life: what it left is in ``folder``."""
        told = self.told
        if life.state == OLD:
            told = Told()
            told.absorb(self.old_lines, ())
        told.absorb(life.lines, life.acts)
        findings = look(folder, told, unanswered=life.number)
        row = Row(
            cut=life.number,
            phase=life.phase,
            under_way=tuple(sorted(life.under_way)),
            seconds=life.seconds,
            acknowledged=len(told.ledger.acknowledged),
            lost=count(findings, Kind.LOST),
            altered=count(findings, Kind.ALTERED),
            open=Left.of(folder).open,
            findings=summary(findings),
        )
        if life.state == OLD:
            self.fresh = version(folder) != OLD_VERSION
        shutil.rmtree(folder)
        self.rows.append(row)
        self.tell(row)

    def _hand_out(self, life: Life) -> None:
        """One more boot that only brings out what the last cut left."""
        self.lives += 1
        self.progress(f"life {self.lives}: only looks at what was left")
        self.machine.live([str(self.lives), "-", "-", life.state, "--help"], limit_s=LIFE_LIMIT_S)
        self._look_at(life, self._out("end"))

    def _drain(self, before: Life) -> End:
        """A life without a cut, until nothing waits."""
        self.lives += 1
        self.progress(f"life {self.lives}: forwards everything")
        arguments = [str(self.lives), before.state, "-", STATE, *self._worker("--do forward", STATE)]
        self.machine.live(arguments, limit_s=DRAIN_LIMIT_S)
        self._look_at(before, self._out("left"))
        last = self._read(Phase.IDLE, STATE)
        self.told.absorb(last.lines, last.acts)
        return self._end(self._out("end"))

    def under_loss(self, percent: int) -> Result:
        """No cuts: captures are stored and forwarded while the loopback device loses packets."""
        self.lives += 1
        self.progress(f"life {self.lives}: {LOSS_CAPTURES} captures, {percent} % of the packets are lost")
        worker = f"--do both --captures {LOSS_CAPTURES} --clock {HOME}/clock --hurry"
        arguments = [str(self.lives), "-", "-", STATE, *self._worker(worker, STATE)]
        printed = self.machine.live(arguments, limit_s=DRAIN_LIMIT_S, network=f"loss {percent}%")
        life = self._read(Phase.IDLE, STATE)
        self.told.absorb(life.lines, life.acts)
        sent, dropped = packets(printed)
        note = f"{percent} % loss: {dropped} of {sent + dropped} packets dropped in {life.seconds:.0f} s"
        return Result(self.synchronous, (), self._end(self._out("end")), network=note if dropped else "", wanted=())

    def _end(self, folder: Path) -> End:
        findings: Sequence[Finding] = look(folder, self.told, unanswered=self.lives, drained=True)
        left = Left.of(folder)
        return End(
            acknowledged=len(self.told.ledger.acknowledged),
            verified=left.states["verified"],
            not_verified=left.states["not_verified"],
            lost=count(findings, Kind.LOST),
            altered=count(findings, Kind.ALTERED),
            open=left.open,
            findings=summary(findings),
        )


def packets(printed: str) -> tuple[int, int]:
    """Sent and dropped packets, as ``tc -s qdisc show`` tells them; zeros when it does not."""
    found = re.findall(r"Sent \d+ bytes (\d+) pkt \(dropped (\d+),", printed)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)
