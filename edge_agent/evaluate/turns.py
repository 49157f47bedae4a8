"""The head turn challenge of one presentation: whether the turns that were asked for were made. Pure; times are given.

It ends as a challenge of a verification does, for one presentation: **passed** (every turn asked for was made, in this
order, as one unbroken movement), **not passed**, or **no response**, where nothing could be judged: no face looked
straight into the camera for long enough to begin, or the frames were too few or the face too small.

What was asked is known in one of four ways (``Prompting``): somebody is asked now, a file says what was asked when, a
name says in which order, or nothing is known. Then either order will do, which is easier than the challenge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from random import Random
from typing import Final, Protocol

from edge_agent.challenge.turn import Reading, Side, TurnCue
from edge_agent.types import Assessment

STEP_S: Final = 5.0
"""To make a turn, from its prompt on."""
ATTEMPTS: Final = 2
HOLD_S: Final = (0.6, 1.6)
"""How long the head is to be still before a turn is asked for: at random, so that nobody can foretell it."""


class TurnAnswer(StrEnum):
    """How a challenge ended (wire values)."""

    PASSED = "passed"
    NOT_PASSED = "not_passed"
    NONE = "no_response"


class Prompting(StrEnum):
    """How it is known what was asked (wire values)."""

    LIVE = "live"
    """Asked now, in random order."""
    TIMED = "timed"
    """A file beside the clip says what was asked when."""
    ORDERED = "ordered"
    """Known is the order alone."""
    EITHER = "either"
    """Nothing is known: a turn to each side, in whichever order."""


@dataclass(frozen=True, slots=True)
class Turned:
    """What came of the challenge."""

    answer: TurnAnswer
    prompting: Prompting
    asked: tuple[Side, ...]
    """In order; empty where that is not known."""
    reason: str | None
    """Why it was not passed: ``not_turned``, ``too_late``, ``face_lost``, ``jump``, ``track_changed``; why there is no
    response: ``no_face``, ``no_neutral_pose``, ``too_small``, ``too_slow``."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """By what turns are judged."""

    threshold: float
    mirrored: bool

    def cue(self) -> TurnCue:
        return TurnCue(self.threshold, mirrored=self.mirrored)


class Challenge(Protocol):
    """One presentation's."""

    @property
    def over(self) -> bool:
        """Further frames change nothing."""
        ...

    def add(self, seen: Assessment) -> None:
        """The next frame."""
        ...

    def result(self) -> Turned:
        """Once there are no more frames, or it is over."""
        ...


class _Watch:
    """What the cue says of the frames, and why there may be nothing to say."""

    def __init__(self, cue: TurnCue) -> None:
        self.cue = cue
        self._began = False
        self._unjudged: Counter[str] = Counter()
        self._judged = 0

    def add(self, seen: Assessment) -> Reading:
        face = seen.measurement.face if seen.track_id else None
        landmarks = None if face is None else face.landmarks
        reading = self.cue.add(seen.frame.captured_at_s, landmarks, seen.track_id)
        self._began |= reading.neutral
        if reading.u is not None:
            self._judged += 1
        else:
            self._unjudged[reading.inconclusive or ("no_neutral_pose" if face is not None else "no_face")] += 1
        return reading

    @property
    def silent(self) -> str | None:
        """Why there is no response; None where there is one."""
        reason, count = next(iter(self._unjudged.most_common(1)), ("no_face", 0))
        if not self._began:
            return reason
        return reason if reason in {"too_small", "too_slow"} and count > self._judged else None


class InOrder:
    """Turns asked for one after the other: the first once the head has been still, each next once one was made."""

    def __init__(
        self,
        cue: TurnCue,
        sides: Sequence[Side],
        prompting: Prompting,
        *,
        tell: Callable[[str], None] = lambda _text: None,
        hold_s: Callable[[], float] = lambda: 0.0,
        step_s: float = inf,
    ) -> None:
        """``tell`` hears what to do. ``hold_s`` gives how long the head is to be still before the first turn."""
        self._watch, self._sides, self._prompting = _Watch(cue), tuple(sides), prompting
        self._tell, self._hold_s, self._step_s = tell, hold_s, step_s
        self._answer: TurnAnswer | None = None
        self._reason = "not_turned"
        self._attempt = 0
        self._begin()

    @property
    def over(self) -> bool:
        return self._answer is not None

    def add(self, seen: Assessment) -> None:
        if self.over:
            return
        reading, at_s = self._watch.add(seen), seen.frame.captured_at_s
        if self._step < 0:
            self._look(reading, at_s)
        elif reading.reset is not None:
            self._break(reading.reset)
        elif reading.turned:
            self._next(at_s)
        elif at_s - self._asked_at_s > self._step_s:
            self._break("too_late")

    def result(self) -> Turned:
        answer, silent = self._answer, self._watch.silent
        if answer is TurnAnswer.PASSED:
            return Turned(answer, self._prompting, self._sides, None)
        if silent is not None:
            return Turned(TurnAnswer.NONE, self._prompting, self._sides, silent)
        return Turned(TurnAnswer.NOT_PASSED, self._prompting, self._sides, self._reason)

    def _begin(self) -> None:
        self._attempt += 1
        self._step, self._asked_at_s = -1, 0.0
        self._still_since_s: float | None = None
        self._still_s = self._hold_s()
        self._tell("look at the screen")

    def _look(self, reading: Reading, at_s: float) -> None:
        """Who moves before a turn is asked for waits anew."""
        if not reading.neutral:
            self._still_since_s = None
            return
        if self._still_since_s is None:
            self._still_since_s = at_s
        if at_s - self._still_since_s >= self._still_s:
            self._next(at_s)

    def _next(self, at_s: float) -> None:
        self._step, self._asked_at_s = self._step + 1, at_s
        if self._step == len(self._sides):
            self._answer = TurnAnswer.PASSED
            self._tell("done")
            return
        side = self._sides[self._step]
        self._watch.cue.ask(side)
        self._tell(f"turn your head a little to your {side.value}")

    def _break(self, reason: str) -> None:
        self._reason = reason
        if self._attempt >= ATTEMPTS:
            self._answer = TurnAnswer.NOT_PASSED
            self._tell("not passed")
        else:
            self._begin()


class Timed:
    """Turns asked for at known times: each counts from its prompt until the next, or for ``STEP_S``."""

    def __init__(self, cue: TurnCue, prompts: Sequence[tuple[float, Side]]) -> None:
        """``prompts``: seconds of the frames' clock, rising, and the side."""
        self._watch, self._prompts = _Watch(cue), tuple(prompts)
        self._step = -1
        self._made = 0
        self._reason: str | None = None

    @property
    def over(self) -> bool:
        return self._reason is not None or self._made == len(self._prompts)

    def add(self, seen: Assessment) -> None:
        if self.over:
            return
        at_s = seen.frame.captured_at_s
        self._ask(at_s)
        reading = self._watch.add(seen)
        if self._step < 0 or self._reason is not None:
            return
        if reading.reset is not None:
            self._reason = reading.reset
        elif self._made == self._step and reading.turned:
            self._made += 1
        elif self._made == self._step and at_s - self._prompts[self._step][0] > STEP_S:
            self._reason = "too_late"

    def _ask(self, at_s: float) -> None:
        following = self._step + 1
        if following == len(self._prompts) or at_s < self._prompts[following][0]:
            return
        if self._made < following:
            self._reason = "not_turned"
            return
        self._step = following
        self._watch.cue.ask(self._prompts[following][1])

    def result(self) -> Turned:
        sides, silent = tuple(side for _, side in self._prompts), self._watch.silent
        if self._made == len(self._prompts):
            return Turned(TurnAnswer.PASSED, Prompting.TIMED, sides, None)
        if silent is not None:
            return Turned(TurnAnswer.NONE, Prompting.TIMED, sides, silent)
        return Turned(TurnAnswer.NOT_PASSED, Prompting.TIMED, sides, self._reason or "not_turned")


class EitherOrder:
    """Nobody knows what was asked: both orders are tried, and the better one counts."""

    def __init__(self, rules: TurnRules) -> None:
        orders = ((Side.LEFT, Side.RIGHT), (Side.RIGHT, Side.LEFT))
        self._tried = [InOrder(rules.cue(), order, Prompting.EITHER) for order in orders]

    @property
    def over(self) -> bool:
        return any(t.over and t.result().answer is TurnAnswer.PASSED for t in self._tried) or all(
            t.over for t in self._tried
        )

    def add(self, seen: Assessment) -> None:
        for tried in self._tried:
            tried.add(seen)

    def result(self) -> Turned:
        best = min((t.result() for t in self._tried), key=lambda turned: list(TurnAnswer).index(turned.answer))
        return Turned(best.answer, Prompting.EITHER, (), best.reason)


def live(rules: TurnRules, tell: Callable[[str], None], chance: Random) -> Challenge:
    """Somebody is asked now: in random order, after a random time of holding still."""
    first = chance.choice(list(Side))
    second = Side.LEFT if first is Side.RIGHT else Side.RIGHT
    return InOrder(
        rules.cue(),
        (first, second),
        Prompting.LIVE,
        tell=tell,
        hold_s=lambda: chance.uniform(*HOLD_S),
        step_s=STEP_S,
    )
