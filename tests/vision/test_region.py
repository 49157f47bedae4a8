"""The surroundings of a face: on the grid, on the canvas, with room to move; and what a look at them finds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.packs.manifest import load_pack
from edge_agent.types import Box, Face, Image
from edge_agent.vision.detect import Detector
from edge_agent.vision.region import MULTIPLE_PX, REACH, SIDES_PX, WORTH, Region, is_well_inside, surroundings
from edge_agent.vision.runtime import load_session
from tests.vision.conftest import Picture
from tests.vision.test_detect import open_detector

canvases = st.sampled_from([(320, 192), (320, 320), (192, 320), (640, 384), (640, 640), (96, 96)])
shares = st.floats(0, 1)


@given(canvases, shares, shares, st.floats(4, 150), st.floats(0.6, 1.0))
def test_a_region_is_on_the_grid_and_on_the_canvas_and_has_the_face_inside(
    canvas: tuple[int, int], across: float, down: float, height: float, flatness: float
) -> None:
    x, y = across * canvas[0], down * canvas[1]
    box = Box(x - height * flatness / 2, y - height / 2, x + height * flatness / 2, y + height / 2)
    region = surroundings(box, canvas)
    assume(region is not None)
    assert region is not None
    assert not any(value % MULTIPLE_PX for value in (region.x, region.y, region.width, region.height))
    assert region.width in {*SIDES_PX, canvas[0]} and region.height in {*SIDES_PX, canvas[1]}
    assert 0 <= region.x <= canvas[0] - region.width and 0 <= region.y <= canvas[1] - region.height
    assert region.width * region.height <= WORTH * canvas[0] * canvas[1]
    assert region.of(np.zeros((canvas[1], canvas[0], 3), np.uint8)).shape == (region.height, region.width, 3)
    room = REACH * height / 2 - MULTIPLE_PX / 2
    assert region.x <= max(0.0, x - min(room, x)) and region.x + region.width >= min(canvas[0], x + room)
    assert region.y <= max(0.0, y - min(room, y)) and region.y + region.height >= min(canvas[1], y + room)


@pytest.mark.parametrize("height", [100.0, 240.0])
def test_a_face_that_fills_most_of_the_canvas_has_no_surroundings(height: float) -> None:
    assert surroundings(Box(100, 0, 100 + height, height), (320, 192)) is None


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(100, 60, 140, 100), True),
        (Box(68, 60, 108, 100), False),
        (Box(148, 60, 188, 100), False),
        (Box(100, 33, 140, 73), False),
        (Box(100, 120, 140, 160), False),
        (Box(60, 60, 100, 100), False),
    ],
)
def test_a_face_at_the_edge_of_a_region_may_go_on_beyond_it(box: Box, inside: bool) -> None:
    assert is_well_inside(box, Region(64, 32, 128, 128), (320, 192)) is inside


def test_the_edge_of_the_picture_is_none_beyond_which_a_face_goes_on() -> None:
    assert is_well_inside(Box(-5, -5, 35, 35), Region(0, 0, 128, 128), (320, 192))
    assert is_well_inside(Box(285, 157, 325, 197), Region(192, 64, 128, 128), (320, 192))


def on_frame(picture: Image, x: int, y: int, height: int) -> Image:
    """``picture``, made ``height`` px high, on a grey frame of 1280x720."""
    frame = np.full((720, 1280, 3), 128, np.uint8)
    width = round(picture.shape[1] * height / picture.shape[0])
    frame[y : y + height, x : x + width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return frame


def near_and_whole(detector: Detector, frame: Image) -> tuple[Face, Face]:
    """The same face by both looks."""
    (whole,) = detector.detect(frame)
    sighting = detector.detect_near(frame, whole)
    assert not sighting.whole
    return sighting.faces[0], whole


@pytest.mark.parametrize("family", ["centerface", "scrfd", "yunet"])
@pytest.mark.parametrize("place", [(400, 100), (37, 13), (813, 201)])
def test_a_look_at_the_surroundings_finds_what_the_whole_look_finds(
    models_dir: Path, picture: Picture, family: str, place: tuple[int, int]
) -> None:
    detector = open_detector(models_dir, family)
    near, whole = near_and_whole(detector, on_frame(picture("id_obama_1.jpg"), *place, 400))
    assert near.landmarks == pytest.approx(whole.landmarks, abs=0.03 * whole.inter_eye_px)
    assert near.box.centre == pytest.approx(whole.box.centre, abs=0.03 * whole.box.height)
    assert near.box.height == pytest.approx(whole.box.height, rel=0.04)
    assert near.score == pytest.approx(whole.score, abs=0.05)


@pytest.mark.parametrize("family", ["centerface", "scrfd", "yunet"])
def test_a_face_that_left_its_surroundings_is_found_in_the_whole_frame(
    models_dir: Path, picture: Picture, family: str
) -> None:
    detector = open_detector(models_dir, family)
    (before,) = detector.detect(on_frame(picture("id_obama_1.jpg"), 50, 20, 360))
    after = detector.detect_near(on_frame(picture("id_obama_1.jpg"), 850, 300, 360), before)
    assert after.whole
    assert len(after.faces) == 1 and after.faces[0].box.x1 > 850
    assert detector.detect_near(np.full((720, 1280, 3), 128, np.uint8), before).faces == ()


def test_a_second_face_in_the_surroundings_makes_the_look_a_whole_one(models_dir: Path, picture: Picture) -> None:
    detector = open_detector(models_dir, "centerface")
    frame = on_frame(picture("id_obama_1.jpg"), 300, 200, 300)
    (before,) = detector.detect(frame)
    frame[200:500, 480:780] = on_frame(picture("id_damon_1.jpg"), 480, 200, 300)[200:500, 480:780]
    after = detector.detect_near(frame, before)
    assert after.whole and len(after.faces) == 2


def test_a_model_of_fixed_size_always_looks_at_the_whole(assets: Path, picture: Picture) -> None:
    model = (assets / "models/insightface_static/scrfd_500m_bnkps.onnx").read_bytes()
    detector = Detector(load_pack("scrfd-minifas").detector, load_session(model, name="static"))
    frame = on_frame(picture("id_obama_1.jpg"), 400, 100, 400)
    (face,) = detector.detect(frame)
    assert detector.detect_near(frame, face).whole


def test_an_accelerator_is_never_asked_for_another_shape(
    models_dir: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would tune itself for each of them, for seconds."""
    monkeypatch.setattr("edge_agent.vision.detect.on_cpu", lambda _: False)
    detector = open_detector(models_dir, "scrfd")
    frame = on_frame(picture("id_obama_1.jpg"), 400, 100, 400)
    (face,) = detector.detect(frame)
    assert detector.detect_near(frame, face).whole
