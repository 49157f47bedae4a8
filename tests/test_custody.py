"""The contract of the two ways to the outbox: through the agent and on the files, the same answers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.api.wire_outbox import AttemptErrorBody
from edge_agent.cli.access import OutboxAccess, code_of, exit_code_of
from edge_agent.cli.files import FilesAccess
from edge_agent.client import AgentClient
from edge_agent.errors import AgentError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import SystemClock
from edge_agent.types import State
from tests.stocked import PICTURE, Stock, open_real_store, stock, stocked_config, stocked_terminal

WAYS = ("agent", "files")


class Way:
    """One of the two, on a state directory with captures in it."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.name = name
        self.folder = folder
        self.stock: Stock = stock(folder)
        self.config = stocked_config(folder)
        self.access: OutboxAccess
        if name == "agent":
            stack.enter_context(stocked_terminal(folder))
            self.access = stack.enter_context(AgentClient(folder / "api.sock"))
        else:
            self.access = FilesAccess(self.config)

    @property
    def actor(self) -> str:
        uid = f"uid:{os.geteuid()}"
        return uid if self.name == "agent" else f"{uid} via files"

    def state(self, id_: str) -> State:
        return self.access.outbox_show(id_).item.state

    def last_detail(self, id_: str, event: str) -> dict[str, Any]:
        return [entry.detail for entry in self.access.outbox_show(id_).history if entry.event == event][-1]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    with ExitStack() as stack:
        yield Way(request.param, tmp_path, stack)


def test_the_list_is_the_same_either_way(way: Way) -> None:
    body = way.access.outbox_list()
    assert [item.id for item in body.items] == [way.stock.other, way.stock.waiting, way.stock.parked]
    assert (body.queue.waiting, body.queue.parked, body.queue.leased, body.queue.pictures) == (2, 1, 0, 3)
    assert (body.authenticated, body.why_not, body.unreadable, body.next_before) == (True, None, [], None)
    parked, waiting = body.items[2], body.items[1]
    said = AttemptErrorBody(code="unknown_user", detail="no such user: alice", status=404)
    assert (parked.parked, parked.next_attempt_in_s, parked.error) == (True, None, said)
    assert (waiting.attempts, waiting.transients, waiting.conflicts, waiting.leased) == (1, 1, 0, False)
    assert waiting.next_attempt_in_s == pytest.approx(3600.0, abs=60)
    assert (waiting.bytes, waiting.caller, waiting.base_url) == (len(PICTURE), "uid:1000", "http://127.0.0.1:9/")


def test_no_body_names_a_user(way: Way) -> None:
    shown = way.access.outbox_list().model_dump_json() + way.access.outbox_show(way.stock.waiting).model_dump_json()
    assert '"bob"' not in shown
    assert "order-4711" not in shown


def test_the_list_is_filtered_and_paged_either_way(way: Way) -> None:
    assert [item.id for item in way.access.outbox_list(parked=True).items] == [way.stock.parked]
    first = way.access.outbox_list(limit=2, parked=False)
    assert (len(first.items), first.next_before) == (2, None)
    page = way.access.outbox_list(limit=1)
    assert [i.id for i in way.access.outbox_list(limit=1, before=page.next_before).items] == [way.stock.waiting]


def test_one_is_shown_with_its_history_either_way(way: Way) -> None:
    body = way.access.outbox_show(way.stock.parked)
    assert [entry.event for entry in body.history] == ["create", "capture", "pend", "lease", "park"]
    assert way.state(way.stock.ended) is State.VERIFIED


def test_everything_is_authenticated_either_way(way: Way) -> None:
    body = way.access.outbox_verify()
    assert (body.authenticated, body.ok, body.problems) == (True, True, [])
    assert (body.verifications, body.pictures, body.states["failed"]) == (4, 3, 1)
    audit = way.access.audit_verify()
    assert (audit.ok, audit.records) == (True, body.audit_records)
    assert audit.head is not None
    assert way.access.audit_verify(audit.head).ok


def test_a_cut_off_end_is_found_either_way(way: Way) -> None:
    head = way.access.audit_verify().head
    assert head is not None
    seq, mac = head.split(":")
    found = way.access.audit_verify(f"{int(seq) + 100}:{mac}")
    assert not found.ok
    assert found.problem is not None
    assert found.problem.endswith("are cut off")


def test_a_parked_capture_is_queued_again_either_way(way: Way) -> None:
    body = way.access.outbox_retry(way.stock.parked)
    assert (body.hurried, body.reopened, body.forwarding) == (0, 1, way.name == "agent")
    assert way.last_detail(way.stock.parked, "reopen") == {"actor": way.actor}


def test_everything_is_retried_either_way(way: Way) -> None:
    body = way.access.outbox_retry_all(parked=True)
    assert (body.hurried, body.reopened, body.forwarding) == (1, 1, way.name == "agent")


def test_one_is_purged_either_way(way: Way) -> None:
    body = way.access.outbox_purge(way.stock.waiting)
    assert (body.captures, body.bytes) == (1, len(PICTURE))
    assert way.state(way.stock.waiting) is State.DELETED
    assert way.last_detail(way.stock.waiting, "purge") == {"actor": way.actor}


@pytest.mark.parametrize(("parked_only", "left"), [(True, 2), (False, 0)])
def test_many_are_purged_either_way(way: Way, parked_only: bool, left: int) -> None:
    assert way.access.outbox_purge_all(parked_only=parked_only).captures == 3 - left
    assert way.access.outbox_list().queue.pictures == left
    assert way.access.outbox_verify().ok


def test_the_picture_is_given_in_clear_and_that_is_audited_either_way(way: Way) -> None:
    assert way.access.outbox_export(way.stock.waiting) == PICTURE
    assert way.last_detail(way.stock.waiting, "exported")["actor"] == way.actor


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda a, _: a.outbox_show("nothing"), "not_found"),
        (lambda a, _: a.outbox_show("../status"), "not_found"),
        (lambda a, _: a.outbox_retry("nothing"), "not_found"),
        (lambda a, _: a.outbox_purge("nothing"), "not_found"),
        (lambda a, _: a.outbox_export("nothing"), "not_found"),
        (lambda a, s: a.outbox_retry(s.ended), "state_conflict"),
        (lambda a, s: a.outbox_purge(s.ended), "state_conflict"),
        (lambda a, s: a.outbox_export(s.ended), "not_found"),
        (lambda a, _: a.adopt(), "not_moved"),
    ],
)
def test_a_no_has_the_same_code_either_way(way: Way, call: Any, code: str) -> None:
    with pytest.raises(AgentError) as refused:
        call(way.access, way.stock)
    assert (code_of(refused.value), exit_code_of(refused.value)) == (code, 1)


def test_what_is_held_is_told_either_way(way: Way) -> None:
    body = way.access.privacy()
    told = {held.purpose: (held.items, held.users, held.with_consent) for held in body.purposes}
    assert (told["capture"], told["verdict"], told["lockout"]) == ((3, 3, 0), (1, 1, 0), (0, 0, None))
    assert told["idempotency"] == (4, None, None)
    assert body.terminal_id == way.config.terminal_id
    for held in body.purposes:
        assert held.since is None or held.until is None or held.kept_s is not None
        assert held.until is None or held.kept_s is None or held.until > body.at
    shown = body.model_dump_json()
    assert not any(name in shown for name in ("alice", "bob", "carol", "erin", "order-4711"))


def test_a_user_is_destroyed_either_way(way: Way) -> None:
    done = way.access.delete_user("bob")
    assert (done.verifications, done.captures, done.filming_ended, done.traces_left) == (1, 1, False, False)
    assert way.state(way.stock.waiting) is State.DELETED
    assert way.access.audit_verify().ok
    again = way.access.delete_user("bob")
    assert (again.verifications, again.captures) == (0, 0)
    with closing(sqlite3.connect(way.folder / "state/outbox.db")) as connection:
        found = connection.execute("SELECT detail FROM audit WHERE event = 'user_destroyed' ORDER BY seq").fetchall()
    assert found == [(f'{{"actor": "{way.actor}"}}',)] * 2


@pytest.mark.parametrize("name", WAYS)
def test_the_key_is_changed_either_way(name: str, tmp_path: Path) -> None:
    made = stock(tmp_path)
    new, old = tmp_path / "new.key", tmp_path / "device.key"
    new.write_text("77" * 32)
    new.chmod(0o600)
    changes = {"outbox": {"key": {"file": new}, "previous_key": {"file": old}}}
    with ExitStack() as stack:
        if name == "agent":
            stack.enter_context(stocked_terminal(tmp_path, **changes))
            access: OutboxAccess = stack.enter_context(AgentClient(tmp_path / "api.sock"))
        else:
            access = FilesAccess(stocked_config(tmp_path, **changes))
        body = access.key_rotate()
        assert (body.generation, body.users, body.left_alone) == (2, 4, 0)
        assert access.outbox_export(made.waiting) == PICTURE
        with pytest.raises(AgentError) as refused:
            access.key_rotate()
        assert (code_of(refused.value), exit_code_of(refused.value)) == ("rotation_not_due", 1)
    with Store.open(tmp_path / "state", new.read_bytes(), clock=SystemClock()) as store:
        assert store.verify().ok


@pytest.mark.parametrize("name", WAYS)
def test_a_moved_state_directory_is_adopted_either_way(name: str, tmp_path: Path) -> None:
    made = stock(tmp_path, machine="another machine")
    with ExitStack() as stack:
        if name == "agent":
            terminal = stack.enter_context(stocked_terminal(tmp_path))
            assert terminal.agent.faults["store"].code == "state_moved"
            access: OutboxAccess = stack.enter_context(AgentClient(tmp_path / "api.sock"))
        else:
            access = FilesAccess(stocked_config(tmp_path))
        with pytest.raises(AgentError) as refused:
            access.outbox_list()
        assert (code_of(refused.value), exit_code_of(refused.value)) == ("state_moved", 3)
        assert access.adopt().adopted
        assert made.waiting in {item.id for item in access.outbox_list().items}
        with pytest.raises(AgentError, match="belongs to this machine already"):
            access.adopt()
    with open_real_store(tmp_path) as store:
        found = store._database.execute("SELECT event FROM audit WHERE event LIKE 'adopted%' ORDER BY seq").fetchall()
        assert [row["event"] for row in found] == ["adopted", "adopted_by"]


def test_an_agent_that_was_degraded_forwards_after_the_adoption(tmp_path: Path) -> None:
    stock(tmp_path, machine="another machine")
    with stocked_terminal(tmp_path) as terminal, terminal.client() as client:
        client.adopt()
        assert "store" not in terminal.agent.faults
        assert client.outbox_retry_all().forwarding
