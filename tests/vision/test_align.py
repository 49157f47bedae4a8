"""Alignment: the best similarity transform, and the same pixels as InsightFace (see test_parity)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from edge_agent.types import Landmarks
from edge_agent.vision.align import (
    ADDON_TEMPLATE,
    ARCFACE_TEMPLATE,
    align_addon,
    align_arcface,
    similarity,
)

pytestmark = pytest.mark.arm

angles = st.floats(-180, 180)
scales = st.floats(0.05, 20)
shifts = st.floats(-2000, 2000)


def moved(points: np.ndarray, angle_deg: float, scale: float, x: float, y: float) -> Landmarks:
    turn = np.deg2rad(angle_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    result: Landmarks = (points @ rotation.T * scale + (x, y)).astype(np.float32)
    return result


def carried(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    result: np.ndarray = points @ matrix[:, :2].T + matrix[:, 2]
    return result


@given(angles, scales, shifts, shifts)
def test_any_turned_scaled_and_shifted_template_is_carried_back(angle: float, scale: float, x: float, y: float):
    points = moved(ARCFACE_TEMPLATE, angle, scale, x, y)
    assert carried(similarity(points, ARCFACE_TEMPLATE), points) == pytest.approx(ARCFACE_TEMPLATE, abs=0.05)


@given(st.lists(st.tuples(shifts, shifts), min_size=5, max_size=5), angles, st.floats(0.9, 1.1), st.floats(-3, 3))
def test_no_other_similarity_fits_better(points: list[tuple[float, float]], angle: float, scale: float, shift: float):
    source = np.array(points, np.float32)
    if np.ptp(source, axis=0).max() < 1:
        return
    best = similarity(source, ARCFACE_TEMPLATE)
    error = np.square(carried(best, source) - ARCFACE_TEMPLATE).sum()
    other = np.square(moved(carried(best, source), angle, scale, shift, shift) - ARCFACE_TEMPLATE).sum()
    assert error <= other + 1e-2


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_landmarks_without_a_shape_are_an_error(points: np.ndarray):
    with pytest.raises(ModelError, match="cannot align a face"):
        similarity(points.astype(np.float32), ARCFACE_TEMPLATE)


def test_a_face_in_the_template_is_not_moved():
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    assert np.array_equal(align_arcface(image, ARCFACE_TEMPLATE), image)


@pytest.mark.parametrize(("shift_px", "outside"), [(0, 0.0), (-40, 0.5), (40, 0.5), (-80, 1.0), (80, 1.0)])
def test_the_add_on_reports_how_much_of_its_crop_is_outside(shift_px: int, outside: float):
    image = np.full((80, 80, 3), 100, np.uint8)
    points = (ADDON_TEMPLATE + np.array([shift_px, 0])).astype(np.float32)
    crop, share = align_addon(image, points)
    assert share == pytest.approx(outside, abs=0.02)
    assert (crop == 100).all()
