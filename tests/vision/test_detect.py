"""Detection: geometry of the letterbox, overlaps, and three families on real pictures of every size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import Detector as DetectorManifest
from edge_agent.packs.manifest import load_pack
from edge_agent.packs.verify import require_model
from edge_agent.types import Image
from edge_agent.vision.canvas import Canvas, fit
from edge_agent.vision.detect import Detector, suppress_overlaps
from edge_agent.vision.families import FAMILIES
from edge_agent.vision.region import Region
from edge_agent.vision.runtime import load_session
from tests.vision import networks
from tests.vision.conftest import Picture

PACK_OF = {"centerface": "open", "yunet": "open-lite", "scrfd": "scrfd-minifas"}


def open_detector(models_dir: Path, family: str, **changes: object) -> Detector:
    pack = load_pack(PACK_OF[family])
    manifest = replace(pack.detector, **changes)  # type: ignore[arg-type]
    model = require_model(models_dir, manifest.file, pack.files[manifest.file])
    return Detector(manifest, load_session(model, name=manifest.file))


@pytest.fixture(scope="module", params=sorted(PACK_OF))
def detector(request: pytest.FixtureRequest, models_dir: Path) -> Detector:
    return open_detector(models_dir, request.param)


sides = st.integers(1, 300)


@given(sides, sides, st.sampled_from([(320, 320), (320, 192), (64, 160)]), st.booleans())
def test_the_whole_frame_is_on_the_canvas_and_as_large_as_it_fits(
    width: int, height: int, size: tuple[int, int], trim: bool
):
    place = fit((width, height), size, trim=trim)
    canvas = Canvas(place, FAMILIES["yunet"].levels)
    canvas.draw(np.full((height, width, 3), 255, np.uint8))
    canvas_height, canvas_width = canvas.pixels.shape[:2]
    assert (canvas_width, canvas_height) == place.canvas
    rows, columns = (int(np.flatnonzero(canvas.pixels.any(axis=axis)).max()) + 1 for axis in ((1, 2), (0, 2)))
    assert (canvas_width % 32, canvas_height % 32) == (0, 0)
    assert (columns in {size[0], size[0] - 1}) or (rows in {size[1], size[1] - 1})
    assert place.scale == rows / height
    if trim:
        assert canvas_width - columns < 32 and canvas_height - rows < 32
    else:
        assert (canvas_width, canvas_height) == size


@pytest.mark.parametrize(
    ("frame", "canvas"),
    [((1280, 720), (320, 192)), ((640, 480), (320, 256)), ((480, 640), (256, 320)), ((500, 500), (320, 320))],
)
def test_trimming_saves_the_black_rest(frame: tuple[int, int], canvas: tuple[int, int]):
    assert fit(frame, (320, 320), trim=True).canvas == canvas


@pytest.mark.parametrize("family", sorted(PACK_OF))
def test_the_network_is_given_the_same_numbers_however_often_its_memory_was_used(family: str):
    """As OpenCV makes a blob of a canvas that is drawn anew, in the whole and in parts of it."""
    mean, scale, rgb = {"scrfd": (127.5, 1 / 128, True), "centerface": (0, 1, True), "yunet": (0, 1, False)}[family]
    canvas = Canvas(fit((400, 225), (320, 320), trim=False), FAMILIES[family].levels)
    for seed, region in enumerate([None, Region(0, 0, 128, 128), None, Region(64, 160, 128, 128), None]):
        image = np.random.default_rng(seed).integers(0, 256, (225, 400, 3), np.uint8)
        canvas.draw(image)
        fresh = np.zeros((320, 320, 3), np.uint8)
        fresh[:180] = cv2.resize(image, (320, 180))
        part = fresh if region is None else np.ascontiguousarray(region.of(fresh))
        blob = cv2.dnn.blobFromImage(part, scale, mean=(mean, mean, mean), swapRB=rgb)
        assert np.array_equal(canvas.tensor(region), blob)


boxes = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 50), st.floats(1, 50)), min_size=1, max_size=12
)


@given(boxes, st.floats(0.1, 0.9))
def test_kept_boxes_overlap_little_and_dropped_ones_much(found: list[tuple[float, ...]], threshold: float):
    array = np.array([(x, y, x + w, y + h) for x, y, w, h in found], np.float32)
    keep = suppress_overlaps(array, threshold)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        sides = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1)
        areas = [np.prod(box[2:] - box[:2] + 1) for box in (a, b)]
        return float(np.prod(sides) / (sum(areas) - np.prod(sides)))

    assert keep[0] == 0
    for index, box in enumerate(array):
        better = [overlap(array[k], box) for k in keep if k < index]
        assert (index in keep) == all(value <= threshold + 1e-5 for value in better) or any(
            abs(value - threshold) < 1e-4 for value in better
        )


def test_one_face_is_found_with_its_landmarks_in_order(detector: Detector, picture: Picture):
    (face,) = detector.detect(picture("id_obama_1.jpg"))
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    assert face.box.x1 < right_eye[0] < left_eye[0] < face.box.x2
    assert 100 < face.inter_eye_px < 130
    assert 0.6 < face.score <= 1.0


def test_the_largest_face_comes_first(detector: Detector, picture: Picture):
    faces = detector.detect(picture("multi_dlib_1.jpg"))
    areas = [face.box.area for face in faces]
    assert len(faces) == 6
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("name", ["noface_grass.jpg", "q_far_obama.jpg"])
def test_no_face_is_an_empty_answer(detector: Detector, picture: Picture, name: str):
    assert detector.detect(picture(name)) == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2), (17, 31), (719, 1277)])
def test_any_frame_size_is_safe(detector: Detector, shape: tuple[int, int]):
    noise = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    assert len(detector.detect(noise)) < 5


def test_a_grey_picture_is_as_good(detector: Detector, picture: Picture):
    grey = cv2.cvtColor(cv2.cvtColor(picture("id_obama_1.jpg"), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert len(detector.detect(grey)) == 1


def scaled(image: Image, factor: float) -> Image:
    smaller: Image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return smaller


@pytest.mark.parametrize("factor", [0.5, 0.8, 2.0])
def test_coordinates_follow_the_frame(detector: Detector, picture: Picture, factor: float):
    image = picture("frame_1280x720_obama.jpg")
    (face,), (other,) = detector.detect(image), detector.detect(scaled(image, factor))
    assert other.landmarks / factor == pytest.approx(face.landmarks, abs=0.05 * face.inter_eye_px)


@pytest.mark.parametrize("family", sorted(PACK_OF))
@pytest.mark.parametrize("size", [(320, 192), (640, 640), (256, 256)])
def test_the_input_size_is_a_setting(models_dir: Path, picture: Picture, family: str, size: tuple[int, int]):
    (face,) = open_detector(models_dir, family, input_px=size).detect(picture("frame_1280x720_obama.jpg"))
    assert 65 < face.inter_eye_px < 90


def test_a_model_of_fixed_size_keeps_its_size(assets: Path, picture: Picture):
    manifest = load_pack("scrfd-minifas").detector
    model = (assets / "models/insightface_static/scrfd_500m_bnkps.onnx").read_bytes()
    detector = Detector(manifest, load_session(model, name="static"))
    assert detector.input_px == (640, 640)
    assert len(detector.detect(picture("id_obama_1.jpg"))) == 1


@pytest.mark.parametrize("family", sorted(PACK_OF))
def test_a_network_of_another_kind_is_an_error(family: Literal["centerface", "scrfd", "yunet"]):
    manifest = DetectorManifest(family=family, file="x.onnx", input_px=(96, 96), score_threshold=0.5, nms_threshold=0.4)
    session = load_session(networks.constant([0.5], [1, 1], side_px=96), name="x.onnx")
    with pytest.raises(ModelError, match=r"cannot run the model x\.onnx"):
        Detector(manifest, session).detect(np.zeros((50, 50, 3), np.uint8))


def test_a_size_off_the_grid_is_refused():
    manifest = DetectorManifest(
        family="yunet", file="x.onnx", input_px=(96, 96), score_threshold=0.5, nms_threshold=0.4
    )
    with pytest.raises(ModelError, match="multiples of 32"):
        Detector(manifest, load_session(networks.constant([0.5], side_px=80), name="x.onnx"))
