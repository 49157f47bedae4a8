"""A clock that a test moves while the process under test runs: the machine's own, plus what a file says."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from edge_agent.outbox.clock import SystemClock


@dataclass(frozen=True, slots=True)
class Shift:
    """The content of the file: how this clock differs from the machine's."""

    ahead_s: float = 0.0
    """``CLOCK_BOOTTIME`` is so far ahead: as after a suspend. It never shrinks within one ``boot``."""
    wall_ahead_s: float = 0.0
    """The wall clock is so far ahead (or behind)."""
    boot: str = "boot-1"
    synchronised: bool = True

    @classmethod
    def read(cls, path: Path) -> Shift:
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()

    def write(self, path: Path) -> None:
        """Replace the file as a whole: a process that reads meanwhile sees the old or the new one."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


class FileClock:
    """An ``outbox.clock.Clock``; without a file it is the machine's clock."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._system = SystemClock()

    @property
    def shift(self) -> Shift:
        return Shift.read(self._path) if self._path else Shift(boot=self._system.boot_id())

    def wall(self) -> datetime:
        return self._system.wall() + timedelta(seconds=self.shift.wall_ahead_s)

    def boottime_s(self) -> float:
        return self._system.boottime_s() + self.shift.ahead_s

    def monotonic_s(self) -> float:
        return self.boottime_s()

    def boot_id(self) -> str:
        return self.shift.boot

    def synchronised(self) -> bool:
        return self.shift.synchronised if self._path else self._system.synchronised()
