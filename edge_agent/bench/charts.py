"""The diagrams of the measurements: bars beside their limits, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent.errors import ConfigurationError
from edge_agent.evaluate.canvas import BLACK, BLUE, GREEN, GREY, LIGHT_BLUE, LINE_PX, PALE, RED, Colour
from edge_agent.evaluate.vector import Sheet, sheet_for

if TYPE_CHECKING:
    from edge_agent.bench.pipeline import Report

WIDTH: Final = 900
LABELS_PX: Final = 330
BAR_PX: Final = 22
CURVES_HEIGHT: Final = 480
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 50, 60
COLOURS: Final = (BLUE, RED, GREEN, LIGHT_BLUE, GREY, BLACK)
SUFFIXES: Final = frozenset({".svg", ".png"})


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a diagram. Without a value it is a heading."""

    label: str
    value: float | None = None
    text: str = ""
    limit: float | None = None
    """Where the bar must end."""

    @property
    def colour(self) -> Colour:
        if self.value is None or self.limit is None:
            return BLUE
        return GREEN if self.value <= self.limit else RED


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one line, by x."""

    name: str
    points: tuple[tuple[float, float], ...]


def check_plot(path: Path | None) -> None:
    """Before anything is measured. Raises ConfigurationError for a name that is neither SVG nor PNG."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"cannot draw {path}: its kind is not known", hint="name it .svg or .png")


def bars(title: str, rows: Sequence[Bar], path: Path) -> Sheet:
    """Horizontal bars, all on one scale; a line across a bar is its limit."""
    sheet = sheet_for(path, WIDTH, TOP + BAR_PX * len(rows) + LINE_PX)
    sheet.text(10, 24, title)
    most = max([*(row.value or 0.0 for row in rows), *(row.limit or 0.0 for row in rows), 1e-9])
    scale = (WIDTH - LABELS_PX - RIGHT) / most
    for number, row in enumerate(rows):
        top = TOP + BAR_PX * number
        base = top + BAR_PX - 7
        if row.value is None:
            sheet.text(10, base, row.label, GREY)
            continue
        sheet.text(LABELS_PX - 8, base, row.label, align=1.0)
        sheet.bar(LABELS_PX, top + 3, LABELS_PX + row.value * scale, top + BAR_PX - 3, row.colour)
        if row.limit is not None:
            at = LABELS_PX + row.limit * scale
            sheet.line([(at, top), (at, top + BAR_PX)], BLACK, 2)
        sheet.text(LABELS_PX + max(row.value, row.limit or 0.0) * scale + 8, base, row.text)
    return sheet


def pipeline_bars(report: Report, path: Path) -> Sheet:
    """Every time of the report in milliseconds."""

    def bar(label: str, value_ms: float, limit_ms: float | None = None) -> Bar:
        return Bar(label, value_ms, f"{value_ms:.2f} ms", limit_ms)

    whole = [
        bar("untracked", report.untracked.median_ms),
        bar("its models alone", report.floor.median_ms),
        bar("tracked", report.tracked.median_ms),
        bar("its models alone", report.tracked_floor.median_ms),
    ]
    rows = [Bar("a frame of 1280x720, one face"), *whole, Bar("stages of an untracked one")]
    rows += [bar(name, found.median_ms) for name, found in report.stages.items()]
    rows += [Bar("its models"), *(bar(name, found.median_ms) for name, found in report.models.items())]
    rows.append(Bar("other scenes, untracked"))
    for cost in report.scenes:
        scene = cost.scene
        rows.append(bar(f"{scene.width}x{scene.height}, {scene.faces} face(s)", cost.untracked.median_ms))
    return bars(f"{report.before.processor}, pack {report.pack}: medians", rows, path)


def curves(title: str, x_name: str, y_name: str, found: Sequence[Curve], path: Path) -> Sheet:
    """Lines with their names on the right; the axes begin and end at the extremes."""
    sheet = sheet_for(path, WIDTH, CURVES_HEIGHT)
    xs, ys = ([point[i] for curve in found for point in curve.points] for i in (0, 1))
    span_x, span_y = (min(xs), max(xs)), (min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + _share(x, span_x) * (WIDTH - LEFT - RIGHT),
            CURVES_HEIGHT - BOTTOM - _share(y, span_y) * (CURVES_HEIGHT - TOP - BOTTOM),
        )

    sheet.text(10, 24, title)
    for step in range(5):
        x, y = (low + (high - low) * step / 4 for low, high in (span_x, span_y))
        sheet.line([at(span_x[0], y), at(span_x[1], y)], PALE)
        sheet.text(LEFT - 6, at(x, y)[1] + 4, f"{y:.4g}", GREY, align=1.0)
        sheet.text(at(x, y)[0], CURVES_HEIGHT - BOTTOM + LINE_PX, f"{x:.4g}", GREY, align=0.5)
    sheet.text((LEFT + WIDTH - RIGHT) / 2, CURVES_HEIGHT - 16, x_name, align=0.5)
    sheet.text(10, TOP - 8, y_name)
    for number, curve in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        path_px = [at(x, y) for x, y in curve.points]
        sheet.line(path_px, colour, 2)
        for x, y in path_px:
            sheet.dot(x, y, colour)
        sheet.text(WIDTH - RIGHT + 12, TOP + LINE_PX * number, curve.name, colour)
    return sheet


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return (value - low) / (high - low) if high > low else 0.5
