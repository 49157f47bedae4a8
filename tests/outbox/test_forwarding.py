"""Leases, order, uploads and verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import BootInstant, instant
from edge_agent.outbox.records import Leased, LeaseLost, StateConflict, approved
from edge_agent.types import State
from tests.outbox.fakes import (
    ENVIRONMENT,
    OTHER_ENVIRONMENT,
    FakeClock,
    capture,
    finish,
    lease,
    pending,
    picture,
    reopen,
    search,
    upload,
    verdict,
)

pytestmark = pytest.mark.arm


def next_id(store: Store, **options: object) -> str | None:
    leased = store.lease_next(ENVIRONMENT, lease_s=600, **options)  # type: ignore[arg-type]
    return leased.record.id if leased else None


# -- order


def test_the_backlog_goes_oldest_first_and_the_live_capture_before_it(store: Store) -> None:
    first, second, live = pending(store, "a"), pending(store, "b"), capture(store, "c")
    assert [next_id(store) for _ in range(4)] == [live.id, first.id, second.id, None]


def test_a_user_has_one_lease_at_a_time(store: Store) -> None:
    first, second = pending(store, "a"), pending(store, "a")
    leased = lease(store)
    assert leased.record.id == first.id
    assert next_id(store) is None
    assert store.lease_one(second.id, lease_s=600) is None
    finish(store, leased)
    assert next_id(store) == second.id


def test_the_database_itself_refuses_a_second_lease_of_a_user(store: Store) -> None:
    pending(store, "a")
    other = pending(store, "a")
    lease(store)
    with pytest.raises(StorageError, match="UNIQUE"), store._database.transaction():
        store._database.execute("UPDATE verifications SET lease_token = 'x' WHERE id = :id", id=other.id)


def test_the_live_capture_of_a_user_goes_before_its_own_backlog(store: Store) -> None:
    pending(store, "a")
    live = capture(store, "a")
    assert next_id(store) == live.id


def test_a_backlog_waits_while_its_user_stands_before_the_camera(store: Store) -> None:
    old = pending(store, "a")
    session = search(store, "a")
    assert next_id(store) is None
    store.cancel(session.id)
    assert next_id(store) == old.id


def test_a_capture_goes_only_to_the_environment_it_was_made_for(store: Store) -> None:
    record = pending(store, "a", environment=OTHER_ENVIRONMENT)
    assert next_id(store) is None
    leased = store.lease_next(OTHER_ENVIRONMENT, lease_s=600)
    assert leased is not None and leased.record.id == record.id


def test_excluded_users_are_passed_over(store: Store) -> None:
    first, second = pending(store, "a"), pending(store, "b")
    assert next_id(store, exclude_users={first.user_hmac}) == second.id


def test_back_off_holds_the_user_and_nobody_else(store: Store, clock: FakeClock) -> None:
    first, younger, other = pending(store, "a"), pending(store, "a"), pending(store, "b")
    leased = lease(store)
    released = store.release(
        first.id, leased.lease, next_attempt_in_s=30, code="network", detail="no route", status=503
    )
    assert (released.state, released.attempts, released.error_code) == (State.PENDING, 1, "network")
    assert (released.error_detail, released.error_status, released.lease) == ("no route", 503, None)
    assert [next_id(store), next_id(store)] == [other.id, None]
    assert store.next_ready_in_s(ENVIRONMENT) == 0  # b is leased, but nothing holds it back in time
    clock.advance(30)
    assert next_id(store) == first.id
    assert store.get(younger.id).attempts == 0


def test_it_is_known_when_the_next_back_off_ends(store: Store, clock: FakeClock) -> None:
    assert store.next_ready_in_s(ENVIRONMENT) is None
    record = pending(store)
    leased = lease(store)
    store.release(record.id, leased.lease, next_attempt_in_s=30, code="network")
    clock.advance(10)
    assert store.next_ready_in_s(ENVIRONMENT) == pytest.approx(20)


def test_a_retry_by_hand_ends_the_back_off(store: Store) -> None:
    record = pending(store)
    store.release(record.id, lease(store).lease, next_attempt_in_s=3000, code="network")
    assert next_id(store) is None
    assert store.retry_now(ENVIRONMENT) == 1
    assert next_id(store) == record.id


def test_lease_one_takes_this_capture_back_off_or_not(store: Store) -> None:
    record = pending(store)
    store.release(record.id, lease(store).lease, next_attempt_in_s=3000, code="network")
    leased = store.lease_one(record.id, lease_s=60)
    assert leased is not None and leased.record.id == record.id
    assert store.lease_one(search(store, "b").id, lease_s=60) is None


# -- states


def test_a_live_capture_is_matching_while_leased_and_captured_when_released(store: Store) -> None:
    record = capture(store)
    leased = lease(store)
    assert leased.record.state is State.MATCHING
    assert store.release(record.id, leased.lease, next_attempt_in_s=0, code="network").state is State.CAPTURED


def test_the_deadline_turns_it_pending_and_the_lease_goes_on(store: Store) -> None:
    record = capture(store)
    leased = lease(store)
    assert store.pend(record.id).lease == leased.lease
    assert finish(store, leased).state is State.VERIFIED


@pytest.mark.parametrize(("positive", "state"), [(True, State.VERIFIED), (False, State.NOT_VERIFIED)])
def test_a_verdict_is_final_and_destroys_the_picture(store: Store, positive: bool, state: State) -> None:
    capture(store)
    leased = lease(store)
    record = finish(store, leased, positive=positive)
    assert (record.state, record.final, record.lease, record.image_bytes) == (state, True, None, 0)
    assert record.verdict is not None
    assert (record.verdict.positive, record.verdict.similarity) == (positive, 99.5)
    with pytest.raises(InputError):
        store.payload(record.id)
    assert store.queue().depth == 0


def test_a_parked_capture_keeps_its_picture_until_it_is_reopened(store: Store) -> None:
    record = pending(store)
    leased = lease(store)
    parked = store.park(record.id, leased.lease, code="unknown_user", detail="no such user", status=404)
    assert (parked.state, parked.parked, parked.final, parked.error_status) == (State.FAILED, True, True, 404)
    assert store.payload(record.id) == picture(record.id)
    assert (next_id(store), store.queue().parked, store.queue().depth) == (None, 1, 0)
    assert store.reopen(record.id, actor="uid:0").state is State.PENDING
    assert next_id(store) == record.id


def test_only_a_parked_capture_can_be_reopened(store: Store) -> None:
    with pytest.raises(StateConflict):
        store.reopen(store.fail(search(store).id, "camera_unavailable").id, actor="uid:0")


def test_a_capture_can_be_destroyed_on_purpose(store: Store) -> None:
    record = capture(store)
    leased = lease(store)
    destroyed = store.destroy(record.id, "offline")
    assert (destroyed.state, destroyed.error_code, destroyed.parked) == (State.FAILED, "offline", False)
    assert store.queue().payload_items == 0
    with pytest.raises(LeaseLost):
        store.release(record.id, leased.lease, next_attempt_in_s=0, code="network")


# -- losing the lease


def results(leased: Leased) -> dict[str, Callable[[Store], object]]:
    key, held = leased.record.id, leased.lease
    return {
        "verdict": lambda s: s.commit_verdict(key, held, verdict(leased, "image")),
        "release": lambda s: s.release(key, held, next_attempt_in_s=0, code="network"),
        "park": lambda s: s.park(key, held, code="unknown_user"),
        "renew": lambda s: s.renew(key, held, lease_s=60),
        "upload": lambda s: s.record_upload(key, held, "image-2"),
    }


def lose(what: str, store: Store, state_dir: Path, clock: FakeClock, key: str) -> Store:
    if what == "crash":
        return reopen(store, state_dir, clock)
    if what == "withdrawal":
        store.withdraw(key)
    if what == "deleted user":
        store.delete_user("alice")
    if what in {"time", "another lease"}:
        clock.advance(601)
    if what == "another lease":
        store.lease_one(key, lease_s=60)
    return store


@pytest.mark.parametrize("loss", ["crash", "withdrawal", "deleted user", "time", "another lease"])
@pytest.mark.parametrize("result", ["verdict", "release", "park", "renew", "upload"])
def test_a_result_under_a_lost_lease_changes_nothing(
    store: Store, state_dir: Path, clock: FakeClock, loss: str, result: str
) -> None:
    record = pending(store)
    leased = lease(store)
    upload(store, leased, "image")
    store = lose(loss, store, state_dir, clock, record.id)
    before = store.get(record.id)
    with pytest.raises(LeaseLost):
        results(leased)[result](store)
    assert store.get(record.id) == before
    assert store.verify().ok
    store.close()


def test_an_expired_lease_is_taken_over(store: Store, clock: FakeClock) -> None:
    record = capture(store)
    lease(store, lease_s=10)
    clock.advance(11)
    leased = lease(store)
    assert (leased.record.id, leased.record.attempts) == (record.id, 2)


def test_a_renewed_lease_lives_on(store: Store, clock: FakeClock) -> None:
    record = pending(store)
    leased = lease(store, lease_s=10)
    clock.advance(9)
    renewed = store.renew(record.id, leased.lease, lease_s=10)
    clock.advance(9)
    assert next_id(store) is None
    assert finish(store, Leased(leased.record, renewed)).state is State.VERIFIED


# -- the evidence


@pytest.mark.parametrize("what", ["never announced", "another picture", "announced under an earlier lease"])
def test_a_verdict_about_another_picture_is_never_believed(store: Store, what: str) -> None:
    record = pending(store)
    leased = lease(store)
    if what == "announced under an earlier lease":
        upload(store, leased, "image")
        store.release(record.id, leased.lease, next_attempt_in_s=0, code="network")
        leased = lease(store)
    if what == "another picture":
        upload(store, leased, "image")
    answer = verdict(leased, "image")
    if what == "another picture":
        answer = type(answer)(True, 200, "image", "0" * 64)
    with pytest.raises(StorageError) as caught:
        store.commit_verdict(record.id, leased.lease, answer)
    assert caught.value.code == "evidence_mismatch"
    assert store.get(record.id).state is State.PENDING


# -- quarantine


def start_unknown_put(store: Store, first_user: str = "a") -> tuple[str, str]:
    """Two captures of a user; a PUT of the first ended without an answer. Returns their ids."""
    first, second = pending(store, first_user), pending(store, first_user)
    leased = lease(store)
    upload(store, leased)
    store.park(first.id, leased.lease, code="capture_refused")
    return first.id, second.id


def test_after_a_put_of_unknown_outcome_no_other_capture_of_the_user_goes_for_60_s(
    store: Store, clock: FakeClock
) -> None:
    _, second = start_unknown_put(store)
    other = pending(store, "b")
    assert [next_id(store), next_id(store)] == [other.id, None]
    assert store.lease_one(second, lease_s=60) is None
    clock.advance(59)
    assert next_id(store) is None
    clock.advance(2)
    assert next_id(store) == second


def test_the_same_capture_may_go_again_at_once(store: Store) -> None:
    first, _ = start_unknown_put(store)
    store.reopen(first, actor="uid:0")
    assert next_id(store) == first


def test_a_put_whose_outcome_is_known_holds_nobody(store: Store) -> None:
    first, second = pending(store), pending(store)
    leased = lease(store)
    upload(store, leased)
    store.park(first.id, leased.lease, code="capture_refused", upload_settled=True)
    assert next_id(store) == second.id


def test_a_crash_during_a_put_begins_the_quarantine_anew(store: Store, state_dir: Path, clock: FakeClock) -> None:
    first, second = pending(store), pending(store)
    upload(store, lease(store, lease_s=100))
    clock.reboot(off_s=30)
    store = reopen(store, state_dir, clock)
    store.park(first.id, lease(store).lease, code="capture_refused")
    clock.advance(59)
    assert next_id(store) is None
    clock.advance(2)
    assert next_id(store) == second.id
    store.close()


def test_an_earlier_unknown_put_still_counts_after_a_later_good_one(store: Store, clock: FakeClock) -> None:
    first, second = pending(store), pending(store)
    leased = lease(store)
    upload(store, leased)
    store.release(first.id, leased.lease, next_attempt_in_s=0, code="network")
    finish(store, lease(store))
    assert next_id(store) is None  # the first PUT may land over the picture of the second capture
    clock.advance(61)
    assert next_id(store) == second.id


def test_a_second_put_under_one_lease_leaves_the_first_in_quarantine(store: Store, clock: FakeClock) -> None:
    pending(store)
    second = pending(store)
    leased = lease(store)
    upload(store, leased)
    finish(store, leased)
    assert next_id(store) is None
    clock.advance(61)
    assert next_id(store) == second.id


def test_the_quarantine_outlives_the_deletion_of_the_user(store: Store, clock: FakeClock) -> None:
    pending(store, "a")
    upload(store, lease(store, lease_s=60))
    store.delete_user("a")
    again = pending(store, "a")
    assert next_id(store) is None
    clock.advance(121)
    assert next_id(store) == again.id


# -- late, approved


@pytest.mark.parametrize(("after_s", "late"), [(14.9, False), (15.1, True)])
def test_a_verdict_after_the_deadline_is_late(store: Store, clock: FakeClock, after_s: float, late: bool) -> None:
    capture(store)
    leased = lease(store)
    name = upload(store, leased)
    clock.advance(after_s)
    record = store.commit_verdict(leased.record.id, leased.lease, verdict(leased, name))
    assert record.late is late
    assert approved(record, instant(clock), 120) is not late


def test_a_verdict_in_another_boot_is_late(store: Store, state_dir: Path, clock: FakeClock) -> None:
    capture(store)
    clock.reboot()
    store = reopen(store, state_dir, clock)
    record = finish(store, lease(store))
    assert record.late
    assert not approved(record, instant(clock), 120)
    store.close()


def test_approval_ends_with_its_time_the_boot_or_the_erasure(store: Store, clock: FakeClock) -> None:
    capture(store)
    record = finish(store, lease(store))
    now = instant(clock)
    assert approved(record, now, 120)
    assert approved(record, BootInstant(now.boot_id, now.boottime_s + 119), 120)
    assert not approved(record, BootInstant(now.boot_id, now.boottime_s + 120), 120)
    assert not approved(record, BootInstant(now.boot_id, now.boottime_s - 1), 120)
    assert not approved(record, BootInstant("another", now.boottime_s), 120)
    assert not approved(store.withdraw(record.id), now, 120)


def test_nothing_but_verified_is_ever_approved(store: Store, clock: FakeClock) -> None:
    records = [search(store, "a"), pending(store, "b"), store.cancel(search(store, "c").id)]
    records.append(finish(store, lease(store), positive=False))
    assert not any(approved(record, instant(clock), 120) for record in records)
