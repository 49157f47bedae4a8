"""How fast frames come, and what follows: over how many to smooth, how many must lie between two poses."""

from __future__ import annotations

from collections import deque
from typing import ClassVar, Final

MIN_FPS: Final = 7.0
"""Below, a turn takes too few frames to be followed."""


class Pace:
    """The rate of the last second or so. Not thread-safe."""

    FRAMES: ClassVar = 16
    ENOUGH: ClassVar = 5
    """Fewer frames say nothing of the rate."""
    LONGEST_WINDOW: ClassVar = 9

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=self.FRAMES)

    def add(self, at_s: float) -> bool:
        """The next frame's time; False, and a new beginning, where it is not later than the one before."""
        in_order = not self._times_s or at_s > self._times_s[-1]
        if not in_order:
            self._times_s.clear()
        self._times_s.append(at_s)
        return in_order

    @property
    def fps(self) -> float | None:
        """Frames per second; None while too few are known."""
        if len(self._times_s) < self.ENOUGH:
            return None
        return (len(self._times_s) - 1) / (self._times_s[-1] - self._times_s[0])

    @property
    def too_slow(self) -> bool:
        return self.fps is not None and self.fps < MIN_FPS

    @property
    def window(self) -> int:
        """Frames to take the median of: the odd number next to a third of a second (5 at 15 fps, 3 at 7.5)."""
        if self.fps is None:
            return self.ENOUGH
        return min(self.LONGEST_WINDOW, max(3, 2 * round((self.fps / 3 - 1) / 2) + 1))

    @property
    def least_on_the_way(self) -> int:
        """Frames that must show a head between the neutral pose and the asked one: what gets there has been there.

        At half the rate a turn has half the frames: with two at 7.5 fps only turns of less than about 20 degrees/s
        would be seen.
        """
        return 2 if self.window >= 5 else 1
