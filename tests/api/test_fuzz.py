"""Thousands of made-up requests: whatever comes, the answer is one that docs/openapi.json has for that call."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_agent.api import wire
from edge_agent.api.operation import EVENT_STREAM
from edge_agent.api.peer import STATE_KEY, Peer
from edge_agent.api.routes import application
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.project.tree import ROOT
from tests.terminal import Terminal, terminal

SEED = int(os.environ.get("EDGE_AGENT_FUZZ_SEED") or secrets.randbelow(2**32))
EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES") or 80)
"""Made-up requests per operation, beside those that the schema's own limits give."""
AT_LEAST = 2000
WITHIN_S = 480.0
"""A limit against hanging; what it takes is printed."""
LONGEST_WAIT_S = 0.3


class AdminProtocol(H11Protocol):
    """Loopback TCP as if everybody were root."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state: dict[str, Any] = {**self.app_state, STATE_KEY: Peer(os.getpid(), 0, 0)}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def over_tcp(t: Terminal) -> Iterator[str]:
    """The terminal's own application on a loopback port; its URL."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application(t.agent, t.settings), http=AdminProtocol, ws="none", lifespan="off", log_config=None
    )
    server = _Server(config)
    serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[sock]), t._loop)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.result(20)
        sock.close()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The real daemon's application with a made-up camera, which nothing locks out."""
    monkeypatch.setattr(wire, "MAX_WAIT_S", LONGEST_WAIT_S)
    with SandboxServer() as sandbox:
        for user in ("customer-17", "0"):
            sandbox.enrol(user, SOURCE)
        limits = {"search_timeout_s": 1.0, "max_failures": 0}
        with terminal(tmp_path, sandbox, session=limits) as t, over_tcp(t) as url:
            yield url


@pytest.fixture(params=["daemon"])
def target(request: pytest.FixtureRequest) -> str:
    """Whatever serves this API."""
    url: str = request.getfixturevalue(request.param)
    return url


def document_to_fuzz() -> dict[str, Any]:
    """The published document without the streams, which have tests of their own, and with short waits."""
    document: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    streams = set()
    for path, operations in list(document["paths"].items()):
        for operation in operations.values():
            if EVENT_STREAM in operation["responses"].get("200", {}).get("content", {}):
                streams.add(operation["operationId"])
                del document["paths"][path]
    for operation in (operation for operations in document["paths"].values() for operation in operations.values()):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "wait":
                parameter["schema"]["maximum"] = LONGEST_WAIT_S
        for answer in operation["responses"].values():
            answer["links"] = {name: link for name, link in answer.get("links", {}).items() if name not in streams}
    return document


def test_no_request_gets_an_answer_that_is_not_documented(target: str, tmp_path: Path) -> None:
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(document_to_fuzz()))
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "tests/api/fuzz.toml"), "run", str(schema),
         "--url", target, "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--request-timeout", "20"],
        cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    took_s = time.monotonic() - began_s
    said = f"EDGE_AGENT_FUZZ_SEED={SEED}, {took_s:.0f} s\n{done.stdout}\n{done.stderr}"
    print(said)
    assert done.returncode == 0, said
    cases = sum(int(number.replace(",", "")) for number in re.findall(r"([0-9,]+) generated", done.stdout))
    assert cases >= AT_LEAST, said
