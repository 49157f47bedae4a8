"""A sandbox whose every act is recorded, a state directory, and the process under test run in between."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.sandbox.runtime import DEFAULT_API_KEY
from edge_agent.sandbox.server import SandboxServer
from tests.faults import oracle, worker
from tests.faults.clock import FileClock, Shift
from tests.faults.ledger import Ledger, Line, ServiceRecord
from tests.faults.oracle import Expectation, Finding

USERS = 6


@dataclass(slots=True)
class Scene:
    """One state directory and one service, over many lives of the process under test."""

    folder: Path
    server: SandboxServer
    service: ServiceRecord
    base_url: str
    ledger: Ledger = field(default_factory=Ledger)
    gone: tuple[bytes, ...] = ()

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def clock_file(self) -> Path:
        return self.folder / "clock"

    def shift(self, **changes: Any) -> None:
        """Move the clock of the process under test."""
        now = Shift.read(self.clock_file)
        Shift(**{**{name: getattr(now, name) for name in Shift.__slots__}, **changes}).write(self.clock_file)

    def pass_time(self, seconds: float) -> None:
        now = Shift.read(self.clock_file)
        self.shift(ahead_s=now.ahead_s + seconds, wall_ahead_s=now.wall_ahead_s + seconds)

    def arguments(self, *extra: object) -> list[str]:
        """A command line for the worker."""
        fixed = [self.state_dir, self.base_url, "--clock", self.clock_file, "--users", USERS]
        return [str(part) for part in (*fixed, *extra)]

    def run_here(self, *extra: object) -> list[Line]:
        """One life of the worker in this process, to its orderly end; what it told is in the ledger."""
        with tempfile.TemporaryFile() as told:
            status = worker.main(self.arguments(*extra), told.fileno())
            told.seek(0)
            lines = parse(told.read())
        assert status == 0, lines[-1:]
        self.ledger.absorb(lines)
        return lines

    def inspect(self, *, files: bool = True, **expected: Any) -> list[Finding]:
        expectation = Expectation(**{"secrets": (DEFAULT_API_KEY.encode(),), "gone": self.gone, **expected})
        clock = FileClock(self.clock_file)
        return oracle.inspect(self.state_dir, self.ledger, self.service, expectation, clock=clock, files=files)

    def must_be_good(self, *, files: bool = True, **expected: Any) -> None:
        findings = self.inspect(files=files, **expected)
        assert findings == [], "\n" + oracle.table(findings)


def parse(told: bytes) -> list[Line]:
    """The whole lines; a kill may have cut the last one (never: one system call each, but who knows)."""
    return [json.loads(line) for line in told.split(b"\n")[:-1]]


@contextmanager
def scene(folder: Path, *, base_url: str | None = None, users: int = USERS) -> Iterator[Scene]:
    """A fresh service with everybody enrolled."""
    os.environ.setdefault("FAULTS_API_KEY", DEFAULT_API_KEY)
    with SandboxServer() as server:
        service = ServiceRecord.of(server)
        enrol(server, range(users))
        yield Scene(folder, server, service, base_url or server.base_url)


def enrol(server: SandboxServer, numbers: Sequence[int]) -> None:
    for number in numbers:
        server.enrol(worker.user_name(number), b"source")
