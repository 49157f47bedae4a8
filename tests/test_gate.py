"""The gate: every limit, its code, its side, and the order of severity."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cli import COMMANDS
from edge_agent.config import GateSection
from edge_agent.gate import check_frame, check_liveness, quality_score
from edge_agent.texts import hint_text
from edge_agent.types import Check, GateCode, HeadPose, LivenessScore
from tests.faces import GOOD, LIMITS, face, measurement, scores


def failed(checks: tuple[Check, ...]) -> list[GateCode]:
    return list(dict.fromkeys(c.code for c in checks if c.passed is False))


def test_a_good_frame_fails_nothing() -> None:
    assert failed(check_frame(measurement(), LIMITS)) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"inter_eye_px": 59.9}, GateCode.TOO_FAR),
        ({"face_height_ratio": 0.81}, GateCode.TOO_CLOSE),
        ({"margin_left_ied": 0.49}, GateCode.NOT_CENTERED),
        ({"margin_top_ied": 0.49}, GateCode.NOT_CENTERED),
        ({"margin_right_ied": 0.49}, GateCode.NOT_CENTERED),
        ({"margin_bottom_ied": 0.49}, GateCode.NOT_CENTERED),
        ({"margin_bottom_ied": -0.01}, GateCode.FACE_CUT_OFF),
        ({"pose": HeadPose(20.1, 0, 0)}, GateCode.TURN_RIGHT),
        ({"pose": HeadPose(-20.1, 0, 0)}, GateCode.TURN_LEFT),
        ({"pose": HeadPose(0, 20.1, 0)}, GateCode.CHIN_DOWN),
        ({"pose": HeadPose(0, -20.1, 0)}, GateCode.CHIN_UP),
        ({"pose": HeadPose(0, 0, 15.1)}, GateCode.LOOK_STRAIGHT),
        ({"pose": HeadPose(0, 0, -15.1)}, GateCode.LOOK_STRAIGHT),
        ({"sharpness": LIMITS.min_sharpness - 0.01}, GateCode.TOO_BLURRY),
        ({"luminance": 0.19}, GateCode.TOO_DARK),
        ({"dark_share": LIMITS.max_dark_share + 0.01}, GateCode.TOO_DARK),
        ({"luminance": 0.81}, GateCode.TOO_BRIGHT),
        ({"bright_share": LIMITS.max_bright_share + 0.01}, GateCode.TOO_BRIGHT),
        ({"light_uniformity": LIMITS.min_light_uniformity - 0.01}, GateCode.UNEVEN_LIGHT),
        ({"dynamic_range_bits": LIMITS.min_dynamic_range_bits - 0.1}, GateCode.LOW_CONTRAST),
        ({"eyes_visible": 0.2}, GateCode.EYES_HIDDEN),
        ({"mouth_visible": 0.2}, GateCode.MOUTH_HIDDEN),
    ],
)
def test_each_limit_reports_its_code(change: dict[str, object], code: GateCode) -> None:
    assert failed(check_frame(measurement(**change), LIMITS))[0] == code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"inter_eye_px": LIMITS.min_inter_eye_px},
        {"face_height_ratio": LIMITS.max_face_height_ratio},
        {"margin_left_ied": LIMITS.min_margin_ied},
        {"pose": HeadPose(LIMITS.max_yaw_deg, -LIMITS.max_pitch_deg, LIMITS.max_roll_deg)},
        {"sharpness": LIMITS.min_sharpness},
        {"luminance": LIMITS.min_luminance},
        {"luminance": LIMITS.max_luminance},
        {"light_uniformity": LIMITS.min_light_uniformity},
    ],
)
def test_a_value_at_the_limit_passes(change: dict[str, object]) -> None:
    assert failed(check_frame(measurement(**change), LIMITS)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["inter_eye_px", "face_height_ratio", "margin_left_ied", "sharpness", "luminance", "light_uniformity"]
)
def test_a_value_that_is_not_a_number_fails(name: str) -> None:
    assert failed(check_frame(measurement(**{name: math.nan}), LIMITS))  # type: ignore[arg-type]


def test_without_a_face_nothing_else_is_assessed() -> None:
    checks = check_frame(measurement(()), LIMITS)
    assert failed(checks) == [GateCode.NO_FACE]
    assert {c.passed for c in checks[1:]} == {None}


def test_a_face_below_the_score_is_no_face() -> None:
    assert failed(check_frame(measurement((face(score=0.49),)), LIMITS)) == [GateCode.NO_FACE]


@pytest.mark.parametrize(("inter_eye", "expected"), [(54.0, []), (55.0, [GateCode.MULTIPLE_FACES])])
def test_a_second_face_counts_from_the_area_ratio_on(inter_eye: float, expected: list[GateCode]) -> None:
    faces = (face(), face(x=1100, inter_eye=inter_eye))
    assert failed(check_frame(measurement(faces), LIMITS)) == expected


def test_a_second_face_exactly_at_the_ratio_never_qualifies() -> None:
    limits = GateSection(max_second_face_ratio=0.25)
    assert failed(check_frame(measurement((face(), face(x=1100, inter_eye=50.0))), limits)) == [GateCode.MULTIPLE_FACES]


def test_an_unlikely_second_face_does_not_count() -> None:
    faces = (face(), face(x=1100, inter_eye=90, score=0.3))
    assert failed(check_frame(measurement(faces), LIMITS)) == []


def test_the_most_severe_axis_comes_first() -> None:
    bad = measurement(inter_eye_px=10.0, margin_left_ied=0.1, pose=HeadPose(40, 0, 0), luminance=0.1, sharpness=0.0)
    assert failed(check_frame(bad, LIMITS)) == [
        GateCode.TOO_FAR, GateCode.NOT_CENTERED, GateCode.TURN_RIGHT, GateCode.TOO_DARK, GateCode.TOO_BLURRY,
    ]  # fmt: skip


def test_motion_is_assessed_only_when_given() -> None:
    still = next(c for c in check_frame(measurement(), LIMITS) if c.code == GateCode.HOLD_STILL)
    moving = check_frame(measurement(), LIMITS, motion_ied_per_s=LIMITS.max_motion_ied_per_s + 0.1)
    assert still.passed is None
    assert failed(moving) == [GateCode.HOLD_STILL]


def test_a_pose_that_could_not_be_measured_is_not_assessed() -> None:
    checks = check_frame(measurement(pose=None), LIMITS)
    assert {c.passed for c in checks if c.measure in {"yaw", "pitch", "roll"}} == {None}


def test_every_liveness_model_must_agree() -> None:
    assert failed(check_liveness(scores(0.9, 0.49), LIMITS)) == [GateCode.SPOOF_SUSPECTED]
    assert failed(check_liveness(scores(0.9, 0.5), LIMITS)) == []


def test_a_crop_outside_the_frame_is_rejected_and_not_judged() -> None:
    outside = LivenessScore("first", 0.99, 0.5, 0.31, bounded=True)
    checks = check_liveness((outside,), LIMITS)
    assert failed(checks) == [GateCode.LIVENESS_INPUT_REJECTED]
    assert checks[1].passed is None


def test_a_crop_that_is_moved_into_the_frame_is_judged_however_far_it_had_to_move() -> None:
    moved = LivenessScore("first", 0.99, 0.5, 0.6)
    assert failed(check_liveness((moved,), LIMITS)) == []


def test_a_model_without_a_score_is_rejected() -> None:
    assert failed(check_liveness(scores(None, 0.9), LIMITS)) == [GateCode.LIVENESS_INPUT_REJECTED]


def test_no_liveness_at_all_is_not_assessed_rather_than_passed() -> None:
    assert {c.passed for c in check_liveness((), LIMITS)} == {None}


@given(
    inter_eye=st.floats(0, 1000),
    yaw=st.floats(-90, 90),
    sharpness=st.floats(0, 1),
    luminance=st.floats(0, 1),
    uniformity=st.floats(0, 1),
)
def test_the_quality_score_stays_between_0_and_1(
    inter_eye: float, yaw: float, sharpness: float, luminance: float, uniformity: float
) -> None:
    quality = replace(
        GOOD, inter_eye_px=inter_eye, pose=HeadPose(yaw, 0, 0), sharpness=sharpness, luminance=luminance,
        light_uniformity=uniformity,
    )  # fmt: skip
    assert 0.0 <= quality_score(quality, LIMITS) <= 1.0


@pytest.mark.parametrize(
    "worse",
    [{"sharpness": 0.4}, {"pose": HeadPose(15, 0, 0)}, {"luminance": 0.25}, {"inter_eye_px": 70.0},
     {"light_uniformity": 0.4}],
)  # fmt: skip
def test_a_worse_picture_ranks_lower(worse: dict[str, object]) -> None:
    assert quality_score(replace(GOOD, **worse), LIMITS) < quality_score(GOOD, LIMITS)  # type: ignore[arg-type]


DOCS = Path(__file__).resolve().parents[1] / "docs"


def documented_checks() -> list[list[str]]:
    """The rows of the table of checks in docs/gate.md, as cells."""
    lines = (DOCS / "gate.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [row for row in rows if len(row) == 6]


def test_the_documentation_has_a_row_for_every_check_in_the_order_of_severity() -> None:
    checks = (*check_frame(measurement(), LIMITS), *check_liveness((), LIMITS))
    written = [re.findall(r"`([^`]+)`", row[1])[0].replace("MODEL.", "") for row in documented_checks()]
    assert written == [c.measure for c in checks]


def test_the_documented_defaults_are_the_defaults() -> None:
    written = {row[3].strip("`"): float(row[4]) for row in documented_checks() if row[3].startswith("`")}
    assert written == {name: getattr(LIMITS, name) for name in written}
    others = {"min_track_similarity", "max_track_gap_s", "max_track_jump_ied"}
    assert written.keys() | others == GateSection.model_fields.keys()


def test_the_documentation_tells_what_the_customer_is_told() -> None:
    rows = [row for row in documented_checks() if row[5] != "the same"]
    assert len(rows) == len(documented_checks()) - 2
    for row in rows:
        assert row[5].startswith(hint_text(GateCode(re.findall(r"`([a-z_]+)`", row[0])[0])))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_its_exit_codes_documented(command: str) -> None:
    assert re.search(rf"^\| `{command}[` ]", (DOCS / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
