"""Looking first where the face was: who steps in beside it is seen in time, and nobody qualifies meanwhile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.gate import check_frame
from edge_agent.screening import Screener
from edge_agent.session import BestShot, Framing
from edge_agent.tracking import WHOLE_EVERY_S
from edge_agent.types import Assessment, Face, Frame, GateCode, LivenessScore, Measurement
from tests.faces import LIMITS, face, measurement, scores

pytestmark = pytest.mark.arm
PIXELS = np.zeros((2, 2, 3), np.uint8)
OTHER = face(x=1100, inter_eye=90)


class Room:
    """A vision that sees the customer where it looks, and whoever else is there only in the whole frame."""

    def __init__(self) -> None:
        self.faces: tuple[Face, ...] = (face(),)
        self.looks: list[str] = []

    def measure(self, frame: Frame) -> Measurement:
        self.looks.append("whole")
        return replace(measurement(self.faces), digest=b"%d" % frame.index)

    def measure_near(self, frame: Frame, near: Face) -> Measurement:
        if not self.faces or self.faces[0].box.centre != near.box.centre:
            return self.measure(frame)
        self.looks.append("near")
        sharper = measurement(self.faces[:1], sharpness=0.95)  # so that these would be the best shots
        return replace(sharper, digest=b"%d" % frame.index, whole=False)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del frame, face
        return scores(0.9, 0.9)


class Session:
    """Frames at a rate, as filming shows them to a screener and a framing."""

    def __init__(self, fps: float, *, window_s: float = 1.0, k: int = 5, asks: bool = True) -> None:
        self.room, self.fps, self.asks = Room(), fps, asks
        self.screener = Screener(self.room, LIMITS)
        self.framing = Framing(liveness_frames=k, window_s=window_s, hint_hold_s=0.5, started_at_s=0.0)
        self.index = 0

    @property
    def now_s(self) -> float:
        """When the last frame was taken."""
        return self.index / self.fps

    def show(self, faces: tuple[Face, ...] = (face(),)) -> tuple[Assessment, BestShot | None]:
        self.index += 1
        self.room.faces = faces
        whole = self.asks and self.framing.may_decide(self.now_s)
        seen = self.screener.screen(Frame(PIXELS, self.now_s, self.index), whole=whole)
        return seen, self.framing.add(seen)[0]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([2.0, 5.0, 10.0, 15.0, 30.0, 60.0]), st.integers(1, 60), st.integers(1, 20))
def test_somebody_who_steps_in_is_seen_within_the_bound_and_nobody_qualifies_with_two_in_the_frame(
    fps: float, arrives: int, stays: int
) -> None:
    session = Session(fps)
    two = range(arrives, arrives + stays)
    for index in range(1, arrives + stays + round(min(fps, 20))):
        seen, best = session.show((face(), OTHER) if index in two else (face(),))
        if index in two and (index - arrives) / fps >= WHOLE_EVERY_S:
            assert seen.reasons == (GateCode.MULTIPLE_FACES,)
        if best is not None:
            assert index not in two
            assert best.assessment.frame.index not in two
            assert best.assessment.measurement.whole


@pytest.mark.parametrize(("fps", "near"), [(2, 0), (3, 0), (5, 2), (15, 11), (30, 26)])
def test_most_frames_of_a_fast_camera_are_looked_at_in_part(fps: float, near: int) -> None:
    session = Session(fps, window_s=60.0, k=50)
    for _ in range(round(fps)):
        assert session.show()[0].accepted
    assert session.room.looks[0] == "whole"
    assert session.room.looks.count("near") == pytest.approx(near, abs=2)


@pytest.mark.parametrize(("asks", "late_s"), [(True, 0.0), (False, WHOLE_EVERY_S)])
def test_the_capture_comes_with_the_window_where_the_last_frame_is_asked_for_and_soon_after_it_elsewhere(
    asks: bool, late_s: float
) -> None:
    session = Session(30.0, asks=asks)
    while session.show()[1] is None:
        assert session.now_s < 3.0
    assert session.room.looks[-1] == "whole"
    assert 1.0 + 1 / 30 <= session.now_s + 1e-9 <= 1.0 + late_s + 2.5 / 30


def test_a_vote_without_a_window_is_decided_by_the_frame_that_completes_it() -> None:
    session = Session(30.0, window_s=0.0)
    assert [session.show()[1] is not None for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "faces",
    [
        pytest.param((), id="nobody"),
        pytest.param((face(), OTHER), id="two"),
        pytest.param((face(score=0.4),), id="hardly a face"),
    ],
)
def test_where_nobody_is_followed_the_whole_frame_is_looked_at(faces: tuple[Face, ...]) -> None:
    session = Session(30.0, window_s=60.0)
    session.show()
    for _ in range(round(WHOLE_EVERY_S * 30) + 1):
        session.show(faces)
    session.room.looks.clear()
    for _ in range(3):
        session.show(faces)
    assert session.room.looks.count("whole") == 3


def test_a_look_at_a_part_leaves_a_second_face_unassessed() -> None:
    def passed(whole: bool) -> bool | None:
        checks = check_frame(replace(measurement(), whole=whole), LIMITS)
        return next(check.passed for check in checks if check.code is GateCode.MULTIPLE_FACES)

    assert (passed(whole=True), passed(whole=False)) == (True, None)


def test_a_clock_that_goes_back_makes_the_next_look_a_whole_one() -> None:
    session = Session(30.0)
    session.show()
    session.screener.screen(Frame(PIXELS, -5.0, 99))
    assert session.room.looks == ["whole", "whole"]
