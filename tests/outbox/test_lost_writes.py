"""A disk that lost a write: genuine rows from before. What the audit log knows of what came after is obeyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.outbox import Store
from edge_agent.outbox.records import VerificationRecord
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, capture, crash, finish, lease, open_store, pending, picture, search
from tests.outbox.test_erasure import ciphertexts, every_byte, found_in
from tests.outbox.wreck import PAGE, overwrite, root_page, salvaged

Act = Callable[[Store, VerificationRecord], object]
ALL = ("verifications", "users", "payloads")


def go_back(
    state_dir: Path,
    clock: FakeClock,
    act: Act,
    *,
    tables: tuple[str, ...] = ("verifications",),
    begin: Callable[[Store], VerificationRecord] = pending,
) -> VerificationRecord:
    """Do something, and let the pages of these tables be as they were before it; then salvage."""
    database = state_dir / "outbox.db"
    with open_store(state_dir, clock) as store:
        record = begin(store)
        pending(store, "another user")
        store._database.truncate_log()
        before = database.read_bytes()
        act(store, record)
        store._database.truncate_log()
        pages = {root_page(database, table) for table in tables}
    for page in pages:
        overwrite(database, (page - 1) * PAGE, before[(page - 1) * PAGE :][:PAGE])
    salvaged(state_dir, clock)
    return record


def forward(store: Store, record: VerificationRecord) -> None:
    leased = store.lease_one(record.id, lease_s=60)
    assert leased is not None
    finish(store, leased)


def park(store: Store, record: VerificationRecord) -> None:
    leased = store.lease_one(record.id, lease_s=60)
    assert leased is not None
    store.park(record.id, leased.lease, code="unknown_user")


def test_what_had_its_verdict_is_not_forwarded_again(state_dir: Path, clock: FakeClock) -> None:
    record = go_back(state_dir, clock, forward)
    with open_store(state_dir, clock) as store:
        store.recover()
        after = store.get(record.id)
        assert (after.state, after.error_code, after.image_bytes) == (State.FAILED, "state_lost", 0)
        assert lease(store).record.id != record.id
        assert store.verify().ok and store.verify_audit().ok


def test_what_was_parked_stays_parked_with_its_picture(state_dir: Path, clock: FakeClock) -> None:
    record = go_back(state_dir, clock, park)
    with open_store(state_dir, clock) as store:
        after = store.get(record.id)
        assert (after.state, after.error_code, after.parked) == (State.FAILED, "state_lost", True)
        assert store.reopen(record.id, actor="operator").state is State.PENDING
        assert store.payload(record.id) == picture(record.id)


def test_what_still_waits_goes_on_waiting(state_dir: Path, clock: FakeClock) -> None:
    def try_once(store: Store, record: VerificationRecord) -> None:
        leased = store.lease_one(record.id, lease_s=60)
        assert leased is not None
        store.release(record.id, leased.lease, next_attempt_in_s=1, code="network")

    record = go_back(state_dir, clock, try_once)
    with open_store(state_dir, clock) as store:
        assert store.verify().ok
        forward(store, store.get(record.id))


def test_a_capture_that_only_the_log_tells_of_is_not_called_interrupted(state_dir: Path, clock: FakeClock) -> None:
    def shoot(store: Store, record: VerificationRecord) -> None:
        store.commit_capture(record.id, picture("x"), quality_score=1, liveness_score=1)

    record = go_back(state_dir, clock, shoot, begin=search)
    with open_store(state_dir, clock) as store:
        store.recover()
        assert store.get(record.id).error_code == "capture_lost"


ERASURES: dict[str, Act] = {
    "the user": lambda store, _: store.delete_user("alice"),
    "the capture": lambda store, record: store.withdraw(record.id),
}


@pytest.mark.parametrize("what", ERASURES)
def test_what_was_erased_stays_erased_and_the_copy_goes_too(state_dir: Path, clock: FakeClock, what: str) -> None:
    blobs: dict[str, bytes] = {}

    def begin(store: Store) -> VerificationRecord:
        record = capture(store, reference="order 1")
        blobs.update(ciphertexts(store, "alice"))
        return record

    record = go_back(state_dir, clock, ERASURES[what], tables=ALL, begin=begin)
    assert len(blobs) >= 4
    with open_store(state_dir, clock) as store:
        store.recover()
        after = store.get(record.id)
        assert (after.state, after.erased, after.user_id, after.image_bytes) == (State.DELETED, True, None, 0)
        assert store.verify().ok
        files = every_byte(state_dir)
        assert not [name for name, blob in blobs.items() if found_in(files, blob[:32])]


def test_two_leases_of_one_user_do_not_stop_the_salvage(state_dir: Path, clock: FakeClock) -> None:
    store = open_store(state_dir, clock)
    first, second = pending(store, "bob"), pending(store, "bob")
    assert store.lease_one(first.id, lease_s=0) is not None
    sql = "SELECT * FROM verifications WHERE id = :id"
    old = dict(store._database.execute(sql, id=first.id).fetchone())
    assert store.lease_one(second.id, lease_s=60) is not None  # it voids the first one, which then comes back
    store._database.execute("DROP INDEX one_lease_per_user")
    columns = ", ".join(f"{name} = :{name}" for name in old)
    assert store._database.execute(f"UPDATE verifications SET {columns} WHERE id = :id", **old).rowcount == 1
    crash(store)
    assert salvaged(state_dir, clock).captures_kept == 2
    with open_store(state_dir, clock) as store:
        assert store.verify().ok
        assert store.queue().leased == 0
