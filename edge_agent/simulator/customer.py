"""The customer before the simulator's camera, as far as a challenge goes: does what is asked, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAR: Final = 0.2
"""How far the nose goes, in eye distances: beyond every threshold that can be configured."""
PER_FRAME: Final = 0.025
"""A head that takes its time, at any speed of the simulator: the judge wants to see it on its way."""
STAYS_FRAMES: Final = 8
"""Turned, before it looks straight again."""
BLINK_S: Final = (1.3, 0.2)
"""Open eyes, then closed ones: the judge wants to see a second of open ones, whatever the simulator's speed."""
_THERE_FRAMES: Final = 2 * FAR / PER_FRAME
"""From one side to the other."""
_SIDES: Final = {"turn_left": FAR, "turn_right": -FAR}


@dataclass(frozen=True, slots=True)
class Posture:
    """What one frame shows."""

    turn: float = 0.0
    """Of the nose beside the middle, in eye distances, + = the own left."""
    eyes_open: float = 0.95


STRAIGHT: Final = Posture()


class Customer:
    """One frame after the other. ``ask`` may come from another thread."""

    def __init__(self, *, willing: bool) -> None:
        self._willing = willing
        self._asked: str | None = None
        self._asked_at_s = 0.0
        self._frames = 0
        self._turn = 0.0

    def ask(self, prompt: str, now_s: float) -> None:
        """The customer can read this prompt now."""
        self._frames, self._asked_at_s, self._asked = 0, now_s, prompt

    def next(self, now_s: float) -> Posture:
        """The next frame."""
        self._frames += 1
        asked = self._asked if self._willing else None
        aim = _SIDES.get(asked or "", 0.0) if self._frames <= _THERE_FRAMES + STAYS_FRAMES else 0.0
        self._turn += max(-PER_FRAME, min(PER_FRAME, aim - self._turn))
        shut = asked == "blink" and 0 < now_s - self._asked_at_s - BLINK_S[0] <= BLINK_S[1]
        return Posture(self._turn, 0.01 if shut else 0.95)
