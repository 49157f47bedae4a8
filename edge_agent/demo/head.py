"""A portrait as a head that turns, and as the flat picture that it is.

The head is rendered by a coarse model of depth: an ellipsoid with a nose before it, laid over the portrait by its
landmarks. It is good enough for the landmarks to move as a head's do, and for nothing else.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Image, Landmarks

_HALF_WIDTH, _HALF_HEIGHT, _DEPTH = 1.25, 1.7, 1.3
"""Of the ellipsoid, in eye distances."""
_NOSE_DEPTH, _NOSE_WIDTH, _NOSE_HEIGHT = 0.42, 0.22, 0.3
_FADES: Final = (0.75, 1.25)
"""Where the turning fades out into the background, in radii of the ellipsoid."""
_STEPS: Final = 6
"""Of the iteration that finds which point of the portrait comes to be seen at a place."""
_FOCAL: Final = 2.0
"""Of the camera before which the flat picture is turned, in widths of the picture."""

_Grid = NDArray[np.float32]


def turned_head(portrait: Image, landmarks: Landmarks, yaw_deg: float) -> Image:
    """The head turned about its vertical axis, + = to the subject's own left. The background stays."""
    unit = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    middle = landmarks[[0, 1, 3, 4]].mean(axis=0)
    nose = (landmarks[2] - middle) / unit
    part = _around(portrait, middle, unit)
    rows, columns = (axis.astype(np.float32) for axis in np.mgrid[part])
    x, y = (columns - middle[0]) / unit, (rows - middle[1]) / unit
    sine, cosine = math.sin(math.radians(yaw_deg)), math.cos(math.radians(yaw_deg))
    source = x.copy()
    for _ in range(_STEPS):
        depth, share = _depth(source, y, nose)
        moved = source * (cosine - 1) + depth * sine
        source = x - share * moved
    at = (source * unit + middle[0]).astype(np.float32)
    shown = portrait.copy()
    shown[part] = cv2.remap(portrait, at, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return shown


def _around(portrait: Image, middle: NDArray[np.float32], unit: float) -> tuple[slice, slice]:
    """Rows and columns in which anything moves."""
    reach = np.array([_HALF_WIDTH, _HALF_HEIGHT]) * _FADES[1] * unit
    (left, top), (right, bottom) = np.maximum(middle - reach, 0).astype(int), (middle + reach).astype(int) + 1
    height, width = portrait.shape[:2]
    return slice(top, min(bottom, height)), slice(left, min(right, width))


def _depth(x: _Grid, y: _Grid, nose: NDArray[np.float32]) -> tuple[_Grid, _Grid]:
    """How far towards the camera each point is, in eye distances, and how much (0-1) of the turning it takes part in."""
    radius = np.hypot(x / _HALF_WIDTH, y / _HALF_HEIGHT)
    skull = _DEPTH * np.sqrt(np.clip(1 - radius**2, 0, None))
    bump = np.exp(-(((x - nose[0]) / _NOSE_WIDTH) ** 2 + ((y - nose[1]) / _NOSE_HEIGHT) ** 2) / 2)
    share = np.clip((_FADES[1] - radius) / (_FADES[1] - _FADES[0]), 0, 1)
    return (skull + _NOSE_DEPTH * bump).astype(np.float32), share.astype(np.float32)


def turned_picture(portrait: Image, yaw_deg: float) -> Image:
    """The portrait as a print that is held before the camera and turned about its vertical middle."""
    height, width = portrait.shape[:2]
    sine, cosine = math.sin(math.radians(yaw_deg)), math.cos(math.radians(yaw_deg))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * (width / 2, height / 2)
    distance = _FOCAL * width
    far = distance + corners[:, 0] * sine
    seen = np.column_stack([corners[:, 0] * cosine, corners[:, 1]]) * (distance / far)[:, None]
    middle = (width / 2, height / 2)
    mapping = cv2.getPerspectiveTransform((corners + middle).astype(np.float32), (seen + middle).astype(np.float32))
    shown = cv2.warpPerspective(portrait, mapping, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shown, np.uint8)
