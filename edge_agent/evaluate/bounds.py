"""What a count of errors says about a rate: exact binomial (Clopper-Pearson) confidence bounds.

Two kinds, and they must not be mixed up:

- ``interval``: two-sided, for tables. 0 of 20 at 95 % reaches up to 16.8 % (each side may err with 2.5 %).
- ``upper_bound``: one-sided, for a claim "the rate is at most so much". 0 of 29 956 at 95 % is 1e-4 (the rule of
  three: 3 / trials).

Both take the trials for independent. Pairs of faces that share a person are not; whoever prints a bound says so.
Formulas: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934); NIST DLMF 8.17 for the incomplete beta function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp, expm1, lgamma, log, log1p
from typing import Final

CONFIDENCE: Final = 0.95
_TINY: Final = 1e-300
_EPSILON: Final = 1e-15
_MAX_TERMS: Final = 100_000
"""A continued fraction of a million trials takes about a thousand."""
_HALVINGS: Final = 200


@dataclass(frozen=True, slots=True)
class Rate:
    """Errors among trials, with the two-sided 95 % interval. Without trials nothing is known: 0 to 1, no rate."""

    errors: int
    trials: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        return self.errors / self.trials if self.trials else None


def rate_of(errors: int, trials: int, confidence: float = CONFIDENCE) -> Rate:
    """The rate with its interval."""
    low, high = interval(errors, trials, confidence)
    return Rate(errors, trials, low, high)


def interval(errors: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval, 0-1. Raises ValueError for counts that cannot be."""
    tail = (1.0 - confidence) / 2.0
    return _lower(errors, trials, tail), _upper(errors, trials, tail)


def upper_bound(errors: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound, 0-1. Raises ValueError for counts that cannot be."""
    return _upper(errors, trials, 1.0 - confidence)


def trials_needed(bound: float, confidence: float = CONFIDENCE) -> int:
    """How many trials without any error show, one-sided, that the rate is at most ``bound`` (0 < bound < 1)."""
    return ceil(log(1.0 - confidence) / log1p(-bound))


def errors_allowed(trials: int, bound: float, confidence: float = CONFIDENCE) -> int | None:
    """The most errors among ``trials`` with which ``upper_bound`` is at most ``bound``; None where even 0 are too many."""
    if trials < trials_needed(bound, confidence):
        return None
    fits, fails = 0, ceil(bound * trials) + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if upper_bound(middle, trials, confidence) <= bound:
            fits = middle
        else:
            fails = middle
    return fits


def _upper(errors: int, trials: int, tail: float) -> float:
    """The p at which so few errors have the probability ``tail``."""
    _check(errors, trials)
    if errors == trials:  # no trials included
        return 1.0
    if errors == 0:
        return -expm1(log(tail) / trials)
    return _falling(lambda p: at_most(errors, trials, p) - tail, errors / trials, 1.0)


def _lower(errors: int, trials: int, tail: float) -> float:
    """The p at which so many errors have the probability ``tail``: the upper bound of the successes, mirrored."""
    _check(errors, trials)
    if errors == 0:
        return 0.0
    if errors == trials:
        return exp(log(tail) / trials)
    return _falling(lambda p: tail - (1.0 - at_most(errors - 1, trials, p)), 0.0, errors / trials)


def _check(errors: int, trials: int) -> None:
    if not 0 <= errors <= trials:
        raise ValueError(f"{errors} errors of {trials} trials cannot be")


def _falling(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, by bisection down to neighbouring numbers."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if middle in {low, high} or high - low <= _EPSILON * high:
            break
        if function(middle) > 0.0:
            low = middle
        else:
            high = middle
    return high


def at_most(errors: int, trials: int, p: float) -> float:
    """Probability of at most ``errors`` errors among ``trials``, each with probability ``p``: I(1-p; n-k, k+1)."""
    if errors >= trials:
        return 1.0
    return incomplete_beta(trials - errors, errors + 1, 1.0 - p, p)


def incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """Regularised I(x; a, b). ``complement`` is 1 - x, given apart because it may be tiny."""
    if x <= 0.0 or complement <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * _log(x, complement) + b * _log(complement, x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, complement) / b


def _log(x: float, complement: float) -> float:
    """log(x), without loss where x is nearly 1."""
    return log1p(-complement) if complement < 0.5 else log(x)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22, evaluated forwards by the modified Lentz method."""
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _nonzero(1.0 + term * d)
            c = _nonzero(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _EPSILON:
            return value
    raise ArithmeticError(f"the incomplete beta function of {a}, {b}, {x} does not converge")


def _nonzero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
