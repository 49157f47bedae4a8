"""The words that must be taken out of a text: read beside the agent, from an outbox that is not touched by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.names import Names
from edge_agent.outbox.records import Consent
from tests.outbox.fakes import KEY, FakeClock, capture, finish, lease, pending
from tests.outbox.test_erasure import every_byte


def names(state_dir: Path, clock: FakeClock, key: bytes = KEY) -> set[str]:
    with Names(state_dir, clock) as outbox:
        return outbox.names(key)


def test_users_references_and_consents_are_read_while_the_agent_has_it_open(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    pending(store, "jane", reference="order-1", consent=Consent("form-1", ("verification",)))
    finish(store, lease(store))
    capture(store, "zoe", reference="order-2")
    capture(store, "gone", reference="order-3")
    store.delete_user("gone")
    before = every_byte(state_dir)
    assert names(state_dir, clock) == {"jane", "zoe", "order-1", "order-2", "form-1"}
    assert every_byte(state_dir) == before


def test_a_row_that_does_not_open_does_not_hide_the_others(store: Store, state_dir: Path, clock: FakeClock) -> None:
    capture(store, "jane", reference="order-1")
    capture(store, "zoe", reference="order-2")
    user = bytes.fromhex(store.user_hmac("jane"))
    with store._database.transaction():
        store._database.execute("UPDATE users SET wrapped_key = zeroblob(61) WHERE user_hmac = :u", u=user)
    assert names(state_dir, clock) == {"zoe", "order-2"}


def test_another_key_opens_nothing(store: Store, state_dir: Path, clock: FakeClock) -> None:
    capture(store, "jane")
    with pytest.raises(StorageError, match="is not the one it was made with") as refused:
        names(state_dir, clock, bytes(range(1, 33)))
    assert refused.value.code == "key_mismatch"
