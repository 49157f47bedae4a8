"""The process under test under strace(1): its system calls are written down, or some of them fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.faults.ledger import Line
from tests.faults.scene import parse
from tests.faults.zygote import ROOT, environment

WAL = "outbox.db-wal"
PATIENCE_S = 60.0
_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\(\d+<(?P<file>[^>]*)>(?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_SYNCS = frozenset({"fsync", "fdatasync"})
_WRITES = frozenset({"write", "pwrite64", "sendto", "sendmsg"})


@cache
def why_not() -> str | None:
    """Why system calls cannot be traced here; None when they can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    done = subprocess.run([strace, "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else None


def needs_strace() -> None:
    """Skip the test where system calls cannot be traced."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Traced:
    """One life under strace."""

    lines: list[Line]
    status: int
    trace: list[str]
    errors: str

    @property
    def injected(self) -> int:
        """System calls that were made to fail."""
        return sum("(INJECTED)" in line for line in self.trace)


def traced(folder: Path, arguments: Sequence[str], *options: str) -> Traced:
    """Run the worker to its end under strace with these options."""
    log = folder / "trace"
    worker = [sys.executable, "-m", "tests.faults.worker", *arguments]
    command = ["strace", "-f", "-y", "-s", "64", "-o", str(log), *options, *worker]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False, cwd=ROOT, env=environment())
    trace = log.read_text(errors="replace").splitlines()
    return Traced(parse(done.stdout), done.returncode, trace, done.stderr.decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What lay between the intent to store a capture and the line that acknowledges it."""

    wal_writes: int
    syncs: int
    synced: bool
    """Every write to the write-ahead log was followed by a sync that had ended well before the line was written."""


def acknowledgements(trace: Iterable[str]) -> list[Acknowledgement]:
    """Every acknowledgement in the trace, in order."""
    found: list[Acknowledgement] = []
    writes = syncs = 0
    dirty = False
    begun: dict[str, bool] = {}  # thread -> whether its sync of the log that is under way covers everything
    for line in trace:
        call, resumed = _CALL.match(line), _RESUMED.match(line)
        if call and call["name"] in _WRITES and call["file"].endswith(WAL):
            writes, dirty = writes + 1, True
            begun = dict.fromkeys(begun, False)
        elif call and call["name"] in _SYNCS and call["file"].endswith(WAL):
            begun[call["thread"]] = True
        if (call or resumed) and re.search(r"\) += 0$", line):
            covers = begun.pop((call or resumed)["thread"], None)  # type: ignore[index]  # one of them matched
            syncs += covers is not None
            dirty = dirty and not covers
        if call and call["name"] in _WRITES and r"\"creating\"" in call["rest"]:
            writes = syncs = 0
        elif call and call["name"] in _WRITES and r"\"event\": \"ack\"" in call["rest"]:
            found.append(Acknowledgement(writes, syncs, not dirty))
    return found
