"""What an operator does with the queue: look, retry, purge, take a picture out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.records import LeaseLost, StateConflict, VerificationRecord
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
    search,
    upload,
    verdict,
)
from tests.outbox.test_erasure import ciphertexts, every_byte, found_in, slices_found

ACTOR = "uid:0"


def park(store: Store, user: str = "alice") -> VerificationRecord:
    record = pending(store, user)
    leased = store.lease_one(record.id, lease_s=600.0)
    assert leased is not None
    return store.park(record.id, leased.lease, code="unknown_user", detail="nobody", status=404, upload_settled=True)


def back_off(store: Store, user: str = "alice", seconds: float = 300.0) -> VerificationRecord:
    record = pending(store, user)
    leased = store.lease_one(record.id, lease_s=600.0)
    assert leased is not None
    return store.release(record.id, leased.lease, next_attempt_in_s=seconds, code="network", failure="transient")


def spoil(store: Store, record: VerificationRecord) -> None:
    store._database.execute("UPDATE verifications SET caller = 'uid:666' WHERE id = :id", id=record.id)


def clean(store: Store) -> bool:
    return store.verify().ok and store.verify_audit().ok


def events(store: Store, record: VerificationRecord) -> list[str]:
    return [entry.event for entry in store.describe(record.id).history]


def test_the_list_shows_what_holds_a_picture_the_newest_first(store: Store) -> None:
    parked, waiting, live = park(store), pending(store, "bob"), capture(store, "carol")
    search(store, "dave")
    finish(store, lease(store))
    assert [item.id for item in store.waiting_list().items] == [waiting.id, parked.id]
    assert store.get(live.id).state is State.VERIFIED
    assert [item.id for item in store.waiting_list(parked=True).items] == [parked.id]
    assert [item.id for item in store.waiting_list(parked=False).items] == [waiting.id]


def test_the_list_comes_in_pages(store: Store) -> None:
    made = [pending(store, f"user-{n}").id for n in range(5)]
    first = store.waiting_list(limit=2)
    second = store.waiting_list(limit=2, before=first.next_before)
    last = store.waiting_list(limit=2, before=second.next_before)
    assert [item.id for page in (first, second, last) for item in page.items] == made[::-1]
    assert last.next_before is None


def test_a_row_that_was_tampered_with_is_named_and_the_others_are_listed(store: Store) -> None:
    bad, good = pending(store, "alice"), pending(store, "bob")
    spoil(store, bad)
    page = store.waiting_list()
    assert ([item.id for item in page.items], page.unreadable) == ([good.id], (bad.id,))


def test_a_verification_is_described_with_its_history(store: Store) -> None:
    record = park(store)
    found = store.describe(record.id)
    assert [entry.event for entry in found.history] == ["create", "capture", "pend", "lease", "park"]
    assert found.history[-1].detail == {"code": "unknown_user", "status": 404}
    assert found.record.error_detail == "nobody"
    with pytest.raises(InputError, match="none with this id"):
        store.describe("nothing")


def test_a_retry_reopens_what_is_parked_and_ends_a_back_off_and_says_who_asked(store: Store) -> None:
    parked, waiting = park(store), back_off(store, "bob")
    assert store.retry(parked.id, actor=ACTOR).reopened == 1
    assert store.retry(waiting.id, actor=ACTOR).hurried == 1
    assert {lease(store).record.id, lease(store).record.id} == {parked.id, waiting.id}
    assert [e.detail for e in store.describe(waiting.id).history if e.event == "hurry"] == [{"actor": ACTOR}]
    assert clean(store)


def test_a_retry_of_what_waits_for_nothing_changes_nothing(store: Store) -> None:
    record = pending(store)
    assert store.retry(record.id, actor=ACTOR).hurried == 0
    assert "hurry" not in events(store, record)


def test_what_ended_is_neither_retried_nor_purged(store: Store) -> None:
    pending(store)
    ended = finish(store, lease(store))
    for operation in (store.retry, store.purge):
        with pytest.raises(StateConflict) as refused:
            operation(ended.id, actor=ACTOR)
        assert refused.value.current.state is State.VERIFIED


@pytest.mark.parametrize(("parked", "expected"), [(False, (1, 0)), (True, (1, 1))])
def test_a_retry_of_all_reopens_the_parked_only_when_told_to(
    store: Store, parked: bool, expected: tuple[int, int]
) -> None:
    park(store, "alice")
    back_off(store, "bob")
    pending(store, "carol", environment=OTHER_ENVIRONMENT)
    done = store.retry_all(ENVIRONMENT, actor=ACTOR, parked=parked)
    assert (done.hurried, done.reopened) == expected
    assert store.queue().parked == (0 if parked else 1)
    assert clean(store)


def test_a_purge_destroys_the_capture_and_everything_personal_of_it(store: Store, state_dir: Path) -> None:
    shot = picture("shot", 20_000)
    record = pending(store, "jane-roe", jpeg=shot, reference="order-4711")
    stored = ciphertexts(store, "jane-roe")
    purged = store.purge(record.id, actor=ACTOR)
    assert (purged.captures, purged.bytes, purged.traces_left) == (1, len(shot), False)
    after = store.get(record.id)
    assert (after.state, after.user_id, after.reference, after.image_bytes) == (State.DELETED, None, None, 0)
    assert after.erased
    files = every_byte(state_dir)
    assert found_in(files, stored["wrapped key"]) == []
    assert slices_found(files, next(blob for name, blob in stored.items() if name.startswith("picture"))) == []
    assert store.describe(record.id).history[-1].detail == {"actor": ACTOR}
    assert clean(store)


def test_the_other_captures_of_the_user_stay_readable(store: Store) -> None:
    gone, kept = pending(store), pending(store, jpeg=picture("kept"))
    store.purge(gone.id, actor=ACTOR)
    assert store.payload(kept.id) == picture("kept")
    assert lease(store).record.id == kept.id


def test_the_result_of_a_purged_capture_is_thrown_away(store: Store) -> None:
    record = pending(store)
    leased = lease(store)
    name = upload(store, leased)
    store.purge(record.id, actor=ACTOR)
    with pytest.raises(LeaseLost):
        store.commit_verdict(record.id, leased.lease, verdict(leased, name))
    assert store.get(record.id).state is State.DELETED
    assert clean(store)


def test_a_capture_that_was_tampered_with_can_be_purged_and_its_user_is_forwarded_again(store: Store) -> None:
    bad, good = pending(store), pending(store)
    spoil(store, bad)
    assert store.lease_next(ENVIRONMENT, lease_s=600.0) is None
    store.purge(bad.id, actor=ACTOR)
    assert lease(store).record.id == good.id
    assert store.describe(bad.id).history[-1].detail == {"actor": ACTOR, "tampered": True}
    assert clean(store)


@pytest.mark.parametrize(("parked_only", "left"), [(True, 2), (False, 0)])
def test_all_are_purged_or_those_that_are_parked(
    store: Store, monkeypatch: pytest.MonkeyPatch, parked_only: bool, left: int
) -> None:
    monkeypatch.setattr("edge_agent.outbox.custody._BATCH", 2)
    for user in ("alice", "bob", "carol"):
        park(store, user)
    pending(store, "dave")
    capture(store, "erin")
    searching = search(store, "frank")
    purged = store.purge_all(actor=ACTOR, parked_only=parked_only)
    assert purged.captures == 5 - left
    assert store.queue().payload_items == left
    assert store.get(searching.id).state is State.SEARCHING
    assert clean(store)


def test_the_record_of_an_export_is_on_the_disk_before_the_picture_is_given(store: Store) -> None:
    record = pending(store, jpeg=picture("face"))
    exported = store.export(record.id, actor=ACTOR)
    assert exported.picture == picture("face")
    last = store.describe(record.id).history[-1]
    assert (last.event, last.detail["actor"], last.detail["image_sha256"]) == ("exported", ACTOR, record.image_sha256)
    assert clean(store)


def test_without_its_audit_record_there_is_no_export(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = pending(store)

    def full(*_: object) -> int:
        raise StorageError("cannot write", code="storage_full")

    monkeypatch.setattr(store._chain, "append", full)
    with pytest.raises(StorageError, match="cannot write"):
        store.export(record.id, actor=ACTOR)


def test_a_picture_that_is_gone_cannot_be_exported(store: Store) -> None:
    record = pending(store)
    store.purge(record.id, actor=ACTOR)
    with pytest.raises(InputError, match="none is stored"):
        store.export(record.id, actor=ACTOR)
    assert "exported" not in events(store, record)


def test_the_next_attempt_is_told_on_the_running_clock(store: Store, clock: FakeClock) -> None:
    back_off(store, seconds=300.0)
    clock.advance(100.0)
    page = store.waiting_list()
    assert page.items[0].next_attempt_running_s - page.running_s == pytest.approx(200.0)


def test_everything_is_checked_in_parts_with_the_result_of_the_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [pending(store, f"user-{n}") for n in range(5)]
    spoil(store, made[1])
    spoil(store, made[4])
    whole, audit = store.verify(), store.verify_audit()
    monkeypatch.setattr("edge_agent.outbox.proof._PART", 2)
    monkeypatch.setattr("edge_agent.outbox.audit._PART", 3)
    part = store.verify_part(None)
    assert (part.verifications, set(part.problems), part.next_after) == (2, {made[1].id}, made[1].seq)
    assert store.verify() == whole
    assert set(whole.problems) == {made[1].id, made[4].id}
    assert store.verify_audit() == audit
    assert audit.ok


@pytest.mark.parametrize("seq", [3, 4, 6, 7])
def test_a_change_at_the_seam_of_two_parts_is_found(store: Store, monkeypatch: pytest.MonkeyPatch, seq: int) -> None:
    monkeypatch.setattr("edge_agent.outbox.audit._PART", 3)
    pending(store, "alice")
    pending(store, "bob")
    store._database.execute("DROP TRIGGER audit_is_append_only")
    store._database.execute("UPDATE audit SET event = 'nothing' WHERE seq = :seq", seq=seq)
    assert store.verify_audit().first_bad == seq
