"""A running terminal and its sandbox, for every test of the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.terminal import Terminal, terminal


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
