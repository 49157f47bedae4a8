"""The course of one challenge: what is asked when, for how long, how often. Pure; times are given (monotonic seconds).

An attempt is: "look at the screen" until the head has been in its neutral pose for a while that nobody can foretell,
then a turn to one side, then to the other. A prompt counts from the moment that the POS says it is shown; what was
seen before answers nothing. Whatever breaks the track after the first turn was told ends the attempt: two faces must
not share one challenge.

It ends in one of three ways: ``outcome`` is set (passed, or unavailable where the configuration accepts that), ``code``
is set (the verification is to be rejected), or nobody asks any more.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from edge_agent.challenge.blink import BlinkCue
from edge_agent.challenge.pace import MIN_FPS
from edge_agent.challenge.prompts import NOTHING_ASKED, TURNS, Asked, News, Prompt
from edge_agent.challenge.turn import Reading, Side
from edge_agent.config import LivenessSection
from edge_agent.texts import challenge_text
from edge_agent.types import ChallengeCode, ChallengeOutcome, Face, JsonObject, Landmarks

HOLD_S: Final = (0.6, 1.6)
"""How long the head is still before a turn is asked for: a film that was made before does not know."""
_OTHER: Final = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


class Cue(Protocol):
    """challenge.turn.TurnCue."""

    def add(self, at_s: float, landmarks: Landmarks | None, track_id: int) -> Reading: ...

    def ask(self, side: Side) -> None: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What one frame shows."""

    at_s: float
    """When it was captured."""
    face: Face | None
    track_id: int
    """0: no single face to follow."""
    eyes: tuple[float, float] | None = None
    """Open right, open left; looked into only while ``wants_eyes``."""


class ChallengeProtocol:
    """One verification's. Not thread-safe."""

    def __init__(
        self,
        terms: LivenessSection,
        cue: Cue,
        *,
        tell: Callable[[News], None],
        can_blink: bool = False,
        chance: random.Random | None = None,
    ) -> None:
        """``can_blink``: the eyes can be seen. ``chance`` None: what nobody can foretell."""
        self._terms = terms
        self._cue = cue
        self._tell = tell
        self._can_blink = can_blink and terms.cannot_turn == "blink"
        self._chance = chance or secrets.SystemRandom()
        self._blink = BlinkCue()
        self._blinking = False
        self._began_at_s: float | None = None
        self._attempt = self._step = 0
        self._asked: Asked | None = None
        self._acknowledged: set[int] = set()
        self._turns: list[Side] = []
        self._track_id = 0
        """The track of this attempt; 0 until the first turn is told."""
        self._still_since_s: float | None = None
        self._hold_s = 0.0
        self._passed_at_s: float | None = None
        self.outcome: ChallengeOutcome | None = None
        self.code: ChallengeCode | None = None
        self.reason: str | None = None
        """Why the last attempt ended, as it was told."""
        self.frontal = False
        """The last frame showed a head that is not turned."""

    # -- how it stands

    @property
    def begun(self) -> bool:
        return self._began_at_s is not None

    @property
    def over(self) -> bool:
        """Nothing is asked any more."""
        return self.code is not None or self.outcome is not None

    @property
    def wants_eyes(self) -> bool:
        """The eyes of the next frame are to be looked into."""
        asked = self._asked
        return asked is not None and asked.prompt is Prompt.BLINK and asked.shown_at_s is not None

    @property
    def until_s(self) -> float:
        """The search goes on until then, whatever its own time-out; 0 while nothing was asked."""
        if self._passed_at_s is not None:
            return self._passed_at_s + self._terms.step_timeout_s
        return 0.0 if self._began_at_s is None or self.over else self._began_at_s + self._terms.total_timeout_s

    @property
    def track_id(self) -> int:
        """The track on which it was passed."""
        return self._track_id

    def standing(self) -> JsonObject:
        """The present prompt, for a POS that missed events: see api/wire.py, ChallengeBody."""
        return {
            "outcome": None if self.outcome is None else self.outcome.value,
            "method": self._method,
            "attempt": self._attempt,
            "attempts": self._terms.attempts,
            **(NOTHING_ASKED if self._asked is None else self._asked.standing()),
        }

    def prompt(self) -> News | None:
        """The present prompt as it was told."""
        return None if self._asked is None else self._asked.news(self._terms)

    @property
    def _method(self) -> str:
        return (ChallengeOutcome.BLINK if self._blinking else ChallengeOutcome.HEAD_TURN).value

    # -- what the POS says

    def acknowledge(self, step: int, at_s: float) -> bool:
        """The prompt of this step is shown since ``at_s``. False for a step that is not asked now and never was shown."""
        asked = self._asked
        if asked is not None and asked.step == step and asked.shown_at_s is None:
            asked.shown_at_s = at_s
            self._acknowledged.add(step)
            self._blink.begin()
        return step in self._acknowledged

    def say_cannot_turn(self, at_s: float) -> bool:
        """From now on a blink is asked for, with the clock and the attempts anew, once. False when it is over."""
        if self.over:
            return False
        if self._blinking:
            return True
        self._blinking = True
        if not self._can_blink:
            self._end(ChallengeCode.CANNOT_TURN, "cannot_turn")
        elif self.begun:
            self._cancel("cannot_turn")
            self._attempt = 0
            self._began_at_s = at_s
            self._begin_attempt(at_s)
        return True

    # -- time

    def begin(self, at_s: float) -> None:
        """There is a face that qualifies: ask it."""
        if self.begun or self.over:
            return
        self._began_at_s = at_s
        self._begin_attempt(at_s)

    def tick(self, now_s: float) -> None:
        """What is too late by now, is."""
        if self.over or self._began_at_s is None or self._asked is None:
            return
        asked, terms = self._asked, self._terms
        if asked.shown_at_s is None and now_s - asked.told_at_s >= terms.acknowledge_timeout_s:
            self._unavailable("not_acknowledged", now_s)
        elif asked.shown_at_s is not None and now_s - asked.shown_at_s >= terms.step_timeout_s:
            self._step_timed_out(asked, now_s - asked.shown_at_s, now_s)
        elif now_s - self._began_at_s >= terms.total_timeout_s:
            self._end(self._failed, "total_timeout")

    def _step_timed_out(self, asked: Asked, elapsed_s: float, now_s: float) -> None:
        """By our own count of all frames: a face that hides between them does not make the terminal too slow."""
        if asked.judged < elapsed_s * MIN_FPS:
            self._unavailable("too_slow", now_s)
        else:
            self._attempt_over("step_timeout", now_s)

    # -- frames

    def add(self, seen: Seen) -> None:
        """The next frame. Once it is passed, a break of the track takes that back."""
        asked = self._asked if self._asked is not None and self._asked.answered_by(seen.at_s) else None
        if asked is not None:
            self._ask_cue(asked)
            asked.judged += 1
        reading = self._cue.add(seen.at_s, None if seen.face is None else seen.face.landmarks, seen.track_id)
        self.frontal = reading.u is not None and abs(reading.u) <= self._terms.turn_threshold / 2
        if not self.begun or self.code is not None or self.outcome is ChallengeOutcome.UNAVAILABLE:
            return
        broken = self._broken(reading, seen)
        if broken is not None:
            self._break(broken, seen.at_s)
        elif asked is not None:
            self._judge(asked, reading, seen)

    def _ask_cue(self, asked: Asked) -> None:
        if asked.judged == 0 and asked.prompt.side is not None:
            self._cue.ask(asked.prompt.side)

    def _broken(self, reading: Reading, seen: Seen) -> str | None:
        if reading.reset is not None:
            return reading.reset
        return "track_changed" if self._track_id and seen.track_id != self._track_id else None

    def _break(self, reason: str, at_s: float) -> None:
        """Before a turn was told nothing is lost but the time that the head was still."""
        if self._track_id:
            self._passed_at_s = self.outcome = None
            self._attempt_over(reason, at_s)
        else:
            self._still_since_s = None

    def _judge(self, asked: Asked, reading: Reading, seen: Seen) -> None:
        if asked.prompt is Prompt.LOOK:
            self._hold(reading, seen)
        elif asked.prompt is Prompt.BLINK:
            self._judge_blink(asked, seen)
        elif reading.turned:
            self._turned(seen.at_s)
        else:
            self._tell_progress(asked, reading.progress, seen.at_s)

    def _hold(self, reading: Reading, seen: Seen) -> None:
        """The head must be still for as long as chance wants; who moves early waits anew."""
        if not (reading.neutral and seen.track_id):
            self._still_since_s = None
            return
        if self._still_since_s is None:
            self._still_since_s, self._hold_s = seen.at_s, self._chance.uniform(*HOLD_S)
        if seen.at_s - self._still_since_s >= self._hold_s:
            self._track_id = seen.track_id
            self._turned(seen.at_s)

    def _turned(self, at_s: float) -> None:
        """On to the next turn, or passed."""
        if self._turns:
            self._ask(TURNS[self._turns.pop(0)], at_s)
        else:
            self._pass(ChallengeOutcome.HEAD_TURN, at_s)

    def _judge_blink(self, asked: Asked, seen: Seen) -> None:
        if not seen.track_id:
            return
        self._track_id = seen.track_id
        inter_eye_px = 0.0 if seen.face is None else seen.face.inter_eye_px
        if self._blink.add(seen.at_s, seen.eyes, inter_eye_px):
            self._pass(ChallengeOutcome.BLINK, seen.at_s)
        else:
            self._tell_progress(asked, self._blink.progress, seen.at_s)

    # -- steps

    def _begin_attempt(self, at_s: float) -> None:
        self._attempt += 1
        self._track_id, self._still_since_s = 0, None
        first = self._chance.choice(list(Side))
        self._turns = [first, _OTHER[first], first][: self._terms.steps]
        steps = 1 if self._blinking else self._terms.steps
        told = {"method": self._method, "attempt": self._attempt, "attempts": self._terms.attempts, "steps": steps}
        self._tell(News("begin", told))
        self._ask(Prompt.BLINK if self._blinking else Prompt.LOOK, at_s)

    def _ask(self, prompt: Prompt, at_s: float) -> None:
        self._step += 1
        self._asked = Asked(self._step, prompt, self._attempt, at_s)
        self._tell(self._asked.news(self._terms))

    def _tell_progress(self, asked: Asked, progress: float, at_s: float) -> None:
        news = asked.come_to(progress, at_s)
        if news is not None:
            self._tell(news)

    def _pass(self, outcome: ChallengeOutcome, at_s: float) -> None:
        self._asked, self.outcome, self._passed_at_s = None, outcome, at_s
        self._tell(News("done", {"outcome": outcome.value, "text": challenge_text("done")}))

    def _attempt_over(self, reason: str, at_s: float) -> None:
        if self._attempt >= self._terms.attempts:
            self._end(self._failed, reason)
        elif self._began_at_s is not None and at_s - self._began_at_s >= self._terms.total_timeout_s:
            self._end(self._failed, "total_timeout")
        else:
            self._cancel(reason)
            self._begin_attempt(at_s)

    @property
    def _failed(self) -> ChallengeCode:
        """Who cannot turn and did not blink is not told to try again."""
        return ChallengeCode.CANNOT_TURN if self._blinking else ChallengeCode.FAILED

    def _unavailable(self, reason: str, at_s: float) -> None:
        if self._terms.unavailable == "reject":
            self._end(ChallengeCode.UNAVAILABLE, reason)
            return
        self._cancel(reason)
        self._pass(ChallengeOutcome.UNAVAILABLE, at_s)

    def _end(self, code: ChallengeCode, reason: str) -> None:
        self._asked, self.code = None, code
        self._cancel(reason)

    def _cancel(self, reason: str) -> None:
        self.reason = reason
        code = None if self.code is None else self.code.value
        self._tell(News("cancel", {"attempt": self._attempt, "reason": reason, "code": code}))
