"""What is drawn: the measured curve beside its bounds, and red for nothing but the wrong side of a threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_agent.errors import EnvironmentFault
from edge_agent.evaluate.canvas import BLUE, GREEN, LIGHT_BLUE, RED, Canvas, Colour
from edge_agent.evaluate.diagrams import det_curve, score_histograms
from edge_agent.evaluate.match import report
from edge_agent.evaluate.pad import Group
from edge_agent.evaluate.pad import report as pad_report
from edge_agent.evaluate.presentations import Answer, Presentation
from tests.evaluate.test_match import scored
from tests.faces import scores


def pixels(canvas: Canvas, colour: Colour) -> int:
    return int((canvas.image == colour).all(axis=2).sum())


def columns(canvas: Canvas, colour: Colour) -> np.ndarray:
    return np.flatnonzero((canvas.image == colour).all(axis=2).any(axis=0))


def test_the_curve_and_its_bounds_are_drawn_the_bounds_towards_more_errors() -> None:
    canvas = det_curve(report(scored([0.1, 0.2, 0.6] * 40, [0.5, 0.7, 0.9] * 20), 9), "DET")
    body = Canvas(1, 1)
    body.image = canvas.image[100:560]  # without the legend
    assert pixels(body, BLUE) > 300
    assert pixels(body, LIGHT_BLUE) > 300
    assert columns(body, LIGHT_BLUE).min() > columns(body, BLUE).min()


def presentation(score: float) -> Presentation:
    return Presentation("x", Answer.LIVE if score >= 0.5 else Answer.ATTACK, False, (), scores(score, score), 1)


@pytest.mark.parametrize(
    ("bona_fide", "attack", "red"),
    [(0.9, 0.1, False), (0.9, 0.7, True), (0.2, 0.1, True)],
    ids=["told apart", "attack called live", "customer called attack"],
)
def test_a_histogram_is_red_on_the_wrong_side_only(bona_fide: float, attack: float, red: bool) -> None:
    groups = [Group("bona_fide", (presentation(bona_fide),)), Group("print", (presentation(attack),))]
    canvas = score_histograms(pad_report(groups), "scores")
    assert (pixels(canvas, RED) > 500) is red
    assert pixels(canvas, GREEN) > 500


def test_a_diagram_is_a_png_and_one_that_cannot_be_written_says_so(tmp_path) -> None:
    canvas = score_histograms(pad_report([]), "nothing")
    canvas.write(tmp_path / "x")
    assert (tmp_path / "x").read_bytes().startswith(b"\x89PNG")
    drawn = cv2.imread(str(tmp_path / "x"))
    assert drawn is not None
    assert np.array_equal(drawn, canvas.image)
    with pytest.raises(EnvironmentFault, match="cannot write the diagram"):
        canvas.write(tmp_path)
