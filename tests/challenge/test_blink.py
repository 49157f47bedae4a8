"""What counts as a blink, as a table of what two eyes did."""

from __future__ import annotations

import pytest

from edge_agent.challenge.blink import BlinkCue

Phase = tuple[float, float]
"""(openness, seconds)"""
LOOK: Phase = (0.95, 1.2)


def blinked(phases: list[Phase], *, fps: float = 15.0, eyes: str = "both", inter_eye_px: float = 90.0) -> bool:
    cue, now_s = BlinkCue(), 10.0
    for openness, seconds in phases:
        for _ in range(max(1, round(seconds * fps))):
            now_s += 1 / fps
            seen = {"both": (openness, openness), "right": (openness, 0.95), "none": None}[eyes]
            if cue.add(now_s, seen, inter_eye_px):
                return True
    return False


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([LOOK, (0.02, 0.2), LOOK], True),
        ([LOOK, (0.5, 0.1), (0.02, 0.2), (0.4, 0.1), LOOK], True),  # lids take their time
        ([LOOK, (0.02, 0.07), (0.75, 0.1)], True),
        ([(0.95, 0.7), (0.02, 0.2), LOOK], False),  # no baseline
        ([(0.8, 3.0), (0.02, 0.2), LOOK], False),  # never wide open
        ([LOOK, (0.02, 0.9), LOOK], False),  # asleep
        ([LOOK, (0.1, 0.2), LOOK], False),  # never shut
        ([LOOK, (0.5, 0.8), (0.02, 0.2), LOOK], False),  # half shut for long
        ([LOOK, (0.02, 0.2), (0.6, 1.0)], False),  # not open again
        ([(0.02, 0.5), LOOK, LOOK], False),  # begins shut
        ([LOOK, (0.02, 0.9), LOOK, (0.02, 0.2), LOOK], True),  # a second one may be right
    ],
)
def test_a_blink_is_both_eyes_shut_for_a_moment_after_a_second_open(phases: list[Phase], expected: bool) -> None:
    assert blinked(phases) is expected
    assert blinked(phases, fps=30.0) is expected


@pytest.mark.parametrize(("eyes", "inter_eye_px"), [("right", 90.0), ("none", 90.0), ("both", 54.0)])
def test_a_wink_unseen_eyes_and_a_small_face_are_none(eyes: str, inter_eye_px: float) -> None:
    assert not blinked([LOOK, (0.02, 0.2), LOOK], eyes=eyes, inter_eye_px=inter_eye_px)
    assert blinked([LOOK, (0.02, 0.2), LOOK], inter_eye_px=55.0)
