"""The whole pipeline: golden numbers of the default pack, attacks and portraits of the shared set, faults."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edge_agent.config import ModelsSection
from edge_agent.errors import ModelError
from edge_agent.packs.manifest import load_pack
from edge_agent.types import Frame, Image
from edge_agent.vision.opening import open_ahead, open_pipeline
from edge_agent.vision.pipeline import Pipeline, picture_digest
from edge_agent.vision.runtime import Session, load_session
from tests.vision import networks
from tests.vision.conftest import Picture

GOLDEN_LANDMARKS = [[206.1, 102.0], [246.9, 105.2], [224.4, 124.1], [206.5, 142.2], [241.0, 144.8]]
GOLDEN_BOX = (184.4, 62.5, 268.7, 174.7)


def astronaut() -> Image:
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def frame(image: Image) -> Frame:
    return Frame(image, 0.0, 0)


@pytest.mark.arm
@pytest.mark.packs
def test_the_golden_face(open_pack: Pipeline):
    """The default pack on scikit-image's astronaut; tolerances leave room for another CPU's arithmetic."""
    measurement = open_pack.measure(frame(astronaut()))
    (face,), quality = measurement.faces, measurement.quality
    assert quality is not None and quality.pose is not None
    assert (measurement.frame_width, measurement.frame_height) == (512, 512)
    assert (face.box.x1, face.box.y1, face.box.x2, face.box.y2) == pytest.approx(GOLDEN_BOX, abs=1.5)
    assert face.landmarks == pytest.approx(np.array(GOLDEN_LANDMARKS), abs=1.5)
    assert face.score == pytest.approx(0.91, abs=0.02)
    assert quality.inter_eye_px == pytest.approx(41.1, abs=1)
    assert (quality.pose.yaw_deg, quality.pose.pitch_deg, quality.pose.roll_deg) == pytest.approx((-1, 7, -4), abs=3)
    assert quality.sharpness == pytest.approx(0.93, abs=0.1)
    assert quality.luminance == pytest.approx(0.71, abs=0.03)
    assert (quality.eyes_visible, quality.mouth_visible) == (None, None)
    (score,) = open_pack.liveness(frame(astronaut()), face)
    assert score.model == "fr_liveness" and score.passed and score.score == pytest.approx(0.96, abs=0.03)


@pytest.mark.arm
@pytest.mark.packs
def test_the_golden_face_is_the_same_person_when_scaled_and_mirrored(open_pack: Pipeline):
    embeddings = []
    for image in (astronaut(), cv2.resize(astronaut(), None, fx=1.7, fy=1.7), cv2.flip(astronaut(), 1)):
        face = open_pack.measure(frame(image)).face
        assert face is not None
        embeddings.append(open_pack.embed(frame(image), face))
    assert all(e.shape == (512,) and np.linalg.norm(e) == pytest.approx(1, abs=1e-4) for e in embeddings)
    assert embeddings[0] @ embeddings[1] > 0.9 and embeddings[0] @ embeddings[2] > 0.8


@pytest.mark.packs
def test_no_pixel_of_a_frame_is_kept_once_it_is_told_to_forget(open_pack: Pipeline):
    before = open_pack.measure(frame(astronaut()))
    canvas = open_pack._detector._canvas
    assert canvas is not None and canvas.pixels.any()
    kept = weakref.ref(canvas.pixels)
    del canvas
    open_pack.forget()
    gc.collect()
    assert kept() is None
    assert open_pack.measure(frame(astronaut())).faces[0].box == before.faces[0].box


def test_an_empty_frame_is_measured_as_empty(open_pack: Pipeline):
    measurement = open_pack.measure(frame(np.zeros((480, 640, 3), np.uint8)))
    assert (measurement.faces, measurement.quality, measurement.face) == ((), None, None)


@pytest.mark.parametrize("pack", ["open", "open-lite", "scrfd-minifas"])
def test_people_are_told_apart(models_dir: Path, picture: Picture, pack: str):
    pipeline = open_pipeline(load_pack(pack), models_dir, with_embedder=True)
    names = ["id_obama_1.jpg", "id_obama_3.jpg", "id_damon_1.jpg", "id_damon_3.jpg"]
    vectors = []
    for name in names:
        face = pipeline.measure(frame(picture(name))).face
        assert face is not None
        vectors.append(pipeline.embed(frame(picture(name)), face))
    same = [vectors[0] @ vectors[1], vectors[2] @ vectors[3]]
    other = [vectors[i] @ vectors[j] for i in (0, 1) for j in (2, 3)]
    assert min(same) > 0.5 > 0.4 > max(other)


SCREENS_AND_PRINTS = [
    "attack_print_minivision_F1.jpg",
    "attack_tablet_minivision_F2.jpg",
    "attack_monitor_miniai.jpg",
    "attack_monitor_inspireface.jpg",
    "attack_kby_3.jpg",
]


@pytest.mark.parametrize("pack", ["open", "open-lite", "scrfd-minifas"])
def test_screens_and_prints_are_refused_and_most_portraits_are_not(
    models_dir: Path, picture: Picture, portraits: list[str], pack: str
):
    pipeline = open_pipeline(load_pack(pack), models_dir)

    def live(name: str) -> bool:
        face = pipeline.measure(frame(picture(name))).face
        return face is not None and all(score.passed for score in pipeline.liveness(frame(picture(name)), face))

    assert not any(live(name) for name in SCREENS_AND_PRINTS)
    assert np.mean([live(name) for name in portraits]) > 0.85


def test_every_model_of_the_pack_gives_its_opinion(models_dir: Path, picture: Picture):
    pipeline = open_pipeline(load_pack("open-lite"), models_dir)
    face = pipeline.measure(frame(picture("id_obama_1.jpg"))).face
    assert face is not None
    scores = pipeline.liveness(frame(picture("id_obama_1.jpg")), face)
    assert [score.model for score in scores] == ["minifasnet", "fr_liveness"]


def test_the_embedder_is_loaded_when_it_is_first_used(models_dir: Path):
    loaded: list[str] = []
    pack = load_pack("open")

    def load(name: str) -> Session:
        loaded.append(name)
        path = next(models_dir.glob(f"{Path(name).stem}-*"))
        return load_session(path.read_bytes(), name=name)

    pipeline = Pipeline(pack, load)
    assert loaded == ["centerface.onnx", "fr_liveness.onnx"]
    pipeline.warm_up()
    pipeline.warm_up()
    assert loaded == ["centerface.onnx", "fr_liveness.onnx", "fr_feature.onnx"]


def test_models_that_are_opened_ahead_are_the_first_result_and_later_ones_are_opened_anew(models_dir: Path):
    models = ModelsSection(pack="open", dir=models_dir)
    factory = open_ahead(models)
    first, second = factory(models), factory(models)
    assert first is not second and first.pack == second.pack == load_pack("open")


def test_an_error_of_opening_ahead_reaches_whoever_asks_and_the_next_try_sees_the_models_that_came(
    models_dir: Path, tmp_path: Path
):
    folder = tmp_path / "models"
    models = ModelsSection(pack="open", dir=folder)
    factory = open_ahead(models)
    for thread in threading.enumerate():
        if thread.name == "open models":
            thread.join()
    folder.symlink_to(models_dir)
    with pytest.raises(ModelError, match="does not exist"):
        factory(models)
    assert factory(models).pack.name == "open"


@pytest.mark.packs
def test_the_heap_is_made_small_after_the_first_run_of_each_step_and_not_again(
    open_pack_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    pipeline = open_pipeline(load_pack("open"), open_pack_dir)
    told: list[str] = []
    monkeypatch.setattr("edge_agent.vision.pipeline.keep_heap_small", lambda: told.append("small"))
    for _ in range(2):
        face = pipeline.measure(frame(astronaut())).face
        assert face is not None
        pipeline.liveness(frame(astronaut()), face)
    assert told == ["small", "small"]


def test_a_session_lets_go_of_the_model_file(models_dir: Path):
    data = next(models_dir.glob("yunet*")).read_bytes()
    session = load_session(data, name="yunet")
    assert getattr(session._native, "_model_bytes", None) is None
    assert session.run(np.zeros((1, 3, 64, 64), np.float32))


def test_a_pack_without_an_embedder_says_so(models_dir: Path):
    pack = load_pack("open")
    without = {name: file for name, file in pack.files.items() if name != "fr_feature.onnx"}
    pack = replace(pack, embedder=None, files=without)
    with pytest.raises(ModelError, match="has no embedder") as caught:
        open_pipeline(pack, models_dir, with_embedder=True)
    assert caught.value.code == "no_embedder"


def test_missing_models_are_an_error_with_the_command_that_mends_it(tmp_path: Path):
    with pytest.raises(ModelError) as caught:
        open_pipeline(load_pack("open"), tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("models_missing", 3)
    assert caught.value.hint == "edge-agent models fetch open"


@pytest.mark.packs
def test_a_failing_liveness_model_raises(open_pack: Pipeline, open_pack_dir: Path):
    pack = load_pack("open")
    broken = networks.constant([0.1, float("nan"), 0.3], [1, 3], side_px=128)

    def load(name: str) -> Session:
        path = next(open_pack_dir.glob(f"{Path(name).stem}-*"))
        return load_session(broken if name == "fr_liveness.onnx" else path.read_bytes(), name=name)

    pipeline = Pipeline(pack, load)
    face = pipeline.measure(frame(astronaut())).face
    assert face is not None
    with pytest.raises(ModelError, match="NaN"):
        pipeline.liveness(frame(astronaut()), face)


def test_an_embedding_of_another_size_is_an_error(models_dir: Path):
    pack = load_pack("open")

    def load(name: str) -> Session:
        path = next(models_dir.glob(f"{Path(name).stem}-*"))
        small = networks.projector(dimensions=128)
        return load_session(small if name == "fr_feature.onnx" else path.read_bytes(), name=name)

    pipeline = Pipeline(pack, load)
    face = pipeline.measure(frame(astronaut())).face
    assert face is not None
    with pytest.raises(ModelError, match="512 numbers"):
        pipeline.embed(frame(astronaut()), face)
    with pytest.raises(ModelError, match="cannot align"):
        pipeline.embed(frame(astronaut()), replace(face, landmarks=np.zeros((5, 2), np.float32)))


def test_a_digest_is_equal_for_equal_pictures_only():
    image = astronaut()
    noisy = cv2.add(image, np.random.default_rng(2).integers(0, 2, image.shape, np.uint8))
    assert picture_digest(image) == picture_digest(image.copy())
    assert len({picture_digest(other) for other in (image, noisy, image[:, ::-1], image[:-1])}) == 4


def test_vision_imports_nothing_heavy():
    """A terminal starts vision without scipy, scikit-image, onnx, insightface or pydantic."""
    code = (
        "import sys, edge_agent.vision.opening, edge_agent.vision.pipeline, edge_agent.picture, edge_agent.packs.verify\n"
        "from edge_agent.packs.manifest import load_pack; load_pack('open')\n"
        "print(sorted({'scipy', 'skimage', 'onnx', 'insightface', 'matplotlib', 'pydantic', 'edge_agent.config'} & set(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "[]\n"
