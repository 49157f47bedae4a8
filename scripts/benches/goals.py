"""What was promised and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    part: str
    """Of the script that measured it."""
    what: str
    value: float
    unit: str
    """``x`` for a ratio."""
    limit: float | None
    """None: told beside the others, nothing is promised."""
    detail: str
    """The figures behind the value."""

    @property
    def met(self) -> bool | None:
        return None if self.limit is None else self.value <= self.limit

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def table(goals: Sequence[Goal]) -> Iterator[str]:
    """A heading per part, a line per goal, and what lies behind it under it."""
    yield f"{'':<72} {'measured':>10} {'limit':>9}  met"
    part = ""
    for goal in goals:
        if goal.part != part:
            part = goal.part
            yield f"-- {part}"
        met = {True: "yes", False: "NO", None: ""}[goal.met]
        yield f"{goal.what:<72} {_shown(goal.value, goal.unit):>10} {_limit(goal):>9}  {met}"
        if goal.detail:
            yield f"    {goal.detail}"
    judged = [goal for goal in goals if goal.limit is not None]
    missed = [goal.what for goal in judged if not goal.met]
    yield f"{len(judged) - len(missed)} of {len(judged)} met" + (f"; not met: {'; '.join(missed)}" if missed else "")


def _limit(goal: Goal) -> str:
    return "" if goal.limit is None else _shown(goal.limit, goal.unit)


def _shown(value: float, unit: str) -> str:
    digits = 3 if unit == "s" else 2 if unit == "x" else 1
    return f"{value:.{digits}f} {unit}"
