"""The challenge of the verification that is being filmed: fed with its frames, asked whether its best shot may be taken.

Used from the event loop's thread only. Whatever goes wrong in here is raised, and a session that raises is over: an
error never qualifies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from edge_agent.challenge.prompts import News
from edge_agent.challenge.protocol import ChallengeProtocol, Seen
from edge_agent.challenge.turn import TurnCue
from edge_agent.config import LivenessSection
from edge_agent.errors import InputError
from edge_agent.session import BestShot
from edge_agent.types import Assessment, ChallengeCode, ChallengeOutcome, GateCode, JsonObject

_FRONTAL_KEPT: Final = 256
"""Frames of which it is remembered that they were frontal: more than a window of captures has."""
_OF_MOVING: Final = frozenset({
    GateCode.TURN_LEFT, GateCode.TURN_RIGHT, GateCode.CHIN_UP, GateCode.CHIN_DOWN, GateCode.LOOK_STRAIGHT,
    GateCode.HOLD_STILL, GateCode.TOO_BLURRY, GateCode.UNEVEN_LIGHT, GateCode.SPOOF_SUSPECTED,
    GateCode.LIVENESS_INPUT_REJECTED,
})  # fmt: skip
"""What a head gives that turns as it was asked to: as hints they would gainsay the prompt."""


class Course:
    """One verification's challenge."""

    def __init__(
        self,
        terms: LivenessSection,
        *,
        tell: Callable[[News], None],
        clock: Callable[[], float],
        can_blink: bool,
    ) -> None:
        """``clock``: monotonic seconds, the one that frames are stamped with."""
        cue = TurnCue(terms.turn_threshold, mirrored=terms.mirrored)
        self._protocol = ChallengeProtocol(terms, cue, tell=tell, can_blink=can_blink)
        self._clock = clock
        self._frontal: deque[float] = deque(maxlen=_FRONTAL_KEPT)

        self.longest_s = 2 * terms.total_timeout_s + terms.step_timeout_s
        """By so much a search can be longer: the clock begins anew where the customer cannot turn; then the picture."""

    # -- for filming

    @property
    def until_s(self) -> float:
        """Filming goes on until then, whatever the search's own time-out."""
        return self._protocol.until_s

    @property
    def wants_eyes(self) -> bool:
        """``judge`` wants to know of the next frame how open the eyes are."""
        return self._protocol.wants_eyes

    @property
    def code(self) -> ChallengeCode | None:
        """Why the verification is to be rejected at once."""
        return self._protocol.code

    @property
    def why(self) -> str | None:
        """How it came to ``code``; None where there is none."""
        return self._protocol.reason if self._protocol.code is not None else None

    @property
    def outcome(self) -> ChallengeOutcome | None:
        return self._protocol.outcome

    def tick(self) -> ChallengeCode | None:
        """Note what is too late by now. Returns ``code``."""
        self._protocol.tick(self._clock())
        return self._protocol.code

    def judge(
        self, assessment: Assessment, best: BestShot | None, eyes: tuple[float, float] | None = None
    ) -> BestShot | None:
        """Take the next frame in. Returns ``best``, unless it may not be taken (yet).

        The first frame that qualifies begins the challenge: nobody is asked to turn who stands too far away.
        """
        at_s = assessment.frame.captured_at_s
        if assessment.accepted:
            self._protocol.begin(self._clock())
        self._protocol.add(Seen(at_s, assessment.measurement.face, assessment.track_id, eyes))
        if self._protocol.frontal:
            self._frontal.append(at_s)
        return best if best is not None and self._allows(assessment, best) else None

    def _allows(self, latest: Assessment, best: BestShot) -> bool:
        """A capture is a frontal frame of the track that passed, and that track goes on."""
        outcome = self._protocol.outcome
        if outcome is None or self._protocol.code is not None:
            return False
        if outcome is ChallengeOutcome.UNAVAILABLE:
            return True
        same = latest.track_id == best.assessment.track_id == self._protocol.track_id
        return same and best.assessment.frame.captured_at_s in self._frontal

    def excuses(self, code: GateCode | None) -> bool:
        """True for what is now neither a hint for the customer nor held against them: it comes of doing what was asked."""
        return code in _OF_MOVING and self._protocol.begun and not self._protocol.over

    # -- for the POS

    def acknowledge(self, step: int) -> None:
        """Raises InputError ``challenge_wrong_step``, ``challenge_not_running``."""
        if self._protocol.acknowledge(step, self._clock()):
            return
        asked = self._protocol.standing()["step"]
        if asked is None:
            raise not_running()
        raise InputError(
            f"cannot take the acknowledgement of step {step}: step {asked} is asked", code="challenge_wrong_step"
        )

    def say_cannot_turn(self) -> None:
        """Raises InputError ``challenge_not_running``."""
        if not self._protocol.say_cannot_turn(self._clock()):
            raise not_running()

    def standing(self) -> JsonObject:
        """See ChallengeProtocol.standing."""
        return self._protocol.standing()

    def prompt(self) -> News | None:
        """The present one as it was told."""
        return self._protocol.prompt()


def not_running() -> InputError:
    """No prompt is being shown for this verification."""
    return InputError(
        "cannot take the answer: no challenge is running for this verification", code="challenge_not_running"
    )
