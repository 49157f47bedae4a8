"""When to try again: bounded, jittered, obedient."""

from __future__ import annotations

import math
import random

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import (
    CaptureRefused,
    CypherFaceError,
    SequenceConflict,
    ServiceMisconfigured,
    Transient,
    Unauthenticated,
)
from edge_agent.retry import DEFAULT_POLICY, Backoff, Park, Retry, RetryPolicy, Stop, decide

# No deadline: the suite also runs on emulated machines.
unhurried = hypothesis.settings(deadline=None)
seeds = st.integers(0, 2**32)
attempts_made = st.integers(1, 10**9)


@pytest.mark.parametrize(
    ("error", "attempts", "decision"),
    [
        (CaptureRefused("x", code="unknown_user"), 1, Park("unknown_user")),
        (Unauthenticated("x"), 1, Stop("unauthenticated")),
        (ServiceMisconfigured("x"), 7, Stop("service_misconfigured")),
        (CypherFaceError("x"), 1, Stop("cypherface_error")),
        (SequenceConflict("x", code="out_of_order"), 5, Park("out_of_order")),
        (SequenceConflict("x"), 50, Park("indeterminate")),
    ],
)
def test_permanent_errors_park_one_capture_or_stop_everything(
    error: CypherFaceError, attempts: int, decision: object
) -> None:
    assert decide(error, attempts, rng=random.Random(1)) == decision


@unhurried
@given(attempts_made, seeds)
def test_the_network_is_tried_for_ever_within_the_cap(attempts: int, seed: int) -> None:
    decision = decide(Transient("x"), attempts, rng=random.Random(seed))
    assert isinstance(decision, Retry)
    assert 0 < decision.after_s <= DEFAULT_POLICY.transient.cap_s


@unhurried
@given(st.integers(1, 20), seeds)
def test_a_conflict_is_retried_a_bounded_number_of_times(attempts: int, seed: int) -> None:
    decision = decide(SequenceConflict("x"), attempts, rng=random.Random(seed))
    assert isinstance(decision, Retry) == (attempts < DEFAULT_POLICY.max_conflicts)


@unhurried
@given(attempts_made, seeds, st.floats(0, 1e6), st.sampled_from([Transient, SequenceConflict]))
def test_retry_after_is_obeyed_up_to_its_cap(
    attempts: int, seed: int, wish_s: float, kind: type[CypherFaceError]
) -> None:
    policy = RetryPolicy(max_conflicts=10**10)
    decision = decide(kind("x", retry_after_s=wish_s), attempts, rng=random.Random(seed), policy=policy)
    assert isinstance(decision, Retry)
    assert decision.after_s >= min(wish_s, policy.max_retry_after_s)
    assert decision.after_s <= policy.max_retry_after_s + policy.transient.cap_s


@pytest.mark.parametrize("wish_s", [-5.0, -math.inf, math.inf])
def test_an_absurd_retry_after_still_gives_a_finite_wait(wish_s: float) -> None:
    decision = decide(Transient("x", retry_after_s=wish_s), 1, rng=random.Random(1))
    assert isinstance(decision, Retry)
    assert 0 < decision.after_s < 4000


@unhurried
@given(attempts_made, seeds)
def test_a_wait_lies_between_floor_and_ceiling_and_the_ceiling_never_falls(attempts: int, seed: int) -> None:
    backoff = Backoff(floor_s=0.5, base_s=2.0, cap_s=60.0)
    assert 0.5 <= backoff.wait_s(attempts, random.Random(seed)) <= backoff.ceiling_s(attempts)
    assert backoff.ceiling_s(attempts) <= backoff.ceiling_s(attempts + 1) <= 60.0


def test_the_jitter_is_full() -> None:
    rng = random.Random(7)
    waits = [DEFAULT_POLICY.transient.wait_s(20, rng) for _ in range(500)]
    assert min(waits) < 30
    assert max(waits) > 270


def test_a_decision_before_any_failure_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="cannot decide"):
        decide(Transient("x"), 0, rng=random.Random(1))
