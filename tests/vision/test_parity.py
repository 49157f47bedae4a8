"""The same numbers as InsightFace's own classes, on the shared pictures.

InsightFace is the oracle, not a dependency: without the extra these tests are skipped.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.packs.manifest import load_pack
from edge_agent.types import Box, Face
from edge_agent.vision.align import align_arcface
from edge_agent.vision.detect import Detector
from edge_agent.vision.embed import Embedder
from edge_agent.vision.liveness import open_liveness
from edge_agent.vision.runtime import load_session
from tests.vision import networks
from tests.vision.conftest import Picture

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports use what skimage and onnx deprecate
    pytest.importorskip("insightface", reason="the insightface extra is not installed")
    from insightface.addons.liveness import Liveness
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    from insightface.model_zoo.scrfd import SCRFD
    from insightface.utils.face_align import norm_crop

BOX = Box(0, 0, 10, 10)
CROWDS = ["multi_obama_biden_1.jpg", "multi_3_outdoor.jpg", "multi_dlib_1.jpg", "multi_t1_insightface.jpg"]
ODD = ["pose_left.jpeg", "pose_roll_left.png", "mask_1.png", "rot_90.jpg", "q_darknoise_obama.jpg", "noface_dogs.jpg"]


@pytest.fixture(scope="module")
def names(portraits: list[str]) -> list[str]:
    chosen = [*portraits[::2], *CROWDS, *ODD]
    assert len(chosen) >= 20
    return chosen


@pytest.mark.parametrize("size", [(320, 320), (640, 640), (320, 192)])
def test_boxes_landmarks_and_scores(assets: Path, picture: Picture, names: list[str], size: tuple[int, int]):
    path = assets / "models/insightface/det_500m.onnx"
    oracle = SCRFD(str(path))
    oracle.prepare(-1, det_thresh=0.5, nms_thresh=0.4)
    manifest = replace(load_pack("scrfd-minifas").detector, input_px=size)
    ours = Detector(manifest, load_session(path.read_bytes(), name="det_500m"))
    for name in names:
        expected, points = oracle.detect(picture(name), input_size=size)
        faces = sorted(ours.detect(picture(name)), key=lambda face: -face.score)
        assert len(faces) == len(expected), name
        for face, row, landmarks in zip(faces, expected, points, strict=True):
            box = (face.box.x1, face.box.y1, face.box.x2, face.box.y2)
            assert box == pytest.approx(row[:4], abs=1), name
            assert face.score == pytest.approx(row[4], abs=1e-3), name
            assert face.landmarks == pytest.approx(landmarks, abs=1), name


@pytest.fixture(scope="module")
def faces(assets: Path, picture: Picture, names: list[str]) -> dict[str, Face]:
    """The largest face of every picture that has one."""
    model = (assets / "models/insightface/det_500m.onnx").read_bytes()
    detector = Detector(load_pack("scrfd-minifas").detector, load_session(model, name="det_500m"))
    found = {name: detector.detect(picture(name)) for name in names}
    largest = {name: several[0] for name, several in found.items() if several}
    assert len(largest) >= 20
    return largest


def test_the_aligned_face(picture: Picture, faces: dict[str, Face]):
    for name, face in faces.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it calls a deprecated method of skimage
            expected = norm_crop(picture(name), face.landmarks)
        difference = np.abs(align_arcface(picture(name), face.landmarks).astype(int) - expected)
        assert difference.mean() < 1, name


def test_the_liveness_add_on(tmp_path: Path, picture: Picture, faces: dict[str, Face]):
    """A stand-in network whose answer depends on every pixel: equal answers mean equal inputs."""
    path = tmp_path / "liveness.onnx"
    path.write_bytes(networks.weighted_mean())
    oracle = Liveness(path)
    (manifest,) = load_pack("insightface").liveness
    ours = open_liveness(manifest, [load_session(path.read_bytes(), name="liveness")])
    for name, face in faces.items():
        expected = oracle.predict(picture(name), face.landmarks)
        assert ours.score(picture(name), face).score == pytest.approx(expected["live_score"], abs=1e-5), name


@pytest.mark.parametrize("shift", [-0.9, -0.6, -0.5, -0.3, 0.0, 0.3, 0.5, 0.6, 0.9])
def test_the_liveness_add_on_refuses_the_same_crops(tmp_path: Path, picture: Picture, shift: float):
    path = tmp_path / "liveness.onnx"
    path.write_bytes(networks.weighted_mean())
    image = picture("single_astronaut.png")
    points = np.array([[230, 130], [271, 130], [250, 153], [234, 175], [268, 175]], np.float32)
    points += np.float32(shift * 300)
    expected = Liveness(path).predict(image, points)
    (manifest,) = load_pack("insightface").liveness
    ours = open_liveness(manifest, [load_session(path.read_bytes(), name="liveness")])
    score = ours.score(image, Face(BOX, points, 0.9))
    assert (score.score is None) == (expected["status"] == "input_rejected") == (score.out_of_bounds > 0.30)


def test_the_embedder(tmp_path: Path, picture: Picture, faces: dict[str, Face]):
    path = tmp_path / "w600k_mbf.onnx"
    path.write_bytes(networks.projector())
    oracle = ArcFaceONNX(str(path))
    manifest = load_pack("insightface").embedder
    assert manifest is not None
    ours = Embedder(manifest, load_session(path.read_bytes(), name="w600k_mbf"))
    for name, face in faces.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            expected = oracle.get(picture(name), _Fields(kps=face.landmarks))
        embedding = ours.embed(picture(name), face.landmarks)
        assert embedding @ (expected / np.linalg.norm(expected)) > 0.999, name


class _Fields(SimpleNamespace):
    """InsightFace's faces are dictionaries with attributes."""

    def __setitem__(self, key: str, value: object) -> None:
        setattr(self, key, value)
