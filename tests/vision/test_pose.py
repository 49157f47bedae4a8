"""Head pose: signs, mirrored copies, and known turns of the model face."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.packs.manifest import load_pack
from edge_agent.types import Frame, HeadPose, Image, Landmarks
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline
from edge_agent.vision.pose import FACE_MODEL, head_pose
from tests.vision.conftest import Picture


def turned(yaw: float, pitch: float, roll: float, *, distance_ied: float = 10.0) -> np.ndarray:
    """Landmarks of the model face after a roll, then a pitch, then a yaw, seen at 100 px between the eyes."""
    yaw, pitch, roll = np.deg2rad([-yaw, -pitch, -roll])
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    about_z = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    points = FACE_MODEL @ (np.array(about_y) @ np.array(about_x) @ np.array(about_z)).T
    depth = points[:, 2:] + distance_ied
    seen: np.ndarray = points[:, :2] / depth * distance_ied * 100 + (640, 300)
    return seen


def pose_of(points: np.ndarray) -> HeadPose:
    pose = head_pose(points.astype(np.float32))
    assert pose is not None
    return pose


@given(st.floats(-40, 40), st.floats(-25, 25), st.floats(-40, 40))
def test_the_model_face_is_measured_as_it_was_turned(yaw: float, pitch: float, roll: float):
    """Roll is read in the picture, so with a large yaw and pitch it differs a little from the angle turned."""
    pose = pose_of(turned(yaw, pitch, roll))
    assert pose.yaw_deg == pytest.approx(yaw, abs=5)
    assert pose.pitch_deg == pytest.approx(pitch, abs=6)
    assert pose.roll_deg == pytest.approx(roll, abs=12)


@pytest.mark.parametrize("distance_ied", [7, 10, 16, 40])
def test_the_distance_of_the_camera_matters_little(distance_ied: float):
    pose = pose_of(turned(15, -10, 8, distance_ied=distance_ied))
    assert (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == pytest.approx((15, -10, 8), abs=5)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan)])
def test_no_shape_no_pose(points: Landmarks):
    assert head_pose(points.astype(np.float32)) is None


@pytest.fixture(scope="module", params=["open", "scrfd-minifas"])
def pipeline(request: pytest.FixtureRequest, models_dir: Path) -> Pipeline:
    return open_pipeline(load_pack(request.param), models_dir)


def measured(pipeline: Pipeline, image: Image) -> HeadPose:
    quality = pipeline.measure(Frame(image, 0.0, 0)).quality
    assert quality is not None and quality.pose is not None
    return quality.pose


def test_a_head_turned_to_the_left_of_the_picture_is_turned_to_its_own_right(pipeline: Pipeline, picture: Picture):
    assert measured(pipeline, picture("pose_left.jpeg")).yaw_deg < -40


def test_a_lowered_chin_is_a_negative_pitch(pipeline: Pipeline, picture: Picture):
    assert measured(pipeline, picture("pose_down.jpeg")).pitch_deg < -8


def test_a_head_tilted_to_the_left_of_the_picture_is_tilted_to_its_own_right(pipeline: Pipeline, picture: Picture):
    assert measured(pipeline, picture("pose_roll_left.png")).roll_deg > 30


@pytest.mark.parametrize("name", ["pose_left.jpeg", "id_obama_4.jpg", "id_altman_2.png", "id_jolie_4.jpg"])
def test_a_mirrored_copy_has_mirrored_signs(pipeline: Pipeline, picture: Picture, name: str):
    pose, mirrored = (measured(pipeline, image) for image in (picture(name), cv2.flip(picture(name), 1)))
    assert mirrored.yaw_deg == pytest.approx(-pose.yaw_deg, abs=8)
    assert mirrored.roll_deg == pytest.approx(-pose.roll_deg, abs=5)
    assert mirrored.pitch_deg == pytest.approx(pose.pitch_deg, abs=8)


def test_a_rotated_copy_has_another_roll(pipeline: Pipeline, picture: Picture):
    image = picture("id_damon_1.jpg")
    centre = (image.shape[1] / 2, image.shape[0] / 2)
    for angle in (-20, 20):
        rotated = cv2.warpAffine(image, cv2.getRotationMatrix2D(centre, angle, 1.0), image.shape[1::-1])
        change = measured(pipeline, rotated).roll_deg - measured(pipeline, image).roll_deg
        assert change == pytest.approx(angle, abs=5)


def test_portraits_look_into_the_camera(pipeline: Pipeline, picture: Picture, portraits: list[str]):
    poses = np.array([astuple(measured(pipeline, picture(name))) for name in portraits])
    assert np.abs(np.median(poses, axis=0)) == pytest.approx([0, 0, 0], abs=4)
    assert (np.abs(poses[:, 1]) < 20).mean() > 0.95


def test_the_head_in_the_clip_is_never_far_from_frontal(pipeline: Pipeline, assets: Path):
    """A quiet person in front of the camera: no measured angle jumps by more than ten degrees between frames."""
    clip = cv2.VideoCapture(str(assets / "videos/intel_head_pose_male.gif"))
    poses = []
    while (read := clip.read())[0]:
        poses.append(astuple(measured(pipeline, read[1])))
    assert len(poses) > 50
    assert np.abs(np.diff(poses, axis=0)).max() < 10
