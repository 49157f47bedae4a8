"""A running terminal and its sandbox, for every test of the API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.terminal import Terminal, terminal


@pytest.fixture(autouse=True)
def undocumented() -> Iterator[list[str]]:
    """What was answered beside the documentation; there must be nothing of it when a test ends."""
    heard: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    only = logging.Filter()
    only.filter = lambda record: "which is not documented" in record.getMessage()  # type: ignore[method-assign]
    handler.addFilter(only)
    log = logging.getLogger("edge_agent.api.routes")
    log.addHandler(handler)
    yield heard
    log.removeHandler(handler)
    assert heard == []


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        for user in ("alice", "no-bob"):
            server.enrol(user, SOURCE)
        yield server


@pytest.fixture
def running(tmp_path: Path, sandbox: SandboxServer) -> Iterator[Terminal]:
    with terminal(tmp_path, sandbox) as t:
        yield t


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One terminal for a module's tables of requests that are refused: they leave nothing behind."""
    with SandboxServer() as server, terminal(tmp_path_factory.mktemp("refusing"), server) as t:
        yield t


@pytest.fixture
def client(running: Terminal) -> Iterator[AgentClient]:
    with running.client() as c:
        yield c
