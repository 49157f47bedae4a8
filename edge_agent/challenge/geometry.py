"""What five landmarks say of a head's turn, whatever the distance, the lens and the tilt.

The eyes and the mouth corners of a face lie nearly in one plane, the tip of the nose lies before it. Mapping those four
points exactly onto a template (the homography of four point pairs) undoes all that perspective does to their plane. The
nose of a *flat* picture lies in that plane as well: it stays where it is however the picture is held, for any
homography of it cancels out. The nose of a head moves against the plane by its parallax, about 0.57 tan(yaw) eye
distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite
from typing import Final

from edge_agent.types import Landmarks

_Point = tuple[float, float]
_Corners = tuple[_Point, _Point, _Point, _Point]
"""Right eye, left eye, right and left mouth corner."""

TEMPLATE: Final = ((-0.5, 0.0), (0.5, 0.0), (-0.414, 1.155), (0.414, 1.155))
"""Where the corners are put, in eye distances; x to the right of an unmirrored picture, y down.

The means of many faces. Of others' proportions only the scale of ``u`` depends, and where its zero lies.
"""

_LEAST_PX: Final = 1e-3
_LEAST_SHARE: Final = 1e-3
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
    right_eye, left_eye, nose, right_mouth, left_mouth = ((float(x), float(y)) for x, y in landmarks.tolist())
    corners = (right_eye, left_eye, right_mouth, left_mouth)
    eyes_px = hypot(left_eye[0] - right_eye[0], left_eye[1] - right_eye[1])
    height_px = _between_middles(corners)
    if not (isfinite(sum(map(sum, (*corners, nose)))) and min(eyes_px, height_px) > _LEAST_PX):
        return None
    u = _nose_in_template(corners, nose, max(eyes_px, height_px))
    return None if u is None else Turn(u, eyes_px / height_px)


def _between_middles(corners: _Corners) -> float:
    (rx, ry), (lx, ly), (mx, my), (nx, ny) = corners
    return hypot(mx + nx - rx - lx, my + ny - ry - ly) / 2


def _nose_in_template(corners: _Corners, nose: _Point, size: float) -> float | None:
    """The nose's x under the homography that maps ``corners`` onto the template.

    Of any four points the fourth is a sum of the first three with weights; a homography keeps the barycentric
    coordinates of a point, each divided by its weight, up to a common factor.
    """
    if _area(corners[0], corners[1], corners[2]) < _LEAST_SHARE * size * size:
        return None
    weights = _barycentric(corners[3], corners)
    if not (-weights[0] > _LEAST_SHARE and min(weights[1:]) > _LEAST_SHARE):
        return None  # no convex quadrangle in the template's order: seen from behind, or no face
    shares = [n * t / w for n, t, w in zip(_barycentric(nose, corners), _TEMPLATE_WEIGHTS, weights, strict=True)]
    total = sum(shares)
    if total < _LEAST_SHARE:
        return None
    return sum(share * x for share, (x, _) in zip(shares, TEMPLATE, strict=False)) / total


def _barycentric(point: _Point, corners: _Corners) -> tuple[float, float, float]:
    """Of ``point`` in the triangle of the first three corners."""
    a, b, c, _ = corners
    whole = _area(a, b, c)
    return _area(point, b, c) / whole, _area(a, point, c) / whole, _area(a, b, point) / whole


def _area(a: _Point, b: _Point, c: _Point) -> float:
    """Twice the area of the triangle; positive for the right eye, the left one and a mouth corner."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


_TEMPLATE_WEIGHTS: Final = _barycentric(TEMPLATE[3], TEMPLATE)
