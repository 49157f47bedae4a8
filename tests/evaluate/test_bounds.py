"""Clopper-Pearson against published values, against exact sums, and against what a bound promises."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.evaluate.bounds import at_most, errors_allowed, interval, rate_of, trials_needed, upper_bound


@pytest.mark.parametrize(
    ("errors", "trials", "low", "high"),
    [
        (0, 20, 0.0, 0.16843),
        (1, 20, 0.00127, 0.24873),
        (5, 20, 0.08657, 0.49105),
        (20, 20, 0.83157, 1.0),
        (3, 100, 0.00623, 0.08518),
        (10, 1000, 0.00481, 0.01831),
        (0, 1, 0.0, 0.975),
        (1, 2, 0.01258, 0.98742),
        (0, 0, 0.0, 1.0),
        (500_000, 1_000_000, 0.499020, 0.500980),
    ],
)
def test_the_two_sided_interval_is_the_published_one(errors: int, trials: int, low: float, high: float) -> None:
    assert interval(errors, trials) == pytest.approx((low, high), abs=6e-6)


@pytest.mark.parametrize("trials", [1, 7, 40, 200])
@pytest.mark.parametrize("p", [Fraction(1, 1000), Fraction(1, 7), Fraction(1, 2), Fraction(99, 100)])
def test_the_binomial_distribution_is_that_of_the_exact_sum(trials: int, p: Fraction) -> None:
    exact = Fraction(0)
    for errors in range(trials + 1):
        exact += comb(trials, errors) * p**errors * (1 - p) ** (trials - errors)
        assert at_most(errors, trials, float(p)) == pytest.approx(float(exact), rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 200_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_so_few_errors_or_fewer_have_the_promised_probability_at_the_bound(case: tuple[int, int]) -> None:
    errors, trials = case
    low, high = interval(errors, trials)
    assert 0.0 <= low <= errors / trials <= high <= 1.0
    assert low <= high
    if errors < trials:
        assert at_most(errors, trials, high) == pytest.approx(0.025, rel=1e-6)
        assert at_most(errors, trials, upper_bound(errors, trials)) == pytest.approx(0.05, rel=1e-6)
    if errors:
        assert 1.0 - at_most(errors - 1, trials, low) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(("bound", "needed"), [(1e-4, 29956), (1e-3, 2995), (0.01, 299), (0.05, 59)])
def test_one_trial_less_than_needed_does_not_show_the_bound(bound: float, needed: int) -> None:
    assert trials_needed(bound) == needed
    assert upper_bound(0, needed) <= bound < upper_bound(0, needed - 1)


@pytest.mark.parametrize("trials", [29_955, 29_956, 47_436, 47_437, 1_000_000])
def test_as_many_errors_are_allowed_as_still_show_the_bound(trials: int) -> None:
    allowed = errors_allowed(trials, 1e-4)
    if allowed is None:
        assert upper_bound(0, trials) > 1e-4
    else:
        assert upper_bound(allowed, trials) <= 1e-4 < upper_bound(allowed + 1, trials)
    assert allowed == {29_955: None, 29_956: 0, 47_436: 0, 47_437: 1, 1_000_000: 83}[trials]


def test_without_trials_nothing_is_known_and_impossible_counts_are_refused() -> None:
    assert rate_of(0, 0).rate is None
    for errors, trials in ((-1, 5), (6, 5), (1, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            interval(errors, trials)
