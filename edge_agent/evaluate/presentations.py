"""One presentation, bona fide or attack, judged as a terminal would judge it.

A still is judged by the rules for a single frame, a clip and a camera by the rules of a session (gate, track, vote).
The answer of the attack detection is one of three (ISO/IEC 30107-3): it calls the presentation live, or an attack, or
it does not respond, because nothing that it could judge came its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Final

from edge_agent.camera.clip import CLIP_SUFFIXES, Clip
from edge_agent.config import GateSection, SessionSection
from edge_agent.errors import InputError
from edge_agent.evaluate.prompts import challenge_of
from edge_agent.evaluate.turns import Challenge, Turned, TurnRules
from edge_agent.picture import read_picture
from edge_agent.screening import Screener, Vision
from edge_agent.session import FUSED_FRAMES, Framing, fuse, is_fresh
from edge_agent.types import Assessment, Frame, GateCode, LivenessScore

CLIP_FPS: Final = 10.0
"""Of a clip that does not say its own."""


class Answer(StrEnum):
    """What the attack detection said of a presentation."""

    LIVE = "live"
    """Every liveness model called it live (of a session: a best shot qualified)."""
    ATTACK = "attack"
    """A liveness model that could judge did not."""
    NONE = "no_response"
    """No face, or nothing that passed the gate far enough to be judged."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """What came of one presentation. No pixels, no embedding."""

    name: str
    """The file, or its number."""
    answer: Answer
    accepted: bool
    """The whole gate accepts it: live, and of good quality."""
    reasons: tuple[str, ...]
    """Gate codes, where it is not accepted."""
    scores: tuple[LivenessScore, ...]
    """Of a still its own; of a session those of the vote that came nearest to qualifying. Empty without an answer."""
    frames: int
    values: dict[str, float] = field(default_factory=dict)
    """Gate measure -> median over the frames where it was assessed."""
    turned: Turned | None = None
    """Of the challenge, where it was run; a picture turns nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """By what is judged: the configuration's limits and session rules."""

    gate: GateSection
    session: SessionSection
    turns: TurnRules | None = None
    """With them the challenge is run too."""


def present_file(path: Path, vision: Vision, rules: Rules) -> Presentation:
    """Judge a picture or a clip. Raises InputError or CameraError for what cannot be used, ModelError."""
    if path.suffix.lower() not in CLIP_SUFFIXES:
        return _still(path.name, Screener(vision, rules.gate).still(Frame(read_picture(path), 0.0, 0)))
    challenge = challenge_of(path, rules.turns) if rules.turns else None
    clip = Clip(path, default_fps=CLIP_FPS, loop=False)
    try:
        return present(path.name, _frames(clip), vision, rules, started_at_s=-1.0, challenge=challenge)
    finally:
        clip.close()


def _frames(clip: Clip) -> Iterable[Frame]:
    number = 0
    while (image := clip.image(number)) is not None:
        yield Frame(image, number / clip.fps, number)
        number += 1


def _still(name: str, seen: Assessment) -> Presentation:
    return Presentation(
        name=name,
        answer=_answer(seen),
        accepted=seen.accepted,
        reasons=tuple(code.value for code in seen.reasons),
        scores=seen.liveness if _answer(seen) is not Answer.NONE else (),
        frames=1,
        values={check.measure: check.value for check in seen.checks if check.value is not None},
    )


def _answer(seen: Assessment) -> Answer:
    """Of one frame. A crop that a model refused is no answer, unless another model already said attack."""
    if not seen.liveness:
        return Answer.NONE
    if any(score.score is not None and not score.passed for score in seen.liveness):
        return Answer.ATTACK
    unusable = GateCode.LIVENESS_INPUT_REJECTED in seen.reasons
    return Answer.NONE if unusable else Answer.LIVE


def present(
    name: str,
    frames: Iterable[Frame],
    vision: Vision,
    rules: Rules,
    *,
    started_at_s: float,
    on_hint: Callable[[GateCode | None], None] = lambda _code: None,
    challenge: Challenge | None = None,
) -> Presentation:
    """Judge frames as a session would, until one qualifies (and ``challenge`` is over) or they end.

    ``started_at_s``: frames that were taken before (monotonic) do not count. ``on_hint`` hears what a customer would
    be told. Raises what ``frames`` raises, ModelError, and InputError where there was no frame at all.
    """
    screener = Screener(vision, rules.gate)
    framing = Framing(
        liveness_frames=rules.session.liveness_frames,
        window_s=rules.session.capture_window_s,
        hint_hold_s=rules.session.hint_hold_s,
        started_at_s=started_at_s,
    )
    watch, best = _Watch(rules.session.liveness_frames), None
    for frame in frames:
        if not is_fresh(frame, started_at_s):
            continue
        seen = screener.screen(frame, whole=framing.may_decide(frame.captured_at_s))
        watch.see(seen)
        if best is None:
            best, hint = framing.add(seen)
            if hint is not None:
                on_hint(hint.code)
        if challenge is not None:
            challenge.add(seen)
        if best is not None and (challenge is None or challenge.over):
            break
    if not watch.frames:
        raise InputError(f"cannot judge {name}: there is no frame in it", code="not_an_image")
    reasons = () if best is not None else tuple(code.value for code in framing.reasons())
    found = watch.result(name, best.liveness if best is not None else None, reasons)
    return found if challenge is None else replace(found, turned=challenge.result())


class _Watch:
    """What one session showed on the way."""

    def __init__(self, votes: int) -> None:
        self.frames = 0
        self._spoofed = False
        self._votes = votes
        self._recent: deque[Assessment] = deque(maxlen=max(FUSED_FRAMES, votes))
        self._nearest: tuple[LivenessScore, ...] = ()
        self._nearness: tuple[bool, float] | None = None
        self._values: dict[str, list[float]] = {}

    def see(self, seen: Assessment) -> None:
        self.frames += 1
        self._spoofed |= _answer(seen) is Answer.ATTACK
        for check in seen.checks:
            if check.value is not None:
                self._values.setdefault(check.measure, []).append(check.value)
        if seen.liveness:
            self._vote(seen)

    def _vote(self, seen: Assessment) -> None:
        """Fuse the latest frames of one track as a session does, and keep what came nearest to qualifying.

        A vote of fewer frames than a session asks for counts only while there is none of enough.
        """
        if self._recent and self._recent[-1].track_id != seen.track_id:
            self._recent.clear()
        self._recent.append(seen)
        fused = fuse([one.liveness for one in self._recent])
        nearness = (len(self._recent) >= self._votes, margin(fused))
        if self._nearness is None or nearness > self._nearness:
            self._nearest, self._nearness = fused, nearness

    def result(self, name: str, best: tuple[LivenessScore, ...] | None, reasons: tuple[str, ...]) -> Presentation:
        live = best is not None
        answer = Answer.LIVE if live else Answer.ATTACK if self._spoofed else Answer.NONE
        scores = best if best is not None else self._nearest
        values = {measure: median(values) for measure, values in self._values.items()}
        return Presentation(
            name, answer, live, reasons, scores if answer is not Answer.NONE else (), self.frames, values
        )


def margin(scores: tuple[LivenessScore, ...]) -> float:
    """By how much the least convinced model is above its threshold; negative below."""
    return min((-1.0 if s.score is None else s.score - s.threshold for s in scores), default=-1.0)
