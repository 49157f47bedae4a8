"""The surroundings of a face that was there a moment ago: the part of a detector's canvas that is looked at first.

A region is cut from the same canvas that the whole look uses, at multiples of the coarsest stride. So the network sees
the very pixels of the whole look on the same grid, and finds the same box but for what a wide receptive field sees
beyond the edge. There are few sizes, all of them square or as flat as the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_agent.types import Box, Image

MULTIPLE_PX: Final = 32
"""Input sides are multiples of the coarsest stride."""
SIDES_PX: Final = (96, 128, 160, 192, 256, 320, 384, 512)
REACH: Final = 2.4
"""Side of a region, in sides of the face's box at least: room to move, and what the network wants to see around a face."""
MARGIN: Final = 0.25
"""A face that is nearer to the region's edge, in sides of its box, may continue beyond it."""
MOTION: Final = 0.1
"""How far a face may move to each side between two frames, in sides of its box, wherever the grid puts the region."""
WORTH: Final = 0.7
"""A region that is a larger part of the canvas saves too little."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the canvas, in its px; all multiples of 32."""

    x: int
    y: int
    width: int
    height: int

    def of(self, canvas: Image) -> Image:
        """These pixels, not copied."""
        return canvas[self.y : self.y + self.height, self.x : self.x + self.width]


def surroundings(box: Box, canvas: tuple[int, int]) -> Region | None:
    """Of a face's ``box`` on a canvas (width, height), all in canvas px; None where the whole is hardly more."""
    longest = max(box.width, box.height)
    wanted = max(REACH * longest, (1 + 2 * (MARGIN + MOTION)) * longest + MULTIPLE_PX)
    side = next((side for side in SIDES_PX if side >= wanted), None)
    if side is None:
        return None
    width, height = min(side, canvas[0]), min(side, canvas[1])
    if width * height > WORTH * canvas[0] * canvas[1]:
        return None
    x, y = box.centre
    return Region(_placed(x, width, canvas[0]), _placed(y, height, canvas[1]), width, height)


def _placed(centre: float, side: int, limit: int) -> int:
    """Where a span of ``side`` begins that has ``centre`` in its middle, on the grid and on the canvas."""
    nearest = round((centre - side / 2) / MULTIPLE_PX) * MULTIPLE_PX
    return min(max(nearest, 0), limit - side)


def is_well_inside(box: Box, region: Region, canvas: tuple[int, int]) -> bool:
    """Whether nothing of the face in ``box`` can lie beyond the region; the canvas's own edges are no edges of it."""
    margin = MARGIN * max(box.width, box.height)
    left = region.x == 0 or box.x1 - margin >= region.x
    top = region.y == 0 or box.y1 - margin >= region.y
    right = region.x + region.width == canvas[0] or box.x2 + margin <= region.x + region.width
    bottom = region.y + region.height == canvas[1] or box.y2 + margin <= region.y + region.height
    return left and top and right and bottom
