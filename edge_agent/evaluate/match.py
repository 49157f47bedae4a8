"""The figures of ``evaluate match``: FMR and FNMR by threshold, and what they are worth as evidence.

FMR is the share of impostor pairs that match, FNMR that of genuine pairs that do not (ISO/IEC 19795-1; all pairs, no
failures to acquire: what the gate refuses is not compared). Offline templates need evidence of FMR <= 1e-4 at 95 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Final

import numpy as np

from edge_agent.evaluate.bounds import Rate, errors_allowed, rate_of, trials_needed, upper_bound
from edge_agent.evaluate.pairs import GRID, STEPS, Comparisons, Counts, grid_index
from edge_agent.types import JsonObject

GOAL: Final = 1e-4
"""The false match rate that offline templates need evidence of."""
TABLE_STEP: Final = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """One threshold; the four rates with their two-sided 95 % intervals."""

    threshold: float
    fmr: Rate
    """Of impostor pairs."""
    confused_identity_pairs: Rate
    """Pairs of persons of whom any two captures match, among all such pairs."""
    fnmr: Rate
    """Of genuine pairs."""
    refused_identities: Rate
    """Persons of whom any two captures do not match, among those with two or more."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the set shows about one threshold, in the words of the configuration. Bounds are one-sided, 95 %."""

    threshold: float
    given: bool
    """True when the operator named the threshold; else it was chosen by ``proposed_threshold``."""
    impostor_pairs: int
    false_matches: int
    fmr_bound: float
    """Were all pairs independent."""
    identity_pairs: int
    identity_pairs_bound: float
    """Were only pairs of persons independent: each of them one trial."""

    @property
    def sufficient(self) -> bool:
        """The pairs show FMR <= GOAL."""
        return self.fmr_bound <= GOAL


@dataclass(frozen=True, slots=True)
class MatchReport:
    """Everything that ``evaluate match`` says, but of the files."""

    comparisons: Comparisons
    identities: int
    rows: tuple[Row, ...]
    """Rising thresholds, every 0.01 from where the first impostor pair is told apart to where no genuine pair is left."""
    evidence: Evidence
    at_evidence: Row

    @property
    def pairs_needed(self) -> int:
        """Impostor pairs, without one false match, that show FMR <= GOAL."""
        return trials_needed(GOAL)

    @property
    def identities_needed(self) -> int:
        """So many persons have that many pairs with one capture each."""
        return ceil((1 + sqrt(1 + 8 * self.pairs_needed)) / 2)


def report(comparisons: Comparisons, identities: int, threshold: float | None = None) -> MatchReport:
    """``threshold``: the one to look for evidence of, rounded to 0.001; None = propose one."""
    given = threshold is not None
    index = grid_index(threshold) if threshold is not None else _proposed_index(comparisons.impostor)
    rows = tuple(_row(comparisons, point) for point in _table(comparisons))
    evidence = _evidence(comparisons, float(GRID[index]), given=given)
    return MatchReport(comparisons, identities, rows, evidence, _row(comparisons, evidence.threshold))


def proposed_threshold(impostor: Counts) -> float:
    """The lowest threshold that lets no more than r impostor pairs match.

    r is the most errors with which so many pairs show FMR <= GOAL, and 0 where even that is too many. Because r
    follows from the number of pairs alone, the bound for r errors holds although the threshold is chosen on the very
    scores: it is a distribution-free tolerance limit (S. S. Wilks, 1941).
    """
    return float(GRID[_proposed_index(impostor)])


def _proposed_index(impostor: Counts) -> int:
    allowed = _allowed(impostor.total)
    reaching = impostor.reaching
    # never rising: the first point with so few; where even 1.0 is reached by more, 1.0 it is
    return min(int(np.searchsorted(-reaching, -allowed, side="left")), len(GRID) - 1)


def _allowed(pairs: int) -> int:
    return errors_allowed(pairs, GOAL) or 0


def _evidence(comparisons: Comparisons, threshold: float, *, given: bool) -> Evidence:
    """A proposed threshold is bounded with the r it was chosen with, though fewer may match on the grid."""
    impostor, identity_pairs = comparisons.impostor, comparisons.identity_pairs
    matches = impostor.at_least(threshold)
    errors = matches if given else max(matches, _allowed(impostor.total))
    return Evidence(
        threshold=threshold,
        given=given,
        impostor_pairs=impostor.total,
        false_matches=matches,
        fmr_bound=upper_bound(errors, impostor.total),
        identity_pairs=identity_pairs.total,
        identity_pairs_bound=upper_bound(identity_pairs.at_least(threshold), identity_pairs.total),
    )


def _row(c: Comparisons, threshold: float) -> Row:
    return Row(
        threshold=threshold,
        fmr=rate_of(c.impostor.at_least(threshold), c.impostor.total),
        confused_identity_pairs=rate_of(c.identity_pairs.at_least(threshold), c.identity_pairs.total),
        fnmr=rate_of(c.genuine.below(threshold), c.genuine.total),
        refused_identities=rate_of(c.persons.below(threshold), c.persons.total),
    )


def _table(comparisons: Comparisons) -> list[float]:
    """Every 0.01 where anything changes: from the least alike impostor pair to the most alike genuine one."""
    scores = comparisons.impostor.reaching + comparisons.genuine.reaching
    changing = np.flatnonzero((scores < scores[0]) & (scores > 0))
    step = round(TABLE_STEP * STEPS)
    if not changing.size:
        return []
    first, last = int(changing[0]) // step, -(-int(changing[-1]) // step)
    return [float(GRID[min(i * step, len(GRID) - 1)]) for i in range(first, last + 1)]


def rate_json(rate: Rate) -> JsonObject:
    """``errors``, ``trials``, ``rate`` (null without trials), ``low`` and ``high``."""
    return {"errors": rate.errors, "trials": rate.trials, "rate": rate.rate, "low": rate.low, "high": rate.high}


def report_json(found: MatchReport) -> JsonObject:
    """The contract of ``evaluate match --json``, but for what the files and the models are."""
    return {
        "identities": found.identities,
        "genuine_pairs": found.comparisons.genuine.total,
        "impostor_pairs": found.comparisons.impostor.total,
        "thresholds": [row_json(row) for row in found.rows],
        "evidence": {
            **asdict(found.evidence),
            "sufficient": found.evidence.sufficient,
            "goal": GOAL,
            "pairs_needed": found.pairs_needed,
            "identities_needed": found.identities_needed,
            "at_threshold": row_json(found.at_evidence),
        },
    }


def row_json(row: Row) -> JsonObject:
    return {
        "threshold": round(row.threshold, 3),
        "fmr": rate_json(row.fmr),
        "confused_identity_pairs": rate_json(row.confused_identity_pairs),
        "fnmr": rate_json(row.fnmr),
        "refused_identities": rate_json(row.refused_identities),
    }
