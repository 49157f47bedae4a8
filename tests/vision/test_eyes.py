"""Where the eyes are cut out, and what the eye model says of open and closed ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import Eyes, load_pack
from edge_agent.types import Frame, Image
from edge_agent.vision.eyes import EYE_WIDTH, EyeModel, eye_patch
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline
from edge_agent.vision.runtime import load_session
from tests.vision.networks import constant


@pytest.mark.parametrize("tilt_deg", [0.0, 14.0, -30.0])
@pytest.mark.parametrize("inter_eye_px", [60.0, 300.0])
@pytest.mark.parametrize("which", [0, 1])
def test_a_patch_is_an_eye_upright_and_in_the_middle(tilt_deg: float, inter_eye_px: float, which: int) -> None:
    """Each eye is drawn as a bright bar along the line of the eyes, 1 eye width long: 1 / 1.6 of the patch."""
    along = np.array([np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))])
    eyes = np.array([[300.0, 300.0], [300.0, 300.0] + along * inter_eye_px])
    image = np.zeros((700, 700, 3), np.uint8)
    half = along * EYE_WIDTH * inter_eye_px / 2
    for eye in eyes:
        ends = [tuple(int(v) for v in np.round(eye + side * half)) for side in (-1, 1)]
        cv2.line(image, ends[0], ends[1], (255, 255, 255), max(1, round(inter_eye_px / 20)))
    landmarks = np.concatenate([eyes, np.zeros((3, 2))]).astype(np.float32)
    patch = eye_patch(image, landmarks, which, size_px=24, scale=1.6)
    rows, columns = np.nonzero(patch > 64)
    assert patch.shape == (24, 24)
    assert abs(rows.mean() - 11.5) < 1.5
    assert abs(columns.mean() - 11.5) < 1.5
    assert (columns.max() - columns.min() + 1) / 24 == pytest.approx(1 / 1.6, abs=0.15)
    assert rows.max() - rows.min() <= 5


def test_an_eye_beyond_the_edge_of_the_picture_gives_a_patch_all_the_same() -> None:
    landmarks = np.array([[-80.0, 5.0], [20.0, 5.0], [0, 0], [0, 0], [0, 0]], np.float32)
    assert eye_patch(np.full((40, 40, 3), 9, np.uint8), landmarks, 0, size_px=24, scale=1.6).shape == (24, 24)


def astronaut() -> Image:
    image = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    return np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)


def open_eyes(pipeline: Pipeline, image: Image) -> tuple[float, float]:
    frame = Frame(image, 0.0, 0)
    face = pipeline.measure(frame).face
    assert face is not None
    return pipeline.eyes_open(frame, face)


@pytest.mark.packs
def test_open_eyes_read_as_open(open_pack_dir: Path) -> None:
    pipeline = open_pipeline(load_pack("open"), open_pack_dir)
    assert pipeline.sees_eyes
    assert min(open_eyes(pipeline, astronaut())) > 0.85


@pytest.mark.packs
def test_closed_eyes_read_as_closed(open_pack_dir: Path, assets: Path) -> None:
    image = cv2.imread(str(assets / "images/eyes_closed.jpeg"))
    assert image is not None
    assert max(open_eyes(open_pipeline(load_pack("open"), open_pack_dir), np.asarray(image, np.uint8))) < 0.05


def test_a_pack_without_eyes_says_so_and_a_strange_network_is_refused() -> None:
    assert load_pack("insightface").eyes is None
    strange = constant([0.1, 0.9], [1, 2], side_px=24)
    manifest = Eyes(file="strange.onnx", input_px=24, patch_scale=1.6, open_class=1)
    with pytest.raises(ModelError, match="its input is"):
        EyeModel(manifest, load_session(strange, name="strange.onnx", providers="cpu"))
