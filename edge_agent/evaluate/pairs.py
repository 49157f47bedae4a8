"""Every pair of captures, counted by threshold: how many are at least as alike as that.

Scores are cosines, -1 to 1; a pair matches when its score is **at least** the threshold. Thresholds lie on a grid of
0.001, so counts are enough: a set of ten thousand captures (fifty million pairs) needs no more memory than one of ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

STEPS: Final = 1000
"""Grid points per 1.0."""
GRID: Final[NDArray[np.float64]] = np.arange(-STEPS, STEPS + 1) / STEPS
BLOCK: Final = 4096
"""Columns that are compared at once: some ten MB for a person with a thousand captures."""

Scores = NDArray[np.float32]


class Counts:
    """How many scores reach each threshold of the grid."""

    def __init__(self) -> None:
        self._bins = np.zeros(len(GRID), np.int64)

    def add(self, scores: Scores) -> None:
        """Count scores of any shape; rounding beyond -1 and 1 is cut off."""
        cut = np.clip(scores.ravel().astype(np.float64), -1.0, 1.0)
        self._bins += np.bincount(np.searchsorted(GRID, cut, side="right") - 1, minlength=len(GRID))

    @property
    def total(self) -> int:
        return int(self._bins.sum())

    @property
    def reaching(self) -> NDArray[np.int64]:
        """Per grid point, how many scores are at least it: never rising."""
        counts: NDArray[np.int64] = np.cumsum(self._bins[::-1])[::-1]
        return counts

    def at_least(self, threshold: float) -> int:
        return int(self.reaching[grid_index(threshold)])

    def below(self, threshold: float) -> int:
        return self.total - self.at_least(threshold)


def grid_index(threshold: float) -> int:
    """The nearest point of the grid. Raises ValueError outside -1 to 1."""
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(f"a cosine lies between -1 and 1, not at {threshold}")
    return round(threshold * STEPS) + STEPS


@dataclass(frozen=True, slots=True, eq=False)
class Comparisons:
    """All pairs of a set; and, since pairs of the same people are not independent, the worst pair per people."""

    genuine: Counts
    """Every two captures of one person."""
    impostor: Counts
    """Every two captures of two persons."""
    persons: Counts
    """Per person with two captures or more: the least alike two of them."""
    identity_pairs: Counts
    """Per two persons: the most alike capture of one and capture of the other."""


def compare(people: Sequence[NDArray[np.float32]]) -> Comparisons:
    """``people``: one (captures, dimensions) array of unit vectors per person."""
    result = Comparisons(Counts(), Counts(), Counts(), Counts())
    everyone = np.concatenate(people)
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in people])])
    for rows, end in zip(people, starts[1:], strict=True):
        own = (rows @ rows.T)[np.triu_indices(len(rows), k=1)]
        result.genuine.add(own)
        if own.size:
            result.persons.add(own.min(keepdims=True))
        for scores, firsts in _blocks(rows, everyone, starts[starts >= end]):
            result.impostor.add(scores)
            result.identity_pairs.add(np.maximum.reduceat(scores.max(axis=0), firsts))
    return result


def _blocks(rows: Scores, everyone: Scores, starts: NDArray[np.int64]) -> Iterator[tuple[Scores, NDArray[np.int64]]]:
    """The scores against whole persons, about BLOCK captures at a time, and where each person begins in them.

    ``starts``: where each later person's captures begin in ``everyone``, and the end.
    """
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK, side="right")) - 1)
        yield rows @ everyone[starts[first] : starts[last]].T, starts[first:last] - starts[first]
        first = last
