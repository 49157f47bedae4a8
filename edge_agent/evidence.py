"""What somebody who names a face threshold must be able to show: how often it takes two people for one. Pure.

A false match rate is measured on impostor pairs. Even with no false match among n of them, its upper 95 % bound is
``1 - 0.05 ** (1 / n)``, about 3 / n (the "rule of three"; the exact bound of Clopper and Pearson for 0 of n).
"""

from __future__ import annotations

import math

MAX_FMR = 1e-4
"""The largest upper 95 % bound of the false match rate with which an answer without CypherFace may be given."""
_ALPHA = 0.05


def least_bound(impostor_pairs: int) -> float:
    """The upper 95 % bound (0-1) of a rate after not one event among so many independent trials (>= 1)."""
    return -math.expm1(math.log(_ALPHA) / impostor_pairs)


def pairs_needed(bound: float = MAX_FMR) -> int:
    """So many impostor pairs without one false match are the fewest that show ``bound`` (0-1)."""
    return math.ceil(math.log(_ALPHA) / math.log1p(-bound))


def claim_problem(impostor_pairs: int, fmr_upper_95: float) -> str | None:
    """Why a claim cannot be true, or is not enough; None when it is both possible and enough."""
    if fmr_upper_95 < 0.99 * least_bound(impostor_pairs):
        return f"{impostor_pairs} impostor pairs cannot show a false match rate below {least_bound(impostor_pairs):.1e}"
    if fmr_upper_95 > MAX_FMR:
        return (
            f"the false match rate may be as high as {fmr_upper_95:g}, the bound must be {MAX_FMR:g} or less "
            f"({pairs_needed()} impostor pairs or more)"
        )
    return None
