"""Whether something moves before a camera: the luma of two pictures compared, block by block. Nothing is detected in them.

Only the means of some hundred blocks are kept of a picture, so nobody could be made out in what is kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Image

SAMPLE_PX: Final = 8
"""Every so many pixels in both directions are looked at, in green, which is most of the luma."""
BLOCK: Final = 5
"""Samples of a block's side. The noise of a sensor, some levels in the dark, is a fifth of that in their mean."""
LEVELS: Final = 8.0
"""A block that is so much brighter or darker than before has changed."""
SHARE: Final = 0.01
"""Of the blocks: a head at two metres covers more, a fly less."""
STILL_AFTER_S: Final = 5.0
"""Somebody who stands before a terminal moves more often."""

Blocks = NDArray[np.float32]


def blocks_of(image: Image) -> Blocks:
    """float32 (R, C): the mean level of each block of ``image``, uint8 (H, W, 3); what is left of rows and columns is cut."""
    samples = image[::SAMPLE_PX, ::SAMPLE_PX, 1]
    rows, columns = (max(1, side // BLOCK) for side in samples.shape)
    height, width = min(BLOCK, samples.shape[0]), min(BLOCK, samples.shape[1])
    cut = samples[: rows * height, : columns * width].reshape(rows, height, columns, width)
    means: Blocks = cut.mean(axis=(1, 3), dtype=np.float32)
    return means


def differ(a: Blocks, b: Blocks) -> bool:
    """Whether something moved between two pictures of one camera; also where their size changed."""
    return a.shape != b.shape or float((np.abs(a - b) > LEVELS).mean()) > SHARE


class Motion:
    """Told picture after picture; knows since when nothing has moved."""

    def __init__(self) -> None:
        self._last: Blocks | None = None
        self._moved_at_s: float | None = None

    def see(self, image: Image, at_s: float) -> None:
        """``image`` as a camera gives it, taken at monotonic ``at_s``."""
        blocks = blocks_of(image)
        if self._last is None or differ(blocks, self._last):
            self._moved_at_s = at_s
        self._last = blocks

    def forget(self) -> None:
        """The pictures to come do not follow those before."""
        self._last = self._moved_at_s = None

    def still_s(self, now_s: float) -> float | None:
        """For how long nothing has moved, or since the first picture; None before that."""
        return None if self._moved_at_s is None else max(0.0, now_s - self._moved_at_s)
