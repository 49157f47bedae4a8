"""Records that are read again and again are authenticated and decrypted once, and never shown when they should not be."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store, core
from edge_agent.outbox.recent import Recent
from edge_agent.outbox.records import VerificationRecord
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, finish, lease, pending

USER = "customer-4711"


def read_all(store: Store, record: VerificationRecord) -> list[VerificationRecord]:
    return [store.get(record.id), *store.list()]


def test_a_row_that_did_not_change_is_opened_once_and_grows_older(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = pending(store, USER)
    first = store.get(record.id)
    monkeypatch.setattr(core, "unseal", None)
    clock.advance(5.0)
    for again in read_all(store, record):
        assert again.user_id == USER
        assert again.age_s == pytest.approx(first.age_s + 5.0)


def test_a_row_that_changed_is_read_anew(store: Store) -> None:
    record = pending(store, USER)
    read_all(store, record)
    finish(store, lease(store))
    assert {found.state for found in read_all(store, record)} == {State.VERIFIED}


def test_a_row_that_was_tampered_with_after_it_was_read_is_not_shown(store: Store) -> None:
    bad, good = pending(store, "alice"), pending(store, "bob")
    read_all(store, bad)
    store._database.execute("UPDATE verifications SET similarity = 99.0 WHERE id = :id", id=bad.id)
    assert [found.id for found in store.list()] == [good.id]
    assert store.tampered == {bad.id}
    with pytest.raises(StorageError, match="mac is wrong"):
        store.get(bad.id)


def delete(store: Store, record: VerificationRecord) -> None:
    assert record.user_id is not None
    store.delete_user(record.user_id)


@pytest.mark.parametrize("erase", [delete, lambda store, record: store.withdraw(record.id)])
def test_nothing_that_was_erased_is_remembered(
    store: Store, erase: Callable[[Store, VerificationRecord], None]
) -> None:
    record = pending(store, USER)
    read_all(store, record)
    erase(store, record)
    gc.collect()
    remembered = [o for o in gc.get_referrers(VerificationRecord) if isinstance(o, VerificationRecord)]
    assert [found for found in remembered if found.user_id == USER] == [record]
    assert {found.user_id for found in read_all(store, record)} == {None}


def test_only_so_many_are_remembered_and_the_last_read_stay(store: Store) -> None:
    recent = Recent(most=2)
    records = {seq: pending(store, f"user-{seq}") for seq in range(3)}
    for seq in (0, 1):
        recent.keep({"seq": seq}, records[seq])
    assert recent.find({"seq": 0}) is records[0]
    recent.keep({"seq": 2}, records[2])
    assert [recent.find({"seq": seq}) for seq in range(3)] == [records[0], None, records[2]]
