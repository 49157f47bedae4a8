"""What five landmarks say of a head's turn, whatever the distance, the lens and the tilt.

The eyes and the mouth corners of a face lie nearly in one plane, the tip of the nose lies before it. Mapping those four
points exactly onto a template (the homography of four point pairs) undoes all that perspective does to their plane. The
nose of a *flat* picture lies in that plane as well: it stays where it is however the picture is held, for any
homography of it cancels out. The nose of a head moves against the plane by its parallax, about 0.57 tan(yaw) eye
distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Landmarks

_Matrix = NDArray[np.float64]

_CORNERS: Final = [0, 1, 3, 4]
"""Of the landmarks: right eye, left eye, right and left mouth corner."""
_NOSE: Final = 2

TEMPLATE: Final = np.array([[-0.5, 0.0], [0.5, 0.0], [-0.414, 1.155], [0.414, 1.155]])
"""float64 (4, 2): where the corners are put, in eye distances; x to the right of an unmirrored picture, y down.

The means of many faces. Of others' proportions only the scale of ``u`` depends, and where its zero lies.
"""

_LEAST_EYE_DISTANCE_PX: Final = 1e-3
_LEAST_WEIGHT: Final = 1e-3
"""A corner nearer to the line through two others (as a share of the face) makes the mapping a matter of chance."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The two numbers that one frame's landmarks give."""

    u: float
    """x of the nose in the template, eye distances; grows as the subject turns to the own left (unmirrored source)."""
    a: float
    """Eye distance / distance between the middle of the eyes and the middle of the mouth; shrinks as the head turns."""


def measure_turn(landmarks: Landmarks) -> Turn | None:
    """``landmarks``: (5, 2) as ``types`` orders them. None where they cannot be a face's: a corner on the line through
    two others, corners in another order, a nose beyond the horizon of their plane, numbers that are not finite.
    """
    points = landmarks.astype(np.float64)
    corners = points[_CORNERS]
    eyes, mouth = corners[:2].mean(axis=0), corners[2:].mean(axis=0)
    eye_distance, height = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(mouth - eyes)
    if not (np.isfinite(points).all() and min(eye_distance, height) > _LEAST_EYE_DISTANCE_PX):
        return None
    middle, size = points.mean(axis=0), max(eye_distance, height)
    u = _nose_in_template((corners - middle) / size, (points[_NOSE] - middle) / size)
    return None if u is None else Turn(u, float(eye_distance / height))


def _nose_in_template(corners: _Matrix, nose: _Matrix) -> float | None:
    basis = _basis(corners)
    if basis is None:
        return None
    x, _, w = _TEMPLATE_BASIS @ np.linalg.solve(basis, np.append(nose, 1.0))
    return float(x / w) if w > _LEAST_WEIGHT else None


def _basis(corners: _Matrix) -> _Matrix | None:
    """(3, 3): maps the canonical projective basis to ``corners`` (4, 2); None where they are no convex quadrangle in
    the template's order (then one of them would lie behind the camera).
    """
    first, fourth = np.vstack([corners[:3].T, np.ones(3)]), np.append(corners[3], 1.0)
    area = np.linalg.det(first)
    if area < _LEAST_WEIGHT:  # the right mouth corner is below the eyes, seen with the right eye on the left
        return None
    weights = np.linalg.solve(first, fourth)
    if not (-weights[0] > _LEAST_WEIGHT and weights[1] > _LEAST_WEIGHT and weights[2] > _LEAST_WEIGHT):
        return None
    return np.asarray(first * weights)


def _template_basis() -> _Matrix:
    basis = _basis(TEMPLATE)
    if basis is None:
        raise AssertionError("the template is a convex quadrangle")
    return basis


_TEMPLATE_BASIS: Final = _template_basis()
