"""The same sheet as canvas.py's, as an SVG: text that a browser, a diff and a repository can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from xml.sax.saxutils import escape

from edge_agent.errors import EnvironmentFault
from edge_agent.evaluate.canvas import BLACK, Canvas, Colour

_ANCHORS: Final = {0.0: "start", 0.5: "middle", 1.0: "end"}


class Sheet(Protocol):
    """What a diagram is drawn on; see Canvas."""

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, thickness: int = 1) -> None: ...

    def bar(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None: ...

    def dot(self, x: float, y: float, colour: Colour) -> None: ...

    def text(self, x: float, y: float, text: str, colour: Colour = BLACK, *, align: float = 0.0) -> None: ...

    def write(self, path: Path) -> None: ...


class VectorCanvas:
    """``width`` x ``height`` px. ``align`` of a text is 0, 0.5 or 1."""

    def __init__(self, width: int, height: int) -> None:
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, thickness: int = 1) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{_hex(colour)}" stroke-width="{thickness}"/>'
        )

    def bar(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        if bottom > top:
            size = f'width="{max(right - left, 1.0):.1f}" height="{bottom - top:.1f}"'
            self._parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{_hex(colour)}"/>')

    def dot(self, x: float, y: float, colour: Colour) -> None:
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_hex(colour)}"/>')

    def text(self, x: float, y: float, text: str, colour: Colour = BLACK, *, align: float = 0.0) -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{_ANCHORS[align]}"'
        self._parts.append(f'<text {place} fill="{_hex(colour)}">{escape(text)}</text>')

    def write(self, path: Path) -> None:
        """Raises EnvironmentFault."""
        try:
            path.write_text("\n".join([*self._parts, "</svg>", ""]), encoding="utf-8")
        except OSError as exc:
            raise EnvironmentFault(
                f"cannot write the diagram {path}: {exc.strerror}", hint="choose another file with --plot"
            ) from exc


def sheet_for(path: Path, width: int, height: int) -> Sheet:
    """An SVG where the name says so, else the picture that PNG is made of."""
    return VectorCanvas(width, height) if path.suffix.lower() == ".svg" else Canvas(width, height)


def _hex(colour: Colour) -> str:
    blue, green, red = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
