"""Claiming costs the same whatever else waits: counted in instructions of SQLite's machine, not in time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from edge_agent.outbox import Store
from edge_agent.types import State
from tests.outbox.fakes import ENVIRONMENT, FakeClock, capture, finish, lease, pending, upload

FEW, MANY = 4, 60


def back_off(store: Store, user: str) -> None:
    record = pending(store, user)
    store.release(record.id, lease(store).lease, next_attempt_in_s=3600, code="network")


def quarantine(store: Store, user: str) -> None:
    """Parked after a PUT without an answer: the user's next capture has to wait."""
    first = pending(store, user)
    pending(store, user)
    leased = lease(store)
    upload(store, leased)
    store.park(first.id, leased.lease, code="x")


def queue_a_user(store: Store, user: str) -> None:
    pending(store, user)


def queue_the_same_user(store: Store, user: str) -> None:
    del user
    pending(store, "always the same")


def steps_of_a_claim(store: Store) -> int:
    """SQLite's instructions of one lease_next that finds something; what it found is finished then."""
    pending(store, "the last in line")
    count = itertools.count()
    connection = store._database._connection
    connection.set_progress_handler(lambda: next(count) and 0, 1)
    leased = lease(store)
    connection.set_progress_handler(None, 1)
    steps = next(count)
    finish(store, leased)
    return steps


@pytest.mark.parametrize("fill", [back_off, quarantine, queue_a_user, queue_the_same_user])
def test_a_claim_costs_the_same_with_many_waiting(store: Store, fill: Callable[[Store, str], None]) -> None:
    numbers = itertools.count()
    for _ in range(FEW):
        fill(store, f"user-{next(numbers)}")
    few = steps_of_a_claim(store)
    for _ in range(MANY):
        fill(store, f"user-{next(numbers)}")
    assert steps_of_a_claim(store) <= few * 1.1


def test_what_waited_stands_in_line_by_its_age_again(store: Store, clock: FakeClock) -> None:
    old = pending(store, "a")
    store.release(old.id, lease(store).lease, next_attempt_in_s=30, code="network")
    young = pending(store, "b")
    clock.advance(30)
    assert [lease(store).record.id, lease(store).record.id] == [old.id, young.id]


def test_a_quarantine_is_part_of_the_time_until_something_can_be_done(store: Store, clock: FakeClock) -> None:
    quarantine(store, "a")
    clock.advance(10)
    assert store.next_ready_in_s(ENVIRONMENT) == pytest.approx(store.limits.upload_quarantine_s - 10)
    assert store.lease_next(ENVIRONMENT, lease_s=600) is None
    clock.advance(store.limits.upload_quarantine_s - 10)
    assert store.next_ready_in_s(ENVIRONMENT) == 0
    assert lease(store).record.state is State.PENDING


def test_a_verdict_leaves_the_next_capture_of_its_user_free(store: Store) -> None:
    pending(store, "a")
    second = pending(store, "a")
    finish(store, lease(store))
    assert store.next_ready_in_s(ENVIRONMENT) == 0
    assert lease(store).record.id == second.id


def test_a_live_capture_needs_no_second_claim_to_stand_in_line(store: Store) -> None:
    back_off(store, "a")
    live = capture(store, "a")
    assert lease(store).record.id == live.id
