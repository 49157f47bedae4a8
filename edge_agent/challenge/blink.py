"""The blink, for who cannot turn: the judge of one. Pure; times are given. It proves less than a turn of the head.

Two eyes that were open for a second close, both, for as long as a blink takes, and open again. A video shows that as
well, and so does a picture with holes for eyes: docs/challenge.md.
"""

from __future__ import annotations

from statistics import mean
from typing import Final, Protocol

from edge_agent.types import Face, Frame

MIN_INTER_EYE_PX: Final = 55.0
"""The eyes of a smaller face are too few pixels."""
OPEN: Final = 0.85
CLOSED: Final = 0.05
OPEN_AGAIN: Final = 0.7
BASELINE_S: Final = 1.0
LONGEST_S: Final = 0.5
"""From the first closed frame to the last: whoever keeps the eyes shut for longer sleeps, or is a picture exchanged."""
LID_S: Final = 0.4
"""For the lids to go down, and again to come up."""


class EyeSight(Protocol):
    """What the judge needs of a pack with an eye model (vision/pipeline.py)."""

    @property
    def sees_eyes(self) -> bool: ...

    def eyes_open(self, frame: Frame, face: Face) -> tuple[float, float]:
        """Probability, 0-1, that the right and the left eye are open. Raises ModelError."""
        ...


class BlinkCue:
    """Judges one asked blink. Not thread-safe."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was seen: the baseline too counts from now on only."""
        self.progress = 0.0
        """0-1: how much of the baseline is there."""
        self._open_since_s: float | None = None
        self._open_last_s = 0.0
        self._closed_s: tuple[float, float] | None = None
        """The first and the last frame with closed eyes."""

    def add(self, at_s: float, eyes: tuple[float, float] | None, inter_eye_px: float) -> bool:
        """The next frame; True once the blink is over. ``eyes`` None: they were not seen, and it begins again."""
        if eyes is None or inter_eye_px < MIN_INTER_EYE_PX:
            self.begin()
            return False
        openness = mean(eyes)
        if self._closed_s is not None:
            return self._after_closing(at_s, openness)
        if openness >= OPEN:
            self._open_since_s = at_s if self._open_since_s is None else self._open_since_s
            self._open_last_s = at_s
            self.progress = min(1.0, (at_s - self._open_since_s) / BASELINE_S)
        elif self._open_since_s is None or self.progress < 1.0 or at_s - self._open_last_s > LID_S:
            self.begin()
        elif openness < CLOSED:
            self._closed_s = (at_s, at_s)
        return False

    def _after_closing(self, at_s: float, openness: float) -> bool:
        first_s, last_s = self._closed_s or (at_s, at_s)
        if openness < CLOSED:
            last_s = at_s
            self._closed_s = (first_s, last_s)
        if last_s - first_s > LONGEST_S or at_s - last_s > LID_S:
            self.begin()
            return False
        return openness > OPEN_AGAIN
