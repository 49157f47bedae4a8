"""The gate: what qualifies. Pure functions from measurements and limits to checks.

Hint and gate use the same checks, so what the customer is told is what the gate wants. The order of ``CHECK_ORDER``
is the order of severity: the first failed check is the hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_agent.config import GateSection
from edge_agent.types import Check, FaceQuality, GateCode, HeadPose, LivenessScore, Measurement


@dataclass(frozen=True, slots=True)
class _Rule:
    """``value`` must be at least (``at_least``) or at most ``limit``."""

    code: GateCode
    measure: str
    value: float | None
    limit: float
    unit: str
    at_least: bool

    def check(self) -> Check:
        if self.value is None:
            return Check(self.code, self.measure, None, self.limit, None, self.unit)
        passed = self.value >= self.limit if self.at_least else self.value <= self.limit
        return Check(self.code, self.measure, self.value, self.limit, bool(passed), self.unit)


def _at_least(code: GateCode, measure: str, value: float | None, limit: float, unit: str) -> _Rule:
    return _Rule(code, measure, value, limit, unit, at_least=True)


def _at_most(code: GateCode, measure: str, value: float | None, limit: float, unit: str) -> _Rule:
    return _Rule(code, measure, value, limit, unit, at_least=False)


def second_face_ratio(measurement: Measurement, limits: GateSection) -> float:
    """Area of the second credible face / area of the largest (0 when there is none)."""
    credible = [f.box.area for f in measurement.faces if f.score >= limits.min_face_score]
    return credible[1] / credible[0] if len(credible) > 1 and credible[0] > 0 else 0.0


def check_frame(
    measurement: Measurement, limits: GateSection, *, motion_ied_per_s: float | None = None
) -> tuple[Check, ...]:
    """Every check but liveness, most severe first.

    ``motion_ied_per_s`` is None for a still or the first frame of a track: not assessed. Nor is a second face where only
    the surroundings of the first were looked at.
    """
    face = measurement.face
    score = face.score if face is not None else 0.0
    presence = _at_least(GateCode.NO_FACE, "face_score", score, limits.min_face_score, "probability").check()
    quality = measurement.quality if presence.passed else None
    if quality is None:
        failed = Check(GateCode.NO_FACE, "face_score", score, limits.min_face_score, passed=False, unit="probability")
        return (failed, *(rule.check() for rule in _rules(None, limits, motion=None, second=None)))
    second = second_face_ratio(measurement, limits) if measurement.whole else None
    return (presence, *(rule.check() for rule in _rules(quality, limits, motion=motion_ied_per_s, second=second)))


def _rules(
    q: FaceQuality | None, limits: GateSection, *, motion: float | None, second: float | None
) -> Iterable[_Rule]:
    yield _second_face(second, limits)
    yield _at_least(GateCode.TOO_FAR, "inter_eye", q.inter_eye_px if q else None, limits.min_inter_eye_px, "px")
    yield _at_most(
        GateCode.TOO_CLOSE, "face_height", q.face_height_ratio if q else None, limits.max_face_height_ratio, "of frame"
    )
    margin = smallest_margin_ied(q) if q else None
    yield _at_least(
        GateCode.FACE_CUT_OFF, "visible_margin", margin, limits.min_visible_margin_ied, "inter-eye distances"
    )
    yield _at_least(GateCode.NOT_CENTERED, "margin", margin, limits.min_margin_ied, "inter-eye distances")
    yield from _pose_rules(q.pose if q else None, limits)
    yield from _light_rules(q, limits)
    yield _at_most(GateCode.HOLD_STILL, "motion", motion, limits.max_motion_ied_per_s, "inter-eye distances/s")
    yield _at_least(GateCode.TOO_BLURRY, "sharpness", q.sharpness if q else None, limits.min_sharpness, "0-1")
    yield _at_least(GateCode.EYES_HIDDEN, "eyes_visible", q.eyes_visible if q else None, 0.5, "probability")
    yield _at_least(GateCode.MOUTH_HIDDEN, "mouth_visible", q.mouth_visible if q else None, 0.5, "probability")


def _second_face(second: float | None, limits: GateSection) -> _Rule:
    """Stricter than "at most": a second face exactly at the limit is a second customer."""
    limit = limits.max_second_face_ratio
    value = second if second is None or second != limit else second + 1e-9
    return _at_most(GateCode.MULTIPLE_FACES, "second_face_area", value, limit, "of the largest")


def smallest_margin_ied(q: FaceQuality) -> float:
    """The smallest of the four margins, in inter-eye distances (negative: outside the frame)."""
    return min(q.margin_left_ied, q.margin_top_ied, q.margin_right_ied, q.margin_bottom_ied)


def _pose_rules(pose: HeadPose | None, limits: GateSection) -> Iterable[_Rule]:
    """The code tells the customer what to do: turned to the own left -> turn right."""
    yaw, pitch, roll = (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) if pose else (None, None, None)
    yield _at_most(
        GateCode.TURN_RIGHT if yaw is not None and yaw > 0 else GateCode.TURN_LEFT,
        "yaw",
        _size(yaw),
        limits.max_yaw_deg,
        "degrees",
    )
    yield _at_most(
        GateCode.CHIN_DOWN if pitch is not None and pitch > 0 else GateCode.CHIN_UP,
        "pitch",
        _size(pitch),
        limits.max_pitch_deg,
        "degrees",
    )
    yield _at_most(GateCode.LOOK_STRAIGHT, "roll", _size(roll), limits.max_roll_deg, "degrees")


def _size(angle_deg: float | None) -> float | None:
    return None if angle_deg is None else abs(angle_deg)


def _light_rules(q: FaceQuality | None, limits: GateSection) -> Iterable[_Rule]:
    luminance = q.luminance if q else None
    yield _at_least(GateCode.TOO_DARK, "luminance", luminance, limits.min_luminance, "0-1")
    yield _at_most(GateCode.TOO_DARK, "dark_share", q.dark_share if q else None, limits.max_dark_share, "of face")
    yield _at_most(GateCode.TOO_BRIGHT, "luminance", luminance, limits.max_luminance, "0-1")
    yield _at_most(
        GateCode.TOO_BRIGHT, "bright_share", q.bright_share if q else None, limits.max_bright_share, "of face"
    )
    yield _at_least(
        GateCode.UNEVEN_LIGHT,
        "light_uniformity",
        q.light_uniformity if q else None,
        limits.min_light_uniformity,
        "0-1",
    )
    yield _at_least(
        GateCode.LOW_CONTRAST,
        "dynamic_range",
        q.dynamic_range_bits if q else None,
        limits.min_dynamic_range_bits,
        "bits",
    )


def check_liveness(scores: Sequence[LivenessScore], limits: GateSection) -> tuple[Check, ...]:
    """Two checks per model: whether its crop was usable, and whether it called the face live.

    No scores at all yield the checks *not assessed*: such a frame never qualifies (see Assessment.accepted).
    """
    checks: list[Check] = []
    for s in scores:
        usable = s.score is not None and not (s.bounded and s.out_of_bounds > limits.max_liveness_out_of_bounds)
        checks.append(
            Check(
                GateCode.LIVENESS_INPUT_REJECTED,
                f"{s.model}.out_of_bounds",
                s.out_of_bounds,
                limits.max_liveness_out_of_bounds,
                usable,
                "of crop",
            )
        )
        checks.append(
            Check(
                GateCode.SPOOF_SUSPECTED,
                f"{s.model}.live",
                s.score,
                s.threshold,
                s.passed if usable else None,
                "probability",
            )
        )
    if not scores:
        checks.append(Check(GateCode.LIVENESS_INPUT_REJECTED, "out_of_bounds", None, None, None, "of crop"))
        checks.append(Check(GateCode.SPOOF_SUSPECTED, "live", None, None, None, "probability"))
    return tuple(checks)


def quality_score(q: FaceQuality, limits: GateSection) -> float:
    """Rank of a picture that passed, 0-1: the geometric mean of five components, each 0-1.

    Size (saturates at twice the least inter-eye distance), pose (angle against its limits), sharpness, light
    (distance of the mean from the middle) and evenness. A geometric mean, so that one bad axis cannot be bought
    back by the others.
    """
    pose = q.pose or HeadPose(limits.max_yaw_deg, 0.0, 0.0)
    turned = max(
        abs(pose.yaw_deg) / limits.max_yaw_deg,
        abs(pose.pitch_deg) / limits.max_pitch_deg,
        abs(pose.roll_deg) / limits.max_roll_deg,
    )
    components = (
        min(1.0, q.inter_eye_px / (2 * limits.min_inter_eye_px)),
        1.0 - 0.5 * min(1.0, turned),
        q.sharpness or 0.0,
        1.0 - abs(2.0 * q.luminance - 1.0),
        q.light_uniformity,
    )
    product = 1.0
    for value in components:
        product *= min(1.0, max(0.0, value))
    return float(product ** (1 / len(components)))
