"""Assessments as JSON and as annotated pictures: what ``screen`` prints and the demo keeps for people to look at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edge_agent.types import Assessment, Check, Face, JsonObject, LivenessScore

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def _box_json(face: Face) -> list[float]:
    box = face.box
    return [round(v, 1) for v in (box.x1, box.y1, box.x2, box.y2)]


def assessment_json(assessment: Assessment) -> JsonObject:
    """One assessed frame by the contract of ``edge-agent screen`` (without the file name)."""
    face = assessment.measurement.face
    return {
        "accepted": assessment.accepted,
        "reasons": [reason.value for reason in assessment.reasons],
        "faces": len(assessment.measurement.faces),
        "box": _box_json(face) if face else None,
        "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks] if face else None,
        "checks": [check_json(check) for check in assessment.checks],
        "liveness": liveness_json(assessment.liveness),
        "quality_score": rounded(assessment.quality_score),
        "timings_ms": {name: round(value, 2) for name, value in assessment.timings_ms.items()},
    }
