"""Starts the process under test by fork, in milliseconds, and kills it at the planned moment.

The zygote is one small process without threads that has imported everything; each life of the worker is a child of
it, with its stdout in a pipe. It does nothing else, so the kill (SIGKILL, from outside) comes when it is meant to:
so many seconds after the start, or after a line that the worker told.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.faults.ledger import Line

ROOT = Path(__file__).resolve().parents[2]
LIFE_S = 60.0
"""No life lasts longer; whoever waited for it is told."""


def environment() -> dict[str, str]:
    """For the process under test. Its coverage is not measured: a killed process reports none, and it would be slow."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**ours, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # numpy's threads would not survive a fork


@dataclass(frozen=True, slots=True)
class Kill:
    """When to kill: ``delay_s`` after the ``nth`` line of ``event``, or after the start."""

    delay_s: float
    event: str | None = None
    nth: int = 1
    signum: int = signal.SIGKILL


class Life:
    """One run of the worker, as it goes on."""

    def __init__(self, told: Iterator[Line]) -> None:
        self._told = told
        self.lines: list[Line] = []
        self.status: int | None = None
        """As waitpid has it: the exit status, or minus the signal; None while it runs."""
        self.pid = int(next(told)["pid"])

    def until(self, true: Callable[[Line], bool]) -> Line | None:
        """Read on until a line fits; None when the life ended before."""
        for line in self._told:
            if line["event"] == "ended":
                self.status = line["status"]
                return None
            self.lines.append(line)
            if true(line):
                return line
        raise AssertionError("the zygote died")

    def to_the_end(self) -> int:
        self.until(lambda _: False)
        assert self.status is not None
        return self.status

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)


class Zygote:
    """The test's side. One life at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._life: Life | None = None

    def start(self, arguments: Sequence[str], kill: Kill | None = None) -> Life:
        assert self._process.stdin
        order = {"arguments": list(arguments), "kill": asdict(kill) if kill else None}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        self._life = Life(self._lines())
        return self._life

    def close(self) -> None:
        """Kill the life under way, if there is one, and let the zygote end."""
        if self._life is not None and self._life.status is None:
            os.kill(self._life.pid, signal.SIGKILL)
        if self._process.stdin:
            self._process.stdin.close()

    def run(self, arguments: Sequence[str], kill: Kill | None = None) -> Life:
        life = self.start(arguments, kill)
        life.to_the_end()
        return life

    def _lines(self) -> Iterator[Line]:
        assert self._process.stdout
        for line in self._process.stdout:
            yield json.loads(line)


@contextmanager
def zygote(program: str = "tests.faults.worker") -> Iterator[Zygote]:
    """A running zygote of ``program``; it ends with the block, and with this process."""
    command = [sys.executable, "-m", "tests.faults.zygote", program]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,  # a Ctrl-C is for whoever runs the tests, who then ends this in order
    ) as process:
        ready = Zygote(process)
        try:
            yield ready
        finally:
            ready.close()


# -- the zygote's side ------------------------------------------------------------------------------------------------


def main(program: str) -> None:
    """program: a module with ``warm_up()`` and ``main(arguments, descriptor)``, whose lives these are."""
    import threading
    from importlib import import_module

    worker = import_module(program)
    worker.warm_up()
    assert threading.active_count() == 1, "a fork would lose the other threads"
    for line in sys.stdin.buffer:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(worker.main, order["arguments"], reading, writing)
        os.close(writing)
        _tell({"event": "born", "pid": pid})
        _watch(pid, reading, order["kill"])


def _child(run: Callable[[Sequence[str], int], int], arguments: list[str], reading: int, writing: int) -> None:
    """Never returns: the zygote's own loop must not go on here."""
    status = 70
    try:
        os.close(reading)
        status = run(arguments, writing)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watch(pid: int, reading: int, plan: dict[str, Any] | None) -> None:
    """Pass the lines on, kill as planned, tell the end."""
    ends_at_s = time.monotonic() + LIFE_S
    kill_at_s = time.monotonic() + plan["delay_s"] if plan and plan["event"] is None else None
    left = plan["nth"] if plan else 0
    rest = b""
    while True:
        wait_s = max(0.0, min(ends_at_s, kill_at_s or ends_at_s) - time.monotonic())
        if not select.select([reading], [], [], wait_s)[0]:
            planned = kill_at_s is not None and plan is not None
            os.kill(pid, plan["signum"] if planned and plan else signal.SIGKILL)  # or it hangs
            kill_at_s, ends_at_s = None, time.monotonic() + LIFE_S
            continue
        chunk = os.read(reading, 1 << 16)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _pass_on(line)
            if plan and plan["event"] is not None and left and json.loads(line)["event"] == plan["event"]:
                left -= 1
                kill_at_s = time.monotonic() + plan["delay_s"] if left == 0 else None
    os.close(reading)
    _, raw = os.waitpid(pid, 0)
    _tell({"event": "ended", "status": os.waitstatus_to_exitcode(raw)})


def _tell(line: Line) -> None:
    _pass_on(json.dumps(line).encode())


def _pass_on(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
