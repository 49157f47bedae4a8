"""The two diagrams: the DET curve of ``evaluate match``, the score histograms of ``evaluate pad``."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Final

import numpy as np

from edge_agent.evaluate.bounds import rate_of
from edge_agent.evaluate.canvas import BLACK, BLUE, GREEN, GREY, LIGHT_BLUE, LINE_PX, PALE, RED, Canvas, Colour
from edge_agent.evaluate.match import GOAL, MatchReport
from edge_agent.evaluate.pad import PadReport
from edge_agent.evaluate.pairs import GRID

WIDTH: Final = 900
HEIGHT: Final = 640
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 90, 60
DECADES: Final = 5
"""Rates are drawn from 1e-5 to 1; a rate of 0 lies on the edge."""
BINS: Final = 20
PANEL_PX: Final = 190


def det_curve(found: MatchReport, title: str) -> Canvas:
    """FNMR over FMR for every threshold, both logarithmic, and beside it the upper ends of their 95 % intervals."""
    canvas = Canvas(WIDTH, HEIGHT)
    _det_axes(canvas, title, found)
    measured, bounded = _det_points(found)
    canvas.line(bounded, LIGHT_BLUE, 2)
    canvas.line(measured, BLUE, 2)
    at = found.at_evidence
    x, y = _det_xy(at.fmr.rate or 0.0, at.fnmr.rate or 0.0)
    canvas.dot(x, y, RED)
    right = x > WIDTH / 2
    canvas.text(x + (-10 if right else 10), y - 8, f"threshold {at.threshold:.3f}", RED, align=1.0 if right else 0.0)
    return canvas


def _det_axes(canvas: Canvas, title: str, found: MatchReport) -> None:
    counts = found.comparisons
    canvas.text(LEFT, 24, title)
    canvas.text(
        LEFT,
        24 + LINE_PX,
        f"{found.identities} identities, {counts.genuine.total} genuine and {counts.impostor.total} impostor pairs "
        f"(not independent); a rate of 0 is drawn on the edge",
        GREY,
    )
    canvas.text(LEFT, 24 + 2 * LINE_PX, "measured", BLUE)
    canvas.text(LEFT + 90, 24 + 2 * LINE_PX, "upper ends of the 95 % intervals of both rates", LIGHT_BLUE)
    _grid(canvas, [base * 10.0**decade for decade in range(-DECADES, 0) for base in range(2, 10)], PALE)
    _grid(canvas, [10.0**decade for decade in range(-DECADES, 1)], GREY)
    for decade in range(-DECADES, 1):
        x, y = _det_xy(10.0**decade, 10.0**decade)
        label = "1" if decade == 0 else f"1e{decade}"
        canvas.text(x, HEIGHT - BOTTOM + LINE_PX, label, align=0.5)
        canvas.text(LEFT - 8, y + 4, label, align=1.0)
    goal, _ = _det_xy(GOAL, 1.0)
    canvas.line([(goal, TOP), (goal, HEIGHT - BOTTOM)], RED)
    canvas.text(goal + 6, TOP + LINE_PX, f"goal: FMR {GOAL:g}", RED)
    canvas.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "false match rate (FMR)", align=0.5)
    canvas.text(8, TOP - 12, "FNMR: false non-match rate")


def _grid(canvas: Canvas, rates: Sequence[float], colour: Colour) -> None:
    for x, y in (_det_xy(rate, rate) for rate in rates):
        canvas.line([(x, TOP), (x, HEIGHT - BOTTOM)], colour)
        canvas.line([(LEFT, y), (WIDTH - RIGHT, y)], colour)


def _det_points(found: MatchReport) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """One point per different pair of counts: as measured, and with both upper bounds."""
    impostor, genuine = found.comparisons.impostor, found.comparisons.genuine
    matches, misses = impostor.reaching, genuine.total - genuine.reaching
    pairs = dict.fromkeys((int(matches[i]), int(misses[i])) for i in range(len(GRID)))
    measured, bounded = [], []
    highest: dict[tuple[int, int], float] = {}
    for errors in pairs:
        rates = []
        for count, total in zip(errors, (impostor.total, genuine.total), strict=True):
            if (count, total) not in highest:
                highest[count, total] = rate_of(count, total).high
            rates.append((count / total if total else 0.0, highest[count, total]))
        (fmr, fmr_high), (fnmr, fnmr_high) = rates
        measured.append(_det_xy(fmr, fnmr))
        bounded.append(_det_xy(fmr_high, fnmr_high))
    return measured, bounded


def _det_xy(fmr: float, fnmr: float) -> tuple[float, float]:
    def share(rate: float) -> float:
        return 1.0 + log10(max(rate, 10.0**-DECADES)) / DECADES

    x = LEFT + share(fmr) * (WIDTH - LEFT - RIGHT)
    return x, HEIGHT - BOTTOM - share(fnmr) * (HEIGHT - TOP - BOTTOM)


def score_histograms(found: PadReport, title: str) -> Canvas:
    """One panel per group and liveness model: how many presentations got which score. Red: called live or attack wrongly."""
    panels = [
        (group.name, model, [s for p in group.presentations for s in p.scores if s.model == model])
        for group in found.groups
        for model in _models(found)
    ]
    models = len(_models(found))
    columns = models if models > 1 else 3
    rows = max(1, -(-len(panels) // columns))
    canvas = Canvas(WIDTH, 70 + rows * PANEL_PX)
    canvas.text(20, 24, title)
    canvas.text(
        20, 24 + LINE_PX, "presentations by liveness score; the line is the threshold, red is the wrong side", GREY
    )
    width = (WIDTH - 40) / columns
    for i, (group, model, scores) in enumerate(panels):
        left, top = 20 + (i % columns) * width, 60 + (i // columns) * PANEL_PX
        values = [s.score for s in scores if s.score is not None]
        threshold = scores[0].threshold if scores else None
        wrong_above = group != found.bona_fide.name
        _panel(canvas, (left, top, width - 20), f"{group}: {model}, {len(values)}", values, threshold, wrong_above)
    return canvas


def _models(found: PadReport) -> list[str]:
    return list(dict.fromkeys(s.model for group in found.groups for p in group.presentations for s in p.scores))


def _panel(
    canvas: Canvas,
    place: tuple[float, float, float],
    heading: str,
    values: Sequence[float],
    threshold: float | None,
    wrong_above: bool,
) -> None:
    left, top, width = place
    base, height = top + PANEL_PX - 40, PANEL_PX - 80
    canvas.text(left, top + LINE_PX, heading)
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    highest = max(1, int(counts.max()))
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        wrong = threshold is not None and ((low + high) / 2 >= threshold) == wrong_above
        top_px = base - height * float(count) / highest
        canvas.bar(left + width * low + 1, top_px, left + width * high - 1, base, _colour(wrong=wrong))
        if count:
            canvas.text(left + width * (low + high) / 2, top_px - 4, str(count), GREY, align=0.5)
    canvas.line([(left, base), (left + width, base)], BLACK)
    for tick in (0.0, 0.5, 1.0):
        canvas.text(left + width * tick, base + LINE_PX, f"{tick:g}", GREY, align=tick)
    if threshold is not None:
        x = left + width * threshold
        canvas.line([(x, top + LINE_PX + 8), (x, base)], BLACK)


def _colour(*, wrong: bool) -> Colour:
    return RED if wrong else GREEN
