"""Filming with a challenge, on a made-up clock: which picture is taken, when the search ends, and as what."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edge_agent.camera import Camera
from edge_agent.challenge.course import Course
from edge_agent.challenge.prompts import News
from edge_agent.config import CaptureSection, GateSection, LivenessSection, SessionSection
from edge_agent.errors import ModelError
from edge_agent.filming import Captured, Filming, Listeners, Lost, Outcome, Rejected
from edge_agent.types import ChallengeCode, ChallengeOutcome, Face, Frame, GateCode, LivenessScore, Measurement
from edge_agent.workers import Worker
from tests.faces import scores
from tests.turning import FAR, TurningEyes

SIDES = {"turn_left": FAR, "turn_right": -FAR}


class MadeUpCamera(Camera):
    """15 frames a second of its own clock, which nothing else moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.on_frame: Callable[[int], None] = lambda _index: None
        self._index = -1

    @property
    def description(self) -> str:
        return "made up"

    @property
    def size(self) -> tuple[int, int]:
        return 1280, 720

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""

    def read(self, timeout_s: float) -> Frame:
        del timeout_s
        self.now_s += 1 / 15
        self._index += 1
        self.on_frame(self._index)
        image = np.full((720, 1280, 3), 90, np.uint8)
        image[::7, ::7] = (self._index % 256, self._index // 256, 7)  # no two are the same picture
        return Frame(image, self.now_s, self._index)


@dataclass
class Scene:
    """A customer who does what is asked, unless told otherwise, and a till that acknowledges."""

    search_timeout_s: float = 10.0
    terms: dict[str, Any] = field(default_factory=dict)
    sees_eyes: bool = False
    answers: bool = True
    """The till acknowledges."""
    obeys: bool = True
    comes_back: bool = True
    """Looks straight for the picture."""
    at_frame: dict[int, Callable[[Scene], None]] = field(default_factory=dict)
    on_done: Callable[[Scene], None] = lambda _scene: None

    def __post_init__(self) -> None:
        self.camera, self.eyes = MadeUpCamera(), TurningEyes(sees_eyes=self.sees_eyes)
        self.began_s = self.camera.now_s
        self.hints: list[GateCode | None] = []
        self.u_of_frames: dict[int, float] = {}
        self._prompt: News | None = None
        self._worker = Worker("test")
        terms = LivenessSection(challenge="head_turn", **self.terms)
        self.course = Course(terms, tell=self._told, clock=lambda: self.camera.now_s, can_blink=self.sees_eyes)
        self.course._protocol._chance = random.Random(5)
        self.camera.on_frame = self._next

    def _told(self, news: News) -> None:
        if news.kind == "prompt":
            self._prompt = news
        if news.kind == "done":
            self._prompt = None
            if self.comes_back:
                self.eyes.to = 0.0
            self.on_done(self)

    def _next(self, index: int) -> None:
        if self._prompt is not None and self.answers:
            self.course.acknowledge(self._prompt.data["step"])
            self.eyes.to = SIDES.get(self._prompt.data["prompt"], 0.0) if self.obeys else 0.0
        self.at_frame.get(index, lambda _scene: None)(self)
        self.u_of_frames[index] = self.eyes._at

    def film(self) -> Outcome:
        filming = Filming(
            self.camera,
            self.eyes,
            camera_worker=self._worker,
            inference_worker=self._worker,
            session=SessionSection(capture_window_s=0.3, hint_hold_s=0.0),
            gate=GateSection(),
            capture=CaptureSection(),
            search_timeout_s=self.search_timeout_s,
            listeners=Listeners(hint=self.hints.append, camera=lambda *_: None, frame=lambda _: None),
            clock=lambda: self.camera.now_s,
            challenge=self.course,
        )
        try:
            return asyncio.run(filming.run())
        finally:
            self._worker.close()

    @property
    def took_s(self) -> float:
        return self.camera.now_s - self.began_s


def test_the_picture_is_a_frontal_frame_of_the_track_that_passed() -> None:
    scene = Scene()
    outcome = scene.film()
    assert isinstance(outcome, Captured)
    assert outcome.challenge is ChallengeOutcome.HEAD_TURN
    best = outcome.best.assessment
    assert abs(scene.u_of_frames[best.frame.index]) < 0.06 + 0.01
    assert best.track_id == scene.course._protocol.track_id
    assert max(map(abs, scene.u_of_frames.values())) > 0.12


def test_the_search_goes_on_while_a_challenge_does_and_then_for_the_picture() -> None:
    scene = Scene(search_timeout_s=1.0)
    assert isinstance(scene.film(), Captured)
    assert scene.took_s > 2.0
    stays = Scene(search_timeout_s=1.0, comes_back=False)
    assert stays.film() == Rejected((GateCode.HOLD_STILL,))
    assert stays.course.outcome is ChallengeOutcome.HEAD_TURN


def test_who_does_nothing_is_rejected_for_the_challenge_alone() -> None:
    scene = Scene(search_timeout_s=1.0, obeys=False, terms={"attempts": 1})
    outcome = scene.film()
    assert isinstance(outcome, Rejected)
    assert (outcome.challenge, outcome.why) == (ChallengeCode.FAILED, "step_timeout")
    assert scene.took_s < 10


def somebody_else(scene: Scene) -> None:
    scene.eyes.person = 2


def test_after_a_swap_the_pass_of_the_one_is_nothing_to_the_other() -> None:
    scene = Scene(on_done=somebody_else, terms={"attempts": 1})
    outcome = scene.film()
    assert isinstance(outcome, Rejected)
    assert outcome.challenge is ChallengeCode.FAILED
    twice = Scene(on_done=lambda s: setattr(s, "on_done", lambda _: None) or somebody_else(s))  # type: ignore[func-returns-value]
    captured = twice.film()
    assert isinstance(captured, Captured)  # the second one turned as well
    assert captured.best.assessment.track_id == twice.course._protocol.track_id > 1


def a_spoof(scene: Scene) -> None:
    scene.eyes.scores = scores(0.1, 0.1)


def test_a_passed_challenge_overrules_no_model() -> None:
    scene = Scene(on_done=a_spoof)
    outcome = scene.film()
    assert outcome == Rejected((GateCode.SPOOF_SUSPECTED,))
    assert scene.course.outcome is ChallengeOutcome.HEAD_TURN


def test_nobody_is_challenged_who_does_not_qualify() -> None:
    scene = Scene(search_timeout_s=2.0)
    a_spoof(scene)
    assert scene.film() == Rejected((GateCode.SPOOF_SUSPECTED,))
    assert scene.course.standing()["attempt"] == 0


def test_hints_that_a_turn_would_cause_are_not_told_while_it_is_asked() -> None:
    def blurred(scene: Scene) -> None:
        scene.eyes.scores = scores(0.1, 0.1)

    def sharp(scene: Scene) -> None:
        scene.eyes.scores = scores(0.9, 0.9)

    scene = Scene(at_frame={20: blurred, 24: sharp})
    assert isinstance(scene.film(), Captured)
    assert GateCode.SPOOF_SUSPECTED not in scene.hints


def live_again(scene: Scene) -> None:
    scene.eyes.scores = scores(0.9, 0.9)


def test_what_the_models_say_of_a_turning_head_is_no_reason_for_a_rejection_and_so_locks_nobody_out() -> None:
    scene = Scene(search_timeout_s=1.0, at_frame={20: a_spoof}, on_done=live_again, comes_back=False)
    assert scene.film() == Rejected((GateCode.HOLD_STILL,))
    assert scene.course.outcome is ChallengeOutcome.HEAD_TURN


def test_a_hint_that_was_held_back_is_told_once_nothing_is_asked_any_more() -> None:
    scene = Scene(search_timeout_s=1.0, at_frame={20: a_spoof})
    assert scene.film() == Rejected((GateCode.SPOOF_SUSPECTED,))
    assert scene.hints[-1] is GateCode.SPOOF_SUSPECTED


class RememberingEyes(TurningEyes):
    remembers = False

    def measure(self, frame: Frame) -> Measurement:
        self.remembers = True
        return super().measure(frame)

    def forget(self) -> None:
        self.remembers = False


@pytest.mark.parametrize("obeys", [True, False])
def test_when_the_session_is_over_nothing_of_its_pictures_is_kept_in_memory(obeys: bool) -> None:
    scene = Scene(obeys=obeys, terms={"attempts": 1})
    scene.eyes = eyes = RememberingEyes()
    outcome = scene.film()
    assert isinstance(outcome, Captured if obeys else Rejected)
    assert scene.camera.now_s > scene.began_s and not eyes.remembers


class BlindEyes(TurningEyes):
    def eyes_open(self, frame: Frame, face: Face) -> tuple[float, float]:
        raise ModelError("cannot run fr_eye", code="model_invalid")

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        return super().liveness(frame, face)


def test_eyes_that_cannot_be_looked_into_end_the_session_as_failed() -> None:
    scene = Scene(sees_eyes=True)
    scene.eyes = BlindEyes(sees_eyes=True)
    scene.course.say_cannot_turn()
    assert scene.film() == Lost("inference_failed", "cannot run fr_eye")


@pytest.mark.parametrize("accept", [True, False])
def test_a_silent_till_decides_by_the_policy(accept: bool) -> None:
    scene = Scene(terms={"unavailable": "accept" if accept else "reject"}, answers=False)
    outcome = scene.film()
    if accept:
        assert isinstance(outcome, Captured)
        assert outcome.challenge is ChallengeOutcome.UNAVAILABLE
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.challenge is ChallengeCode.UNAVAILABLE
    assert scene.took_s == pytest.approx(3.0, abs=0.5)
