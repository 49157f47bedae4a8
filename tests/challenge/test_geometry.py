"""What five landmarks say of a turn: nothing for a plane, the parallax of the nose for a head."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from edge_agent.challenge.geometry import TEMPLATE, Turn, measure_turn
from edge_agent.types import Landmarks
from edge_agent.vision.pose import head_pose
from tests.challenge.heads import EYE_DISTANCE_MM, Stand

FACE = np.array([TEMPLATE[0], TEMPLATE[1], (0.03, 0.6), TEMPLATE[2], TEMPLATE[3]])


def measured(points: np.ndarray) -> Turn:
    """With all the digits that the test has, not those of float32."""
    turn = measure_turn(cast("Landmarks", points))
    assert turn is not None
    return turn


def random_face(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(FACE + rng.normal(0.0, 0.04, FACE.shape))


def random_view(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """(5, 2) px: any homography that shows the whole plane of the face from its front."""
    while True:
        matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        matrix[:2, :2] += rng.normal(0.0, 0.4, (2, 2))
        matrix[2, :2] = rng.normal(0.0, 0.25, 2)
        seen = np.column_stack([points, np.ones(len(points))]) @ matrix.T
        if np.linalg.det(matrix) > 0.15 and seen[:, 2].min() > 0.2 > 0.2 / seen[:, 2].max():
            return np.asarray(seen[:, :2] / seen[:, 2:] * rng.uniform(40, 400) + rng.uniform(0, 1000, 2))


def test_no_homography_of_a_plane_moves_the_nose_in_the_template() -> None:
    rng = np.random.default_rng(9)
    moved = []
    for _ in range(300):
        face = random_face(rng)
        moved.append(abs(measured(random_view(rng, face)).u - measured(face).u))
    assert max(moved) < 1e-6


def test_the_template_itself_gives_the_place_of_its_nose() -> None:
    turn = measured(FACE)
    assert turn.u == pytest.approx(0.03)
    assert turn.a == pytest.approx(1 / 1.155)


@pytest.mark.parametrize("nose_mm", [28.0, 32.0, 36.0])
@pytest.mark.parametrize("yaw_deg", [-25.0, -14.0, -5.0, 5.0, 14.0, 25.0])
def test_the_nose_of_a_head_moves_by_its_parallax_towards_the_side_it_turns_to(nose_mm: float, yaw_deg: float) -> None:
    distance_mm = 500.0
    landmarks = Stand(nose_mm, distance_mm, axis_mm=0.0)(yaw_deg)
    tangent, cosine = np.tan(np.radians(yaw_deg)), np.cos(np.radians(yaw_deg))
    parallax_mm = nose_mm * tangent / (1 - nose_mm / (distance_mm * cosine))
    # the template's mouth is a little wider than this face's: the scale at the height of the nose is nearly one
    assert measured(landmarks).u == pytest.approx(parallax_mm / EYE_DISTANCE_MM, rel=0.03)
    pose = head_pose(landmarks)
    assert pose is not None and np.sign(pose.yaw_deg) == np.sign(measured(landmarks).u) == np.sign(yaw_deg)


def test_a_head_keeps_its_proportions_while_it_turns_a_little_and_not_when_it_turns_far() -> None:
    straight = measured(Stand()(0.0)).a
    kept = {yaw: measured(Stand()(yaw)).a / straight for yaw in (14.0, 20.0, 40.0)}
    assert kept[14.0] > 0.95 and kept[20.0] > 0.9 and kept[40.0] < 0.8


CANNOT_BE_A_FACE = {
    "the eyes are at one place": [[0, 0], [0, 0], [0, 5], [-4, 10], [4, 10]],
    "eyes and mouth are on one line": [[-5, 0], [5, 0], [0, 0], [-4, 0], [4, 0]],
    "the eyes are exchanged": [[5, 0], [-5, 0], [0, 5], [-4, 10], [4, 10]],
    "the mouth's corners are exchanged": [[-5, 0], [5, 0], [0, 5], [4, 10], [-4, 10]],
    "a mouth corner is within the triangle of the others": [[-5, 0], [5, 0], [0, 5], [-4, 10], [-2, 3]],
    "the mouth is above the eyes": [[-5, 0], [5, 0], [0, -5], [-4, -10], [4, -10]],
    "the nose is beyond the horizon of the plane": [[-5, 0], [5, 0], [0, -300], [-10, 10], [10, 10]],
    "a number is missing": [[-5, 0], [5, 0], [0, np.nan], [-4, 10], [4, 10]],
    "a number is infinite": [[-5, 0], [5, 0], [0, 5], [-np.inf, 10], [4, 10]],
}


@pytest.mark.parametrize("points", CANNOT_BE_A_FACE.values(), ids=list(CANNOT_BE_A_FACE))
def test_what_cannot_be_a_face_gives_no_measurement(points: list[list[float]]) -> None:
    assert measure_turn(np.array(points, np.float32)) is None
