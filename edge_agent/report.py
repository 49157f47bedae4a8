"""Assessments as JSON and as a line for people: what ``screen`` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from edge_agent.errors import AgentError
from edge_agent.types import Assessment, Check, Face, JsonObject, LivenessScore

if TYPE_CHECKING:
    from collections.abc import Sequence

VERDICT_WIDTH: Final = 12
"""Column of the file name in the lines for people."""


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number as JSON can carry it: rounded; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def check_json(check: Check) -> JsonObject:
    return {
        "code": check.code.value,
        "measure": check.measure,
        "value": rounded(check.value),
        "limit": rounded(check.limit),
        "unit": check.unit,
        "passed": check.passed,
    }


def liveness_json(scores: Sequence[LivenessScore]) -> JsonObject | None:
    """The models' scores (0-1), their thresholds and whether all agree; None when none was run."""
    if not scores:
        return None
    return {
        "passed": all(s.passed for s in scores),
        "models": [
            {
                "model": s.model,
                "score": rounded(s.score),
                "threshold": s.threshold,
                "out_of_bounds": rounded(s.out_of_bounds),
                "passed": s.passed,
            }
            for s in scores
        ],
    }


def _box_json(face: Face) -> list[float | None]:
    box = face.box
    return [rounded(v, 1) for v in (box.x1, box.y1, box.x2, box.y2)]


def _landmarks_json(face: Face) -> list[list[float | None]]:
    return [[rounded(float(x), 1), rounded(float(y), 1)] for x, y in face.landmarks]


def assessment_json(assessment: Assessment) -> JsonObject:
    """One assessed frame by the contract of ``edge-agent screen`` (without the file name)."""
    face = assessment.measurement.face
    return {
        "accepted": assessment.accepted,
        "reasons": [reason.value for reason in assessment.reasons],
        "faces": len(assessment.measurement.faces),
        "box": _box_json(face) if face else None,
        "landmarks": _landmarks_json(face) if face else None,
        "checks": [check_json(check) for check in assessment.checks],
        "liveness": liveness_json(assessment.liveness),
        "quality_score": rounded(assessment.quality_score),
        "timings_ms": {name: round(value, 2) for name, value in assessment.timings_ms.items()},
    }


def unusable_json(error: AgentError) -> JsonObject:
    """The same keys for a file that could not be judged, and why."""
    return {
        "accepted": False,
        "reasons": [],
        "faces": 0,
        "box": None,
        "landmarks": None,
        "checks": [],
        "liveness": None,
        "quality_score": None,
        "timings_ms": {},
        "error": {"code": error.code, "detail": error.message, "hint": error.hint},
    }


def line(result: JsonObject) -> str:
    """One result of ``screen`` for a person: the verdict, the file, and why."""
    error = result.get("error")
    verdict = "unusable" if error else "accepted" if result["accepted"] else "refused"
    why = _error_text(error) if error else ", ".join(_reason_texts(result)) or _vote_text(result)
    return printable(f"{verdict:<{VERDICT_WIDTH}}{result['file']}{': ' if why else ''}{why}")


def _error_text(error: JsonObject) -> str:
    return f"{error['detail']} (try: {error['hint']})" if error["hint"] else str(error["detail"])


def _reason_texts(result: JsonObject) -> list[str]:
    """Every reason with the check behind it; a clip's reasons are those of many frames, and stand alone."""
    if "frames" in result:
        return list(result["reasons"])
    failed = {check["code"]: check for check in reversed(result["checks"]) if check["passed"] is False}
    return [f"{reason} ({_value_text(failed[reason])})" for reason in result["reasons"]]


def _value_text(check: JsonObject) -> str:
    value = "none" if check["value"] is None else f"{check['value']:.3g}"
    unit = "" if check["unit"] == "0-1" else f" {check['unit']}"
    return f"{check['measure']} {value}, limit {check['limit']:.3g}{unit}"


def _vote_text(result: JsonObject) -> str:
    return "" if result["accepted"] else "the clip ended before enough frames had qualified"


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes of file names written out: a terminal stays sane."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
