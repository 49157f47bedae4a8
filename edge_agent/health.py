"""Which loops must turn, and whether they do: what feeds the watchdog, instead of mere uptime.

A loop beats at each of its turns, also when there is no camera, no network and nothing to do. One that is late for its
limit hangs, and only a restart helps; what is merely missing never makes a loop late.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Heartbeats:
    """Used from the event loop's thread; a loop that hangs there stops the feeding itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits_s: dict[str, float] = {}
        self._beaten_s: dict[str, float] = {}

    def expect(self, loop: str, *, within_s: float) -> Callable[[], None]:
        """From now on ``loop`` must beat at least so often; returns what it calls at each turn."""
        self._limits_s[loop] = within_s

        def beat() -> None:
            self._beaten_s[loop] = self._clock()

        beat()
        return beat

    def late(self) -> dict[str, float]:
        """Loops that are late, and how many seconds ago each beat last; empty when all turn."""
        now_s = self._clock()
        return {
            loop: now_s - self._beaten_s[loop]
            for loop, limit_s in self._limits_s.items()
            if now_s - self._beaten_s[loop] > limit_s
        }
