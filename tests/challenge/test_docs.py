"""docs/challenge.md says what is so."""

from __future__ import annotations

import pytest

from edge_agent.challenge.geometry import TEMPLATE
from edge_agent.challenge.pace import MIN_FPS, Pace
from edge_agent.challenge.turn import (
    ASPECT_KEPT,
    LEAVES_NEUTRAL,
    MAX_JUMP,
    MAX_LOST_FRAMES,
    MIN_INTER_EYE_PX,
    TurnCue,
)
from tests.project.tree import ROOT

TEXT = (ROOT / "docs/challenge.md").read_text(encoding="utf-8")


def paced(fps: float) -> Pace:
    pace = Pace()
    for number in range(Pace.FRAMES):
        pace.add(number / fps)
    return pace


@pytest.mark.parametrize(
    "words",
    [
        f"eyes at (±{TEMPLATE[1][0]:g}, 0), mouth corners at (±{TEMPLATE[3][0]:g}, {TEMPLATE[3][1]:g})",
        f"{paced(15).window} frames at 15 frames/s, {paced(7.5).window} at 7.5, at most {paced(120).window}",
        f"{MIN_FPS:g} frames/s, {MIN_INTER_EYE_PX:g} px between the eyes",
        f"`a / a0` {ASPECT_KEPT[0]:g}-{ASPECT_KEPT[1]:g}",
        f"T = {TurnCue.THRESHOLD:g} ",
        f"{paced(12).least_on_the_way} single frames between {LEAVES_NEUTRAL:g} T and T",
        f"on either side), {paced(10).least_on_the_way} below about 11 frames/s",
        f"away for more than {MAX_LOST_FRAMES} frames",
        f"`u` more than {MAX_JUMP:g} away",
    ],
)
def test_the_numbers_are_those_of_the_code(words: str) -> None:
    assert words in TEXT
