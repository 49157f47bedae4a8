"""Five landmarks of a head, or of a picture of one, before a camera: no pixels, no models.

Millimetres; x to the right of the picture, y down, z away from the camera. Yaw grows towards the subject's own left,
pitch as the chin rises, roll as the picture turns clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Landmarks

Points = NDArray[np.float64]

EYE_DISTANCE_MM = 63.0
NECK_MM = 100.0
"""From the plane of the eyes and the mouth back to the axis about which a head turns."""
FOCAL_PX = 900.0
CENTRE_PX = (640.0, 360.0)


def face_points(nose_mm: float) -> Points:
    """(5, 3): eyes and mouth corners in the plane z = 0, the nose ``nose_mm`` before it; 0: a picture of a face."""
    return np.array(
        [[-31.5, -30.0, 0.0], [31.5, -30.0, 0.0], [0.0, 6.0, -nose_mm], [-25.5, 42.0, 0.0], [25.5, 42.0, 0.0]]
    )


def rotation(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Points:
    """(3, 3), for column vectors: yaw first, then pitch, then roll."""
    (sy, sp, sr), (cy, cp, cr) = (
        np.sin(np.radians([yaw_deg, pitch_deg, roll_deg])),
        np.cos(np.radians([yaw_deg, pitch_deg, roll_deg])),
    )
    yaw = np.array([[cy, 0.0, -sy], [0.0, 1.0, 0.0], [sy, 0.0, cy]])
    pitch = np.array([[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]])
    roll = np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(roll @ pitch @ yaw)


@dataclass
class Stand:
    """Somebody before the camera; called with a yaw it gives what a detector would report, with its noise."""

    nose_mm: float = 32.0
    distance_mm: float = 500.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    axis_mm: float = NECK_MM
    """How far behind the face the axis of turning is; 0 for a picture turned in the hand."""
    noise: float = 0.0
    """Standard deviation of each coordinate, eye distances."""
    mirrored: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def __call__(self, yaw_deg: float) -> Landmarks:
        points = face_points(self.nose_mm) - (0.0, 0.0, self.axis_mm)
        points = points @ rotation(yaw_deg, self.pitch_deg, self.roll_deg).T
        points[:, 2] += self.distance_mm + self.axis_mm
        picture = points[:, :2] / points[:, 2:] * FOCAL_PX + CENTRE_PX
        if self.mirrored:
            picture[:, 0] = 2 * CENTRE_PX[0] - picture[:, 0]
            picture = picture[[1, 0, 2, 4, 3]]
        spread_px = self.noise * float(np.linalg.norm(picture[1] - picture[0]))
        return (picture + self._rng.normal(0.0, spread_px, picture.shape)).astype(np.float32)
