"""What a check found. ``as_json`` is the stable contract of ``doctor --json`` (docs/doctor.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.types import JsonObject

Value = float | str | None


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    WARN = "warn"
    """It works, and will not for long, or not well."""
    FAIL = "fail"
    """It does not work."""
    UNKNOWN = "unknown"
    """It could not be found out; ``detail`` says why."""


SEVERITY = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS)


@dataclass(frozen=True, slots=True)
class Finding:
    """The end of one check. ``value`` and ``limit`` are in ``unit``; ``mend``: a command or an action of a person."""

    id: str
    status: Status
    detail: str
    value: Value = None
    limit: Value = None
    """Beyond it the check no longer passes."""
    unit: str | None = None
    mend: str | None = None
    took_s: float = 0.0

    @property
    def topic(self) -> str:
        return self.id.partition(".")[0]


def passed(id_: str, detail: str, value: Value = None, *, limit: Value = None, unit: str | None = None) -> Finding:
    return Finding(id_, Status.PASS, detail, value, limit, unit)


def warned(
    id_: str, detail: str, mend: str, value: Value = None, *, limit: Value = None, unit: str | None = None
) -> Finding:
    return Finding(id_, Status.WARN, detail, value, limit, unit, mend)


def failed(
    id_: str, detail: str, mend: str, value: Value = None, *, limit: Value = None, unit: str | None = None
) -> Finding:
    return Finding(id_, Status.FAIL, detail, value, limit, unit, mend)


def unknown(id_: str, why: str, mend: str | None = None) -> Finding:
    return Finding(id_, Status.UNKNOWN, why, mend=mend)


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a number is a warning, and a failure. ``least``: it must not be smaller, instead of not greater."""

    warn: float
    fail: float
    unit: str
    least: bool = False

    def status(self, value: float) -> Status:
        sign = -1.0 if self.least else 1.0
        if sign * value > sign * self.fail:
            return Status.FAIL
        return Status.WARN if sign * value > sign * self.warn else Status.PASS


def measured(id_: str, value: float, limits: Limits, detail: str, mend: str) -> Finding:
    """A number against its limits; the limit that is shown is the one that was passed, else the next one."""
    status = limits.status(value)
    limit = limits.fail if status is Status.FAIL else limits.warn
    return Finding(id_, status, detail, value, limit, limits.unit, None if status is Status.PASS else mend)


def worst(findings: Iterable[Finding]) -> Status:
    """The most severe status of all; PASS for none."""
    found = {finding.status for finding in findings}
    return next((status for status in SEVERITY if status in found), Status.PASS)


def as_json(finding: Finding) -> JsonObject:
    return {
        "id": finding.id,
        "status": finding.status.value,
        "value": _plain(finding.value),
        "limit": _plain(finding.limit),
        "unit": finding.unit,
        "detail": finding.detail,
        "mend": finding.mend,
        "took_s": round(finding.took_s, 3),
    }


def _plain(value: Value) -> Value:
    """A number as JSON can carry it."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value
