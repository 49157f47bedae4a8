"""A state directory with captures in every situation that an operator meets, for a terminal to be started on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge_agent.config import Config
from edge_agent.outbox import Store
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.records import Environment
from tests.outbox.fakes import finish, lease, pending, picture
from tests.terminal import KEY, Terminal, _config

DEAD = "http://127.0.0.1:9/"
CREDENTIALS = SimpleNamespace(api_key="5a9db0c0-ffee-4000-8000-5a9db0c0ffee", merchant_id="5a9db0c0ffee5a9db0c0ffee")
ELSEWHERE = Environment("https://staging.example/", CREDENTIALS.merchant_id)
"""Not where the terminal forwards to: such captures are left alone."""
PICTURE = picture("waiting")


@dataclass(frozen=True)
class Stock:
    """Ids by situation."""

    parked: str
    waiting: str
    """In back-off for an hour."""
    other: str
    """For another service."""
    ended: str


def stocked_config(folder: Path, **changes: dict[str, Any]) -> Config:
    return _config(folder, DEAD, CREDENTIALS, changes)


def open_real_store(folder: Path, **options: Any) -> Store:
    return Store.open(folder / "state", KEY.encode(), clock=SystemClock(), **options)


def stock(folder: Path, machine: str | None = None) -> Stock:
    here = Environment(DEAD, CREDENTIALS.merchant_id)
    with open_real_store(folder, machine=machine) as store:
        store.recover()
        ended = pending(store, "erin")
        finish(store, lease(store))
        parked = pending(store, "alice", environment=here)
        first = store.lease_one(parked.id, lease_s=600.0)
        assert first is not None
        store.park(parked.id, first.lease, code="unknown_user", detail="no such user: alice", status=404)
        waiting = pending(store, "bob", jpeg=PICTURE, environment=here, reference="order-4711")
        second = store.lease_one(waiting.id, lease_s=600.0)
        assert second is not None
        store.release(waiting.id, second.lease, next_attempt_in_s=3600.0, code="network", failure="transient")
        other = pending(store, "carol", environment=ELSEWHERE)
        return Stock(parked.id, waiting.id, other.id, ended.id)


def stocked_terminal(folder: Path, **changes: dict[str, Any]) -> Terminal:
    """An agent on that state directory; its service is not there."""
    return Terminal(folder, DEAD, CREDENTIALS, **changes)
