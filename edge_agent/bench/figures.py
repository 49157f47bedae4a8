"""Samples and what is said of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one kind of work, in milliseconds."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    worst_ms: float
    samples: int

    def __str__(self) -> str:
        return f"{self.median_ms:.3f} ms ({self.p10_ms:.3f}-{self.p90_ms:.3f}, worst {self.worst_ms:.1f})"


def spread(seconds: Sequence[float]) -> Spread:
    """The median, the first and last decile (nearest rank) and the worst. There must be a sample."""
    ordered = sorted(second * 1000.0 for second in seconds)
    last = len(ordered) - 1
    return Spread(
        statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], ordered[last], len(ordered)
    )


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that ``work`` took, and what it gave."""
    began_s = time.perf_counter()
    result = work()
    return time.perf_counter() - began_s, result


def break_even_ms(bare_ms: float, ours_ms: float, goal: float) -> float:
    """How long the bare work must take for ours to be within ``goal`` times it, when our extra stays what it is.

    Ours is the bare work and something more that does not depend on the disk: ``bare + extra <= goal * bare``.
    """
    return max(0.0, ours_ms - bare_ms) / (goal - 1.0)
