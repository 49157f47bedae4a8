"""The sandbox's clock: real time, plus what a test advanced it by."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SandboxClock:
    """Seconds since the epoch that can be moved forward, so that nothing has to wait for an expiry."""

    def __init__(self, real_s: Callable[[], float] = time.time) -> None:
        self._real_s = real_s
        self.advanced_s = 0.0

    def now_s(self) -> float:
        """True time of the sandbox: pictures land and are processed by it. Clock skew does not touch it."""
        return self._real_s() + self.advanced_s

    def advance(self, seconds: float) -> None:
        """Move forward; time never runs backwards. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError("the clock cannot be moved back")
        self.advanced_s += seconds


def iso(at_s: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
