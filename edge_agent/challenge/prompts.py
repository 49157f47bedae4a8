"""What a challenge asks, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edge_agent.challenge.turn import Side
from edge_agent.config import LivenessSection
from edge_agent.texts import challenge_text
from edge_agent.types import JsonObject

TELL_EVERY_S: Final = 0.2
TELL_STEP: Final = 0.1
"""Progress is told when it has changed by so much, and not more often than that."""


class Prompt(StrEnum):
    """What the customer is asked (wire values)."""

    LOOK = "look"
    TURN_LEFT = "turn_left"
    TURN_RIGHT = "turn_right"
    BLINK = "blink"

    @property
    def side(self) -> Side | None:
        """Where to turn."""
        return next((side for side, prompt in TURNS.items() if prompt is self), None)


TURNS: Final = {Side.LEFT: Prompt.TURN_LEFT, Side.RIGHT: Prompt.TURN_RIGHT}


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell: the kind is that of the event, without its ``challenge.``; api/wire_events.py has the data."""

    kind: str
    data: JsonObject


@dataclass(slots=True)
class Asked:
    """One prompt, from when it is told until the next one is."""

    step: int
    """Counts on over all attempts of a verification."""
    prompt: Prompt
    attempt: int
    told_at_s: float
    shown_at_s: float | None = None
    """When the POS said so."""
    judged: int = 0
    """Frames since it was shown."""
    progress: float = 0.0
    _progress_told_at_s: float = 0.0
    _progress_told: float = 0.0

    def answered_by(self, at_s: float) -> bool:
        """A frame that was captured then can be an answer."""
        return self.shown_at_s is not None and at_s > self.shown_at_s

    def news(self, terms: LivenessSection) -> News:
        """The prompt, to be shown and acknowledged."""
        data: JsonObject = {
            "step": self.step,
            "prompt": self.prompt.value,
            "text": challenge_text(self.prompt),
            "attempt": self.attempt,
            "attempts": terms.attempts,
            "acknowledge_within_s": terms.acknowledge_timeout_s,
            "answer_within_s": terms.step_timeout_s,
        }
        return News("prompt", data)

    def come_to(self, progress: float, at_s: float) -> News | None:
        """Note how far the customer is; what is to be told of it, if anything."""
        self.progress = progress
        changed = abs(progress - self._progress_told) >= TELL_STEP or self._progress_told < progress == 1.0
        if not changed or at_s - self._progress_told_at_s < TELL_EVERY_S:
            return None
        self._progress_told_at_s, self._progress_told = at_s, progress
        return News("progress", {"step": self.step, "progress": round(progress, 2)})

    def standing(self) -> JsonObject:
        """For a POS that missed its event."""
        return {
            "step": self.step,
            "prompt": self.prompt.value,
            "text": challenge_text(self.prompt),
            "shown": self.shown_at_s is not None,
            "progress": round(self.progress, 2),
        }


NOTHING_ASKED: Final[JsonObject] = dict.fromkeys(("step", "prompt", "text", "shown", "progress"))
"""As ``Asked.standing``."""
