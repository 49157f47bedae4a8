"""What is measured of a face: known pictures, known changes to them, and the default limits of the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from edge_agent.config import GateSection
from edge_agent.packs.manifest import load_pack
from edge_agent.types import Box, Face, FaceQuality, Frame, Image
from edge_agent.vision import quality
from edge_agent.vision.align import ARCFACE_TEMPLATE
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline
from edge_agent.vision.quality import entropy_bits, face_mask, light_uniformity, measure_face
from edge_agent.vision.sharpness import scene_sharpness
from tests.vision.conftest import Picture

LIMITS = GateSection()
FACE = Face(Box(100, 60, 300, 320), (ARCFACE_TEMPLATE * 2 + (88, 60)).astype(np.float32), 0.9)

patches = arrays(np.uint8, (64, 64))


@pytest.fixture(scope="module", params=["open", "open-lite", "scrfd-minifas"])
def pipeline(request: pytest.FixtureRequest, models_dir: Path) -> Pipeline:
    return open_pipeline(load_pack(request.param), models_dir)


def measured(pipeline: Pipeline, image: Image) -> FaceQuality:
    result = pipeline.measure(Frame(image, 0.0, 0)).quality
    assert result is not None
    return result


def plain(luma: int = 128) -> Image:
    return np.full((400, 400, 3), luma, np.uint8)


def test_size_and_margins_are_counted_in_frame_pixels_and_inter_eye_distances():
    result = measure_face(plain(), FACE)
    unit = result.inter_eye_px
    assert unit == pytest.approx(70.5, abs=0.1)
    assert result.face_height_ratio == pytest.approx(260 / 400)
    margins = (result.margin_left_ied, result.margin_top_ied, result.margin_right_ied, result.margin_bottom_ied)
    assert margins == pytest.approx((100 / unit, 60 / unit, 100 / unit, 80 / unit))


def test_a_face_that_reaches_outside_has_negative_margins():
    result = measure_face(plain(), replace(FACE, box=Box(-50, -10, 410, 420)))
    margins = (result.margin_left_ied, result.margin_top_ied, result.margin_right_ied, result.margin_bottom_ied)
    assert all(margin < 0 for margin in margins)


@pytest.mark.parametrize(
    ("luma", "luminance", "dark", "bright"),
    [(0, 0, 1, 0), (25, 0.098, 1, 0), (26, 0.102, 0, 0), (128, 0.5, 0, 0), (246, 0.965, 0, 0), (247, 0.97, 0, 1)],
)
def test_light_of_a_flat_picture(luma: int, luminance: float, dark: float, bright: float):
    result = measure_face(plain(luma), FACE)
    assert (result.luminance, result.dark_share, result.bright_share) == pytest.approx(
        (luminance, dark, bright), abs=3e-3
    )
    assert (result.dynamic_range_bits, result.light_uniformity, result.sharpness) == (0, 1, None)


def test_hair_and_background_do_not_count_as_dark():
    image = plain(0)
    cv2.ellipse(image, (200, 200), (60, 82), 0, 0, 360, (150, 150, 150), -1)
    result = measure_face(image, FACE)
    assert result.dark_share == 0
    assert result.luminance == pytest.approx(150 / 255, abs=0.01)


@given(patches)
def test_ranges(patch: np.ndarray):
    assert 0 <= light_uniformity(patch) <= 1 + 1e-9
    assert 0 <= entropy_bits(patch.ravel()) <= 8
    vector = quality.appearance(patch)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3) or not vector.any()


@given(patches)
def test_mirroring_changes_no_light(patch: np.ndarray):
    """The mask's middle is half a pixel off the patch's, so a few pixels change sides."""
    symmetric = np.maximum(patch, patch[:, ::-1])
    assert light_uniformity(symmetric) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(("values", "bits"), [([5] * 64, 0), ([0, 255] * 32, 1), (list(range(256)), 8)])
def test_entropy(values: list[int], bits: float):
    assert entropy_bits(np.array(values, np.uint8)) == pytest.approx(bits)


def test_light_from_one_side_is_uneven():
    patch = np.full((112, 112), 60, np.uint8)
    patch[:, 56:] = 200
    assert light_uniformity(patch) < 0.05


def test_the_mask_is_the_inner_face_without_the_mouth():
    mask = face_mask(112)
    right_eye, left_eye, nose, *mouth = ARCFACE_TEMPLATE.round().astype(int)
    assert all(mask[y, x] for x, y in (right_eye, left_eye, nose))
    assert not any(mask[y, x] for x, y in mouth)
    assert not mask[:33].any() and not mask[107:].any() and not mask[:, :29].any() and not mask[:, 83:].any()


BLURRED = ["q_defocus_obama.jpg", "q_defocus_liveT1.jpg", "q_motionblur_obama.jpg", "q_motionblur_liveT1.jpg"]


@pytest.mark.parametrize("name", [*BLURRED, "blur_motion_dark.jpg", "q_darknoise_obama.jpg", "q_darknoise_liveT1.jpg"])
def test_blur_and_drowning_noise_are_below_the_limit(pipeline: Pipeline, picture: Picture, name: str):
    sharpness = measured(pipeline, picture(name)).sharpness
    assert sharpness is not None and sharpness < LIMITS.min_sharpness


def test_portraits_are_above_the_limit_whatever_their_size(pipeline: Pipeline, picture: Picture, portraits: list[str]):
    """250 x 250 px, 2500 px, JPEG at quality 8: all sharp."""
    for name in [*portraits, "q_jpeg8_obama.jpg", "q_dark_obama.jpg", "frame_1280x720_obama.jpg"]:
        result = measured(pipeline, picture(name))
        assert result.sharpness is not None and result.sharpness >= LIMITS.min_sharpness, name


@pytest.mark.parametrize("name", ["id_obama_1.jpg", "id_damon_1.jpg", "single_woman_stock.jpg", "id_pichai_2.jpg"])
@pytest.mark.parametrize("noise", [0, 10])
def test_sharpness_falls_with_blur_and_ignores_a_cameras_noise(
    open_pack: Pipeline, picture: Picture, name: str, noise: int
):
    image = picture(name)
    (face, *_) = open_pack.measure(Frame(image, 0.0, 0)).faces
    rng = np.random.default_rng(11)
    values = []
    for blur_ied in (0.0, 0.03, 0.05, 0.08):
        blurred = cv2.GaussianBlur(image, (0, 0), blur_ied * face.inter_eye_px) if blur_ied else image
        noisy = np.clip(blurred + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
        values.append(measure_face(noisy, face).sharpness or 0.0)
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.6 and values[1] == pytest.approx(0.5, abs=0.1) and values[3] < 0.3


@pytest.mark.parametrize("factor", [0.35, 0.6])
def test_sharpness_does_not_depend_on_exposure(open_pack: Pipeline, picture: Picture, factor: float):
    image = picture("id_damon_1.jpg")
    (face, *_) = open_pack.measure(Frame(image, 0.0, 0)).faces
    darker = (image * factor).astype(np.uint8)
    expected = measure_face(image, face).sharpness
    assert measure_face(darker, face).sharpness == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("q_dark_obama.jpg", lambda q: q.luminance < LIMITS.min_luminance and q.dark_share > LIMITS.max_dark_share),
        ("q_dark_liveT1.jpg", lambda q: q.luminance < LIMITS.min_luminance and q.dark_share > LIMITS.max_dark_share),
        ("q_overexposed_obama.jpg", lambda q: q.luminance > LIMITS.max_luminance),
        ("q_overexposed_liveT1.jpg", lambda q: q.bright_share > LIMITS.max_bright_share),
        ("single_man_stock_1.jpg", lambda q: q.light_uniformity < LIMITS.min_light_uniformity),
        ("frame_640x480_small_obama.jpg", lambda q: q.inter_eye_px < LIMITS.min_inter_eye_px),
        ("partial_obama_half_face.jpg", lambda q: q.margin_left_ied < LIMITS.min_margin_ied),
    ],
)
def test_defects_show_in_their_own_quantity(pipeline: Pipeline, picture: Picture, name: str, fails):
    assert fails(measured(pipeline, picture(name)))


def test_portraits_are_well_lit(pipeline: Pipeline, picture: Picture, portraits: list[str]):
    """Beards, glasses, headscarves and every skin colour of the set; the stock portrait lit from one side is not."""
    for name in set(portraits) - {"single_man_stock_1.jpg"}:
        result = measured(pipeline, picture(name))
        assert LIMITS.min_luminance <= result.luminance <= LIMITS.max_luminance, name
        assert result.dark_share <= 0.055, name
        assert result.bright_share <= LIMITS.max_bright_share, name
        assert result.light_uniformity >= LIMITS.min_light_uniformity, name
        assert result.dynamic_range_bits >= LIMITS.min_dynamic_range_bits, name


def test_one_person_keeps_the_appearance_another_does_not(open_pack: Pipeline, picture: Picture):
    image = picture("id_obama_1.jpg")
    moved = cv2.warpAffine(image, np.array([[1.02, 0.01, 9], [-0.01, 1.02, -6]]), image.shape[1::-1])
    other = picture("id_damon_1.jpg")
    first, second, third = (measured(open_pack, each).appearance for each in (image, moved, other))
    assert first is not None and second is not None and third is not None
    assert first @ second > 0.9 > LIMITS.min_track_similarity > first @ third


def test_the_sharpness_of_a_scene_grows_until_the_lens_is_right_and_has_no_upper_end() -> None:
    scene = np.full((240, 320, 3), 60, np.uint8)
    for x in range(20, 300, 40):
        scene[20:220, x : x + 20] = 190
    for y in range(20, 220, 50):
        scene[y : y + 25, 20:300] //= 2
    found = [scene_sharpness(cv2.GaussianBlur(scene, (0, 0), sigma)) or 0.0 for sigma in (5.0, 3.0, 2.0, 1.0, 0.3)]
    assert found == sorted(found)
    assert 0.0 < found[0] < 0.4
    assert found[-1] > 1.0
    assert scene_sharpness(np.full((240, 320, 3), 60, np.uint8)) is None
