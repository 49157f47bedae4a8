"""A white sheet to draw a diagram on, and its PNG. Coordinates are px from the top left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge_agent.errors import EnvironmentFault
from edge_agent.types import Image

Colour = tuple[int, int, int]
"""Blue, green, red."""

BLACK: Final[Colour] = (30, 30, 30)
GREY: Final[Colour] = (130, 130, 130)
PALE: Final[Colour] = (225, 225, 225)
BLUE: Final[Colour] = (180, 90, 20)
LIGHT_BLUE: Final[Colour] = (235, 190, 140)
RED: Final[Colour] = (60, 50, 200)
GREEN: Final[Colour] = (70, 150, 40)

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_SCALE: Final = 0.45
LINE_PX: Final = 18


class Canvas:
    """``width`` x ``height`` px. Text is ASCII: that is all the font has."""

    def __init__(self, width: int, height: int) -> None:
        self.image: Image = np.full((height, width, 3), 255, np.uint8)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, thickness: int = 1) -> None:
        """A line through the points."""
        path = np.array([[round(x), round(y)] for x, y in points], np.int32)
        cv2.polylines(self.image, [path], isClosed=False, color=colour, thickness=thickness, lineType=cv2.LINE_AA)

    def bar(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle, at least a pixel wide and, unless it is empty, high."""
        if bottom > top:
            cv2.rectangle(
                self.image, (round(left), round(top)), (max(round(right), round(left) + 1), round(bottom)), colour, -1
            )

    def dot(self, x: float, y: float, colour: Colour) -> None:
        cv2.circle(self.image, (round(x), round(y)), 5, colour, -1, cv2.LINE_AA)

    def text(self, x: float, y: float, text: str, colour: Colour = BLACK, *, align: float = 0.0) -> None:
        """``x, y``: the text's base line; ``align`` 0 begins there, 0.5 is centred, 1 ends there."""
        plain = text.encode("ascii", "replace").decode("ascii")
        (width, _), _ = cv2.getTextSize(plain, _FONT, _SCALE, 1)
        cv2.putText(self.image, plain, (round(x - align * width), round(y)), _FONT, _SCALE, colour, 1, cv2.LINE_AA)

    def write(self, path: Path) -> None:
        """As PNG, whatever the name ends with. Raises EnvironmentFault."""
        done, data = cv2.imencode(".png", self.image)
        if not done:
            raise EnvironmentFault(f"cannot draw {path}: the picture cannot be encoded")
        try:
            path.write_bytes(data.tobytes())
        except OSError as exc:
            raise EnvironmentFault(
                f"cannot write the diagram {path}: {exc.strerror}", hint="choose another file with --plot"
            ) from exc
