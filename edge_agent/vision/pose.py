"""Head pose from five landmarks."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from edge_agent.types import HeadPose, Landmarks

FACE_MODEL: Final = np.array(
    [[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.575, -0.5], [-0.43, 1.0, -0.05], [0.43, 1.0, -0.05]]
)
"""float64 (5, 3): a generic face in inter-eye distances; x to the right of the picture, y down, z away from the camera.

x and y are the mean of what the three detector families report for 33 frontal portraits (their medians differ by
0.05 in the nose, 0.06 in the mouth); z are rounded anthropometric means (about 31 mm from the eyes to the nose tip at
63 mm between the eyes).
"""

_FLAT: Final = FACE_MODEL[:, :2] - FACE_MODEL[:, :2].mean(axis=0)
_MODEL_SIZE: Final = float(np.sqrt((_FLAT**2).sum()))

CAMERA_DISTANCE_IED: Final = 10.0
"""Assumed distance of the camera: 63 cm at 63 mm between the eyes. The true one changes the angles little."""


_CAMERA: Final = np.diag([CAMERA_DISTANCE_IED, CAMERA_DISTANCE_IED, 1.0])


def head_pose(landmarks: Landmarks) -> HeadPose | None:
    """Orientation of the face against the ray from the camera to it; see ``HeadPose`` for the signs.

    None when the points allow no solution. The picture plane is moved to the face, so that "looking into the camera"
    is 0/0/0 wherever the face is in the frame, and the result does not depend on the frame's size.
    Perspective-n-point: SQPnP (Terzakis and Lourakis 2020) as OpenCV has it.
    """
    points = landmarks.astype(np.float64)
    centred = points - points.mean(axis=0)
    size = float(np.sqrt((centred**2).sum()) / _MODEL_SIZE)
    if not np.isfinite(size) or size < 1e-3:
        return None
    try:
        solved, rotation, _ = cv2.solvePnP(FACE_MODEL, centred / size, _CAMERA, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:
        return None
    return _angles(cv2.Rodrigues(rotation)[0]) if solved else None


def _angles(rotation: np.ndarray) -> HeadPose | None:
    """Yaw and pitch are where the nose points, roll is the turn about that direction."""
    nose = rotation @ np.array([0.0, 0.0, -1.0])
    yaw = np.degrees(np.arctan2(nose[0], -nose[2]))
    pitch = np.degrees(np.arcsin(np.clip(-nose[1], -1.0, 1.0)))
    roll = np.degrees(np.arctan2(-rotation[1, 0], rotation[1, 1]))
    return HeadPose(float(yaw), float(pitch), float(roll)) if np.isfinite([yaw, pitch, roll]).all() else None
