"""A frame as a detector's network wants it: scaled onto a black canvas, then as planes of numbers.

The memory is used again for every frame of the same size, and only what can change is converted.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Image
from edge_agent.vision.region import MULTIPLE_PX, Region
from edge_agent.vision.runtime import Tensor


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a frame lies on its canvas: in the top left corner. Sizes are (width, height)."""

    inner: tuple[int, int]
    canvas: tuple[int, int]
    scale: float
    """Frame pixels = canvas pixels / scale."""


def fit(frame: tuple[int, int], size_px: tuple[int, int], *, trim: bool) -> Fit:
    """A frame (width, height) into ``size_px``, keeping its aspect ratio.

    ``trim`` cuts the black rest down to the next multiple of 32: less to compute, nothing lost. The side that
    limits is exact, the other is rounded down, and one scale (of the height) serves both axes, which is
    what InsightFace does.
    """
    width, height = frame
    canvas_width, canvas_height = size_px
    if height / width > canvas_height / canvas_width:
        inner_height, inner_width = canvas_height, max(1, int(canvas_height / (height / width)))
    else:
        inner_width, inner_height = canvas_width, max(1, int(canvas_width * (height / width)))
    if trim:
        canvas_width, canvas_height = _round_up(inner_width), _round_up(inner_height)
    return Fit((inner_width, inner_height), (canvas_width, canvas_height), inner_height / height)


def _round_up(side_px: int) -> int:
    return -(-side_px // MULTIPLE_PX) * MULTIPLE_PX


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What becomes of a pixel's levels."""

    table: NDArray[np.float32]
    """float32 (256,): the network's number for each level."""
    rgb: bool
    """The network wants red first."""


def levels(mean: float, scale: float, *, rgb: bool) -> Levels:
    """(level - mean) * scale."""
    return Levels(((np.arange(256, dtype=np.float32) - np.float32(mean)) * np.float32(scale)), rgb)


class Canvas:
    """For frames of one size. Not thread-safe."""

    def __init__(self, place: Fit, levels: Levels) -> None:
        self.fit = place
        self._levels = levels
        width, height = place.canvas
        self.pixels: Image = np.zeros((height, width, 3), np.uint8)
        self._tensors: dict[tuple[int, int], Tensor] = {}

    def draw(self, image: Image) -> None:
        """``image``: uint8 (H, W, 3) BGR of the size this is for."""
        width, height = self.fit.inner
        cv2.resize(image, (width, height), dst=self.pixels[:height, :width])

    def tensor(self, region: Region | None) -> Tensor:
        """float32 (1, 3, H, W) of the whole canvas or of a part; good until the next call for the same size."""
        if region is not None:
            return self._converted(region.of(self.pixels), region.height)
        return self._converted(self.pixels, self.fit.inner[1])

    def _converted(self, pixels: Image, rows: int) -> Tensor:
        """``rows``: below them it is black, and stays as it was made."""
        height, width = pixels.shape[:2]
        tensor = self._tensors.get((height, width))
        if tensor is None:
            tensor = np.full((1, 3, height, width), self._levels.table[0], np.float32)
            self._tensors[height, width] = tensor
        for plane in range(3):
            channel = cv2.extractChannel(pixels[:rows], 2 - plane if self._levels.rgb else plane)
            cv2.LUT(channel, self._levels.table, dst=tensor[0, plane, :rows])
        return tensor
