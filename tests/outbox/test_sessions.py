"""From the request to the durable capture."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.records import Consent, Limits, StateConflict, VerificationRecord
from edge_agent.outbox.rows import private_details
from edge_agent.types import State
from tests.outbox.fakes import (
    ENVIRONMENT,
    FakeClock,
    capture,
    crash,
    lease,
    open_store,
    pending,
    picture,
    reopen,
    request,
    search,
)

pytestmark = pytest.mark.arm


def test_what_was_asked_is_what_is_read_back(store: Store, clock: FakeClock) -> None:
    consent = Consent("form-7", ("verification", "template"))
    new = request("bob", reference="order 1", amount=Decimal("12.50"), currency="EUR", consent=consent)
    record, replayed = store.create(new)
    assert not replayed
    assert record == store.get(record.id)
    assert (record.user_id, record.reference, record.amount) == ("bob", "order 1", Decimal("12.50"))
    assert (record.currency, record.consent, record.environment) == ("EUR", consent, ENVIRONMENT)
    assert (record.state, record.created_at, record.clock_synchronised) == (State.SEARCHING, clock.wall(), True)


@pytest.mark.parametrize(
    "details", [{}, {"reference": "order 1", "amount": Decimal("12.50"), "consent": Consent("c", ("match",))}]
)
def test_what_a_capture_rests_on_is_kept_with_what_was_asked_until_it_is_erased(
    store: Store, state_dir: Path, clock: FakeClock, details: dict[str, Any]
) -> None:
    record = search(store, "bob", **details)
    passed = store.commit_capture(record.id, picture(), quality_score=0.8, liveness_score=0.9, challenge="head_turn")
    assert (passed.challenge, search(store, "eve").challenge) == ("head_turn", None)
    with reopen(store, state_dir, clock) as again:
        kept = again.get(record.id)
        asked = {name: getattr(kept, name) for name in details}
        assert (kept.challenge, asked, again.verify().ok) == ("head_turn", details, True)
        (found,) = [e for e in again.describe(record.id).history if e.event == "capture"]
        assert found.detail["challenge"] == "head_turn"
        assert again.withdraw(record.id, actor="uid:1000").challenge is None


def test_a_record_can_be_printed_without_naming_the_user(store: Store) -> None:
    new = request("bob-the-builder", reference="order 1")
    assert "bob-the-builder" not in f"{new!r} {store.create(new)[0]!r}"


def test_the_same_key_and_body_give_the_same_verification(store: Store, clock: FakeClock) -> None:
    new = request(idempotency_key="k")
    first, _ = store.create(new)
    clock.advance(100)
    again, replayed = store.create(new)
    assert (again.id, replayed, again.age_s) == (first.id, True, 100.0)
    assert store.counts()[State.SEARCHING] == 1


def test_a_replay_can_be_looked_up_without_beginning_anything(store: Store) -> None:
    new = request(idempotency_key="k")
    assert store.find_replay(new) is None
    record, _ = store.create(new)
    assert store.find_replay(new) == record
    assert store.counts()[State.SEARCHING] == 1


def test_another_body_under_the_same_key_is_a_mismatch(store: Store) -> None:
    store.create(request(idempotency_key="k"))
    with pytest.raises(InputError) as caught:
        store.create(request(idempotency_key="k", body=b"another"))
    assert caught.value.code == "idempotency_mismatch"


def test_keys_of_different_callers_do_not_meet(store: Store) -> None:
    first, _ = store.create(request(idempotency_key="k", caller="a"))
    second, replayed = store.create(request(idempotency_key="k", caller="b"))
    assert not replayed
    assert first.id != second.id


@pytest.mark.parametrize(("hours", "expired"), [(23.9, False), (24.1, True)])
def test_a_key_is_good_for_24_hours(store: Store, clock: FakeClock, hours: float, expired: bool) -> None:
    new = request(idempotency_key="k")
    store.create(new)
    clock.advance(hours * 3600)
    if not expired:
        assert store.create(new)[1]
        return
    with pytest.raises(InputError) as caught:
        store.create(new)
    assert caught.value.code == "idempotency_expired"


def test_a_key_outlives_the_deletion_of_its_user(store: Store, state_dir: Path, clock: FakeClock) -> None:
    new = request("bob", idempotency_key="k")
    record, _ = store.create(new)
    store.delete_user("bob")
    store = reopen(store, state_dir, clock)
    again, replayed = store.create(new)
    assert (again.id, again.state, again.user_id, replayed) == (record.id, State.DELETED, None, True)
    store.close()


def test_an_acknowledged_capture_is_there_after_a_crash(store: Store, state_dir: Path, clock: FakeClock) -> None:
    jpeg = picture("precious", 100_000)
    record = capture(store, jpeg=jpeg)
    fresh = reopen(store, state_dir, clock)
    assert fresh.payload(record.id) == jpeg
    assert fresh.get(record.id).state is State.PENDING
    fresh.close()


def test_a_cancel_that_came_first_wins_over_the_capture(store: Store) -> None:
    record = search(store)
    store.cancel(record.id)
    with pytest.raises(StateConflict) as caught:
        store.commit_capture(record.id, picture(), quality_score=1, liveness_score=1)
    assert caught.value.current.state is State.CANCELLED
    assert store.queue().payload_items == 0


def test_a_capture_that_came_first_wins_over_the_cancel(store: Store) -> None:
    record = capture(store)
    with pytest.raises(StateConflict) as caught:
        store.cancel(record.id)
    assert caught.value.current.state is State.CAPTURED
    assert caught.value.code == "state_conflict"


ENDS: dict[str, Callable[[Store, str], VerificationRecord]] = {
    "cancelled": lambda store, key: store.cancel(key),
    "rejected": lambda store, key: store.reject(key, ["too_blurry", "too_dark"]),
    "failed": lambda store, key: store.fail(key, "camera_unavailable", "it fell off"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_search_ends_once(store: Store, end: str) -> None:
    record = search(store)
    ended = ENDS[end](store, record.id)
    assert (ended.state, ended.final) == (end, True)
    for other in ENDS.values():
        with pytest.raises(StateConflict):
            other(store, record.id)
    assert store.get(record.id) == ended


def test_reasons_and_errors_are_kept(store: Store) -> None:
    assert ENDS["rejected"](store, search(store).id).reasons == ("too_blurry", "too_dark")
    failed = ENDS["failed"](store, search(store).id)
    assert (failed.error_code, failed.error_detail) == ("camera_unavailable", "it fell off")


def test_pending_comes_from_captured_and_matching_only(store: Store) -> None:
    assert store.pend(capture(store).id).state is State.PENDING
    assert store.pend(search(store, "bob").id).state is State.SEARCHING


def test_a_crash_interrupts_a_search_and_leaves_a_capture_pending(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    searching, captured = search(store, "a"), capture(store, "b")
    matching = capture(store, "c")
    assert store.lease_one(matching.id, lease_s=600)
    crash(store)
    fresh = open_store(state_dir, clock)
    recovery = fresh.recover()
    assert recovery.interrupted == (searching.id,)
    assert set(recovery.resumed) == {captured.id, matching.id}
    assert recovery.leases_voided == 1
    assert fresh.get(searching.id).error_code == "interrupted"
    assert fresh.get(matching.id).lease is None
    assert fresh.recover() == type(recovery)()
    fresh.close()


def test_listing_is_newest_first_by_state_and_caller(store: Store) -> None:
    a, b, c = search(store, caller="x"), search(store, caller="y"), search(store, caller="x")
    store.cancel(a.id)
    assert [r.id for r in store.list()] == [c.id, b.id, a.id]
    assert [r.id for r in store.list(limit=1, before_seq=c.seq)] == [b.id]
    assert [r.id for r in store.list(state=State.SEARCHING)] == [c.id, b.id]
    assert [r.id for r in store.list(caller="x")] == [c.id, a.id]
    assert [r.id for r in store.list(caller="x", state=State.CANCELLED)] == [a.id]


def test_an_unknown_id_is_not_found(store: Store) -> None:
    with pytest.raises(InputError) as caught:
        store.get("nope")
    assert caught.value.code == "not_found"


def test_what_waits_can_be_told(store: Store, clock: FakeClock) -> None:
    record = pending(store, "a")
    capture(store, "b")
    clock.advance(50)
    lease(store)
    stats = store.queue()
    assert (stats.depth, stats.parked, stats.leased, stats.payload_items) == (2, 0, 1, 2)
    assert (stats.payload_bytes, stats.oldest_age_s) == (2 * record.image_bytes, 50.0)


def test_the_listener_hears_every_change_after_its_commit(state_dir: Path, clock: FakeClock) -> None:
    heard: list[tuple[str, State]] = []
    with open_store(state_dir, clock, listener=lambda record: heard.append((record.id, record.state))) as store:
        record = pending(store)
        with pytest.raises(StateConflict):
            store.cancel(record.id)
    assert heard == [(record.id, s) for s in (State.SEARCHING, State.CAPTURED, State.PENDING)]


# -- caps and space


def test_the_oldest_makes_room_visibly_when_the_count_is_capped(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, limits=Limits(max_items=2)) as store:
        records = [pending(store, f"user-{n}") for n in range(4)]
        states = [store.get(record.id).state for record in records]
        assert states == [State.EVICTED, State.EVICTED, State.PENDING, State.PENDING]
        assert store.queue().payload_items == 2
        assert store.verify().ok


def test_the_oldest_makes_room_when_the_bytes_are_capped(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, limits=Limits(max_bytes=5000)) as store:
        first, second, third = (pending(store, u, jpeg=picture(u, 2000)) for u in "abc")
        assert [store.get(r.id).state for r in (first, second, third)] == ["evicted", "pending", "pending"]
        assert store.queue().payload_bytes == 4000


def test_what_is_live_or_leased_is_never_evicted(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, limits=Limits(max_items=2)) as store:
        pending(store, "a")
        lease(store)
        capture(store, "b")
        record = search(store, "c")
        with pytest.raises(StorageError) as caught:
            store.commit_capture(record.id, picture(), quality_score=1, liveness_score=1)
        assert caught.value.code == "storage_full"
        assert store.get(record.id).state is State.SEARCHING


def test_a_full_disk_refuses_the_new_and_keeps_the_old(state_dir: Path, clock: FakeClock) -> None:
    free = [1 << 40]
    with open_store(state_dir, clock, free_bytes=lambda _: free[0]) as store:
        old = pending(store, "a")
        waiting = search(store, "b")
        new = request("c", idempotency_key="k")
        free[0] = 1 << 20
        with pytest.raises(StorageError) as caught:
            store.create(new)
        assert caught.value.code == "storage_full"
        with pytest.raises(StorageError):
            store.commit_capture(waiting.id, picture(), quality_score=1, liveness_score=1)
        assert store.payload(old.id) == picture(old.id)
        assert lease(store).record.id == old.id
        free[0] = 1 << 40
        assert store.create(new)[1] is False  # the key was not consumed


def test_a_detail_that_a_later_version_added_does_not_keep_a_record_from_being_read() -> None:
    assert private_details('{"reference": "order 7", "tip": "1.50"}') == {"reference": "order 7"}
