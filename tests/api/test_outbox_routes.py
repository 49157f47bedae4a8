"""The operator's routes from outside: what they refuse, and that forwarding hears of a retry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.api.access import Access
from edge_agent.api.routes import route_table
from edge_agent.client import AgentClient
from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import raw, until_final
from tests.stocked import PICTURE, Stock, stock, stocked_terminal
from tests.terminal import Terminal


@pytest.fixture
def stocked(tmp_path: Path) -> Iterator[tuple[Terminal, Stock]]:
    made = stock(tmp_path)
    with stocked_terminal(tmp_path) as terminal:
        yield terminal, made


def ask(terminal: Terminal, method: str, path: str) -> httpx.Response:
    with raw(terminal) as http:
        return http.request(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/outbox?limit=0"),
        ("GET", "/v1/outbox?limit=1001"),
        ("GET", "/v1/outbox?limit=²"),
        ("GET", "/v1/outbox?before=-1"),
        ("GET", "/v1/outbox?parked=yes"),
        ("DELETE", "/v1/outbox"),
        ("DELETE", "/v1/outbox?which=everything"),
        ("POST", "/v1/outbox/retry?parked=1"),
        ("POST", "/v1/audit/verify?expect_head=7"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(refusing: Terminal, method: str, path: str) -> None:
    answer = ask(refusing, method, path)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"].startswith("cannot ")


def test_the_operators_routes_are_for_admins() -> None:
    prefixes = ("/v1/outbox", "/v1/audit", "/v1/key", "/v1/adopt")
    roles = {entry.role for entry in route_table() if entry.path.startswith(prefixes)}
    assert roles == {"admin"}


def test_a_caller_who_is_not_admitted_gets_no_picture(stocked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, made = stocked
    monkeypatch.setattr(Access, "peer_of", lambda *_: None)
    answer = ask(terminal, "POST", f"/v1/outbox/{made.waiting}/export")
    assert (answer.status_code, PICTURE in answer.content) == (403, False)


def test_a_picture_is_never_kept_by_anything_in_between(stocked: Any) -> None:
    terminal, made = stocked
    answer = ask(terminal, "POST", f"/v1/outbox/{made.waiting}/export")
    assert (answer.content, answer.headers["content-type"]) == (PICTURE, "image/jpeg")
    assert answer.headers["cache-control"] == "no-store"


def test_a_picture_is_never_got_by_a_mere_look(stocked: Any) -> None:
    terminal, made = stocked
    assert ask(terminal, "GET", f"/v1/outbox/{made.waiting}/export").status_code == 405


def test_what_ails_the_store_is_a_documented_problem(stocked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, _ = stocked

    def broken(*_: object) -> None:
        raise StorageError("cannot use the file after an error of the storage")

    monkeypatch.setattr(Store, "verify_part", broken)
    answer = ask(terminal, "POST", "/v1/outbox/verify")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_failed")


def test_a_long_check_leaves_the_store_to_others_in_between(stocked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, _ = stocked
    monkeypatch.setattr("edge_agent.outbox.proof._PART", 1)
    monkeypatch.setattr("edge_agent.outbox.audit._PART", 4)
    turns: list[str] = []
    run = terminal.agent.keeper.run

    async def counted(call: Any, *args: Any, **kwargs: Any) -> Any:
        turns.append(call.__name__)
        return await run(call, *args, **kwargs)

    monkeypatch.setattr(terminal.agent.keeper, "run", counted)
    body = ask(terminal, "POST", "/v1/outbox/verify").json()
    audit = ask(terminal, "POST", "/v1/audit/verify").json()
    assert (body["ok"], body["verifications"], turns.count("verify_part")) == (True, 4, 5)
    assert (audit["ok"], audit["records"], turns.count("walk_audit")) == (True, body["audit_records"], 6)


def test_a_parked_capture_that_is_retried_is_forwarded_at_once(client: AgentClient, sandbox: SandboxServer) -> None:
    record = client.verify("stranger", wait_s=10)
    assert record.state is State.FAILED
    sandbox.enrol("stranger", b"source picture")
    client.outbox_retry(record.id)
    assert until_final(client, client.get(record.id)).state is State.VERIFIED


def test_stopped_forwarding_tries_at_once_when_told_to(client: AgentClient, sandbox: SandboxServer) -> None:
    sandbox.vary(api_key_revoked=True)
    record = client.verify("alice", wait_s=10)
    assert record.state is State.PENDING
    assert client.status()["network"]["state"] == "stopped"
    sandbox.vary(api_key_revoked=False)
    client.outbox_retry_all()
    assert until_final(client, record).state is State.VERIFIED
