"""A still picture as a camera would see the person in it: standing, not frozen.

Frames of one still differ in position (+-3 px), scale (+-1 %), light (+-2 %) and sensor noise (less than one grey level),
so that no two are the same picture. Position, scale and light follow slow sine waves, because a standing body sways
below about 1 Hz; jumping at random from frame to frame would look like a shaking camera. Everything is a function of
the seed and the frame's number: a replay can be repeated.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Image

SHIFT_PX = 3.0
SCALE = 0.01
LIGHT = 0.02
NOISE_LEVELS = 0.6
"""Standard deviation of the noise in 8-bit grey levels."""
_SLOWEST_HZ, _FASTEST_HZ = 0.1, 0.6
_BORDER_PX = 24
"""Spare canvas on every side: more than shift and scale can uncover."""
_NOISE_ZERO = 8
"""The noise is stored unsigned; this value means none."""
_NOISE_SPARE_PX = 61


class SwayingStill:
    """Frames of one picture on a canvas of ``size`` (width, height), deterministic by ``seed``."""

    def __init__(self, picture: Image, size: tuple[int, int], *, seed: int = 0) -> None:
        self._size = size
        self._canvas = on_canvas(picture, size, border_px=_BORDER_PX)
        self._waves, self._noise = _chance(size, seed)

    def frame(self, number: int, time_s: float) -> Image:
        """The picture at ``time_s`` of its presentation; ``number`` picks the noise."""
        x, y, scale, light = (float(v) for v in self._sway(time_s))
        moved = cv2.warpAffine(
            self._canvas,
            self._motion(x * SHIFT_PX, y * SHIFT_PX, 1 + scale * SCALE),
            self._size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        frame: Image = cv2.addWeighted(moved, 1 + light * LIGHT, self._noise_at(number), 1.0, -_NOISE_ZERO)
        return frame

    def _sway(self, time_s: float) -> NDArray[np.float64]:
        """Four values within -1 to 1: each the mean of three sine waves."""
        hertz, phase = self._waves[..., 0], self._waves[..., 1]
        mean: NDArray[np.float64] = np.sin(math.tau * hertz * time_s + phase).mean(axis=1)
        return mean

    def _motion(self, x_px: float, y_px: float, scale: float) -> NDArray[np.float64]:
        """Affine map from the bordered canvas to the frame: scale about the centre, then shift."""
        centre_x, centre_y = self._size[0] / 2, self._size[1] / 2
        return np.array(
            [
                [scale, 0.0, x_px + centre_x - scale * (centre_x + _BORDER_PX)],
                [0.0, scale, y_px + centre_y - scale * (centre_y + _BORDER_PX)],
            ]
        )

    def _noise_at(self, number: int) -> Image:
        """A window of the noise; neighbouring numbers never share one."""
        row, column = (number * 7) % _NOISE_SPARE_PX, (number * 13 + number // _NOISE_SPARE_PX) % _NOISE_SPARE_PX
        width, height = self._size
        return self._noise[row : row + height, column : column + width]


def on_canvas(picture: Image, size: tuple[int, int], *, border_px: int = 0) -> Image:
    """The picture in the middle of a canvas of ``size`` plus a border, on a background of its own blurred edges.

    Its pixels stay as they are when it fits, else it is scaled down. A hard edge or a flat colour around a face
    looks like a sheet of paper or a screen to a liveness model: the background goes on in the picture's colours.
    """
    width, height = size
    scale = min(1.0, width / picture.shape[1], height / picture.shape[0])
    if scale < 1.0:
        fitted = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, fitted, interpolation=cv2.INTER_AREA)
    left, top = (width - picture.shape[1]) // 2 + border_px, (height - picture.shape[0]) // 2 + border_px
    right = width + 2 * border_px - picture.shape[1] - left
    bottom = height + 2 * border_px - picture.shape[0] - top
    canvas: Image = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE)
    if max(left, right, top, bottom) > border_px:
        canvas = cv2.blur(canvas, (31, 31), borderType=cv2.BORDER_REPLICATE)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


@lru_cache(maxsize=2)
def _chance(size: tuple[int, int], seed: int) -> tuple[NDArray[np.float64], Image]:
    """The waves and the noise: kept, because a camera is opened for every session and drawing them takes long."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform((_SLOWEST_HZ, 0.0), (_FASTEST_HZ, math.tau), (4, 3, 2))
    shape = (size[1] + _NOISE_SPARE_PX, size[0] + _NOISE_SPARE_PX, 3)
    levels = rng.standard_normal(shape, dtype=np.float32) * NOISE_LEVELS + _NOISE_ZERO
    noise = levels.round().clip(0, 2 * _NOISE_ZERO).astype(np.uint8)
    for drawn in (waves, noise):
        drawn.setflags(write=False)
    return waves, noise
