"""A running terminal whose page of metrics is always fresh."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.availability import ForwarderStatus
from edge_agent.errors import EnvironmentFault
from edge_agent.metrics import page
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE, raw
from tests.metrics.scrapes import Scrape, scrape
from tests.outbox.fakes import ENVIRONMENT, capture
from tests.terminal import Terminal, terminal

PATIENT: dict[str, dict[str, Any]] = {
    "session": {"search_timeout_s": 30.0, "verdict_timeout_s": 30.0},
    "cypherface": {"timeouts": {"connect_s": 10.0, "request_s": 20.0, "match_s": 20.0}},
}
"""Changes of a terminal's configuration with which a busy machine changes no outcome."""
ALICE, BOB = "alice-4711-planted", "no-bob-0815-planted"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KEPT_S", 0.0)


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        for user in (ALICE, BOB):
            server.enrol(user, SOURCE)
        yield server


@pytest.fixture
def running(tmp_path: Path, sandbox: SandboxServer) -> Iterator[Terminal]:
    with terminal(tmp_path, sandbox, **PATIENT) as t:
        yield t


@pytest.fixture
def everything(running: Terminal, monkeypatch: pytest.MonkeyPatch) -> Scrape:
    """A scrape in which there is something to say of everything."""
    stopped = ForwarderStatus("stopped", "unauthenticated", last_success_at=datetime.now(UTC))
    with running.client() as client, raw(running) as http:
        client.verify(ALICE, wait_s=60)
        client.reload()
        assert http.get("/v1/verifications/none").status_code == 404
        assert http.get("/v1/health", headers={"Origin": "http://evil.example"}).status_code == 403
    agent = running.agent
    running.run(agent.keeper.run(lambda store: capture(store, environment=ENVIRONMENT)))
    agent.set_fault("socket", EnvironmentFault("cannot share", code="socket_group_unusable"))
    agent.tally.failures.add("interrupted")
    agent.tally.attempt("parked", "capture_refused")
    monkeypatch.setattr(Agent, "forwarder_status", property(lambda _: stopped))
    return scrape(running)
