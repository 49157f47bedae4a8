"""Too many failures close the terminal, or it for one user."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.outbox import Store
from edge_agent.outbox.records import Limits, Lockout
from tests.outbox.fakes import FakeClock, capture, finish, lease, pending, reopen, search

pytestmark = pytest.mark.arm


def spoofs(store: Store, users: str) -> None:
    for user in users:
        store.reject(search(store, user).id, ["spoof_suspected"])


def test_five_spoofs_of_anybody_close_the_terminal(store: Store) -> None:
    spoofs(store, "abcd")
    assert store.locked_until("z") is None
    spoofs(store, "e")
    assert store.locked_until("z") == Lockout("terminal", 180.0)


def test_the_lock_ends_180_s_after_the_failure_that_made_it_too_many(store: Store, clock: FakeClock) -> None:
    spoofs(store, "aa")
    clock.advance(100)
    spoofs(store, "aaa")
    lock = store.locked_until("a")
    assert lock is not None and lock.retry_after_s == pytest.approx(80)
    clock.advance(81)
    assert store.locked_until("a") is None


def test_mismatches_count_and_other_rejections_do_not(store: Store) -> None:
    for _ in range(5):
        store.reject(search(store).id, ["too_blurry"])
    assert store.locked_until("alice") is None
    for _ in range(5):
        capture(store)
        finish(store, lease(store), positive=False)
    assert store.locked_until("alice") is not None


def test_late_mismatches_of_the_backlog_lock_the_user_but_not_the_terminal(store: Store, clock: FakeClock) -> None:
    for _ in range(5):
        pending(store, "mallory")
    clock.advance(1000)
    for _ in range(5):
        finish(store, lease(store), positive=False)
    assert store.locked_until("alice") is None
    lock = store.locked_until("mallory")
    assert lock is not None and lock.scope == "user"


def test_a_restart_and_a_changed_clock_do_not_open_the_lock(store: Store, state_dir: Path, clock: FakeClock) -> None:
    spoofs(store, "aaaaa")
    clock.reboot(off_s=100_000)
    store = reopen(store, state_dir, clock)
    assert store.locked_until("a") is not None
    store.close()


def test_deleting_the_user_does_not_open_the_lock(store: Store) -> None:
    for _ in range(5):
        store.record_failure("a", "spoof")
    store.delete_user("a")
    assert store.locked_until("a") is not None


def test_tampering_with_a_failure_does_not_open_the_lock(store: Store) -> None:
    spoofs(store, "aaaaa")
    store._database.execute("UPDATE failures SET terminal = 0, user_hmac = x'00'")
    assert store.locked_until("a") is not None


def test_zero_failures_means_no_lock_out(store: Store) -> None:
    store.limits = Limits(max_failures=0)
    spoofs(store, "aaaaaaa")
    assert store.locked_until("a") is None
