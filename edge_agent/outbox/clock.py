"""Clocks, and what each may be used for.

- ``CLOCK_BOOTTIME`` (suspend included) measures durations *within* one boot: deadlines, leases, validity.
- The *running clock* (``ages.py``) strings boots together: a lower bound of elapsed time that never goes back.
- The wall clock is information for people. Its differences count only over the gap between two different boots, and
  only when the clock was synchronised on both sides of it; it never orders anything (sequence numbers do).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

from edge_agent.errors import EnvironmentFault

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5
"""adjtimex(2): the system clock is not synchronised to a reliable server."""
_TIMEX_BYTES = 1024
"""More than ``struct timex`` on any Linux ABI; all zero means "read only"."""


class Clock(Protocol):
    """Where the time comes from. A test passes its own."""

    def wall(self) -> datetime:
        """Aware UTC; may be wrong by decades on a board without a battery."""
        ...

    def boottime_s(self) -> float:
        """Seconds since this boot, suspend included; never goes back within a boot."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of ``time.monotonic()``: the scale of ``Frame.captured_at_s``."""
        ...

    def boot_id(self) -> str:
        """Changes with every boot, constant within one."""
        ...

    def synchronised(self) -> bool:
        """True only when the kernel says that a time service keeps the wall clock right."""
        ...


@dataclass(frozen=True, slots=True)
class BootInstant:
    """A point in time that can be compared with others of the same boot."""

    boot_id: str
    boottime_s: float

    def seconds_since(self, earlier: BootInstant) -> float | None:
        """Elapsed seconds, or None when the two are of different boots: then nobody knows."""
        if self.boot_id != earlier.boot_id:
            return None
        return self.boottime_s - earlier.boottime_s


def instant(clock: Clock) -> BootInstant:
    return BootInstant(clock.boot_id(), clock.boottime_s())


class SystemClock:
    """The clocks of this machine (Linux).

    told: whether a time service keeps the wall clock right, as somebody else knows it, without waiting; None: unknown.
    """

    def __init__(self, told: Callable[[], bool | None] = lambda: None) -> None:
        self._boot_id = _read_boot_id()
        self._told = told

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boot_id(self) -> str:
        return self._boot_id

    def synchronised(self) -> bool:
        """adjtimex(2) where it may be called, else what was told, else systemd-timesyncd's flag file, else False."""
        state = _adjtimex()
        if state is not None:
            return state != _TIME_ERROR
        told = self._told()
        return TIMESYNC_FLAG.exists() if told is None else told

    @staticmethod
    def kernel_tells() -> bool:
        """False where adjtimex(2) is filtered, as in a unit with ``ProtectClock=``: then somebody else has to tell."""
        return _adjtimex() is not None


def _read_boot_id() -> str:
    try:
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot tell boots apart: {BOOT_ID_FILE}: {exc.strerror}",
            code="boot_id_missing",
            hint="edge-agent needs Linux with /proc mounted",
        ) from exc


def _adjtimex() -> int | None:
    """The clock's state as the kernel reports it, or None where the call is not to be had."""
    try:
        state = int(_libc().adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (AttributeError, OSError):
        return None
    return state if state >= 0 else None


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
