"""Thousands of made-up requests: whatever comes, the answer is one that docs/openapi.json has for that call."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent.api import wire
from edge_agent.api.operation import EVENT_STREAM
from edge_agent.sandbox.server import SandboxServer
from edge_agent.simulator.run import tokens
from tests.api.calls import SOURCE
from tests.api.test_sockets import ADMIN, over_tcp
from tests.project.tree import ROOT
from tests.simulator.conftest import simulator
from tests.terminal import terminal

SEED = int(os.environ.get("EDGE_AGENT_FUZZ_SEED") or secrets.randbelow(2**32))
EXAMPLES = int(os.environ.get("EDGE_AGENT_FUZZ_EXAMPLES") or 65)
"""Made-up requests per operation, beside those that the schema's own limits give."""
SIMULATED = (EXAMPLES, "examples,coverage,fuzzing,stateful", 2000)
DAEMON = (EXAMPLES // 6, "fuzzing,stateful", 100)
"""How many of them, of which kinds, and how many cases that gives at least. The daemon gets a few: its API is the same."""
WITHIN_S = 480.0
"""A limit against hanging; what it takes is printed."""
LONGEST_WAIT_S = 0.3
LONGEST_FILMING_S = 1.0
SHORTER = {"wait": LONGEST_WAIT_S, "search_timeout_s": LONGEST_FILMING_S}
"""The greatest value of a query parameter, in seconds."""


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """The real daemon's application with a made-up camera, which nothing locks out."""
    monkeypatch.setattr(wire, "MAX_WAIT_S", LONGEST_WAIT_S)
    monkeypatch.setattr(wire, "MAX_ENROLMENT_S", LONGEST_FILMING_S)
    with SandboxServer() as sandbox:
        for user in ("customer-17", "0"):
            sandbox.enrol(user, SOURCE)
        limits = {"search_timeout_s": 1.0, "max_failures": 0}
        api = over_tcp(tmp_path)
        with terminal(tmp_path, sandbox, session=limits, enrolment={"search_timeout_s": LONGEST_FILMING_S}, api=api):
            yield Target(f"http://{api['tcp']}", ADMIN)


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """The simulator, playing so fast that hardly a request has to wait for another's session."""
    monkeypatch.setattr(wire, "MAX_WAIT_S", LONGEST_WAIT_S)
    monkeypatch.setattr(wire, "MAX_ENROLMENT_S", LONGEST_FILMING_S)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with simulator(tmp_path, speed=100, tcp=address):
        yield Target(f"http://{address}", tokens(tmp_path / "kept")["admin"])


class Target(NamedTuple):
    """What serves the API."""

    url: str
    token: str


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
            if parameter["name"] in SHORTER:
                parameter["schema"]["maximum"] = SHORTER[parameter["name"]]
        for answer in operation["responses"].values():
            answer["links"] = {name: link for name, link in answer.get("links", {}).items() if name not in streams}
    return document


@pytest.mark.parametrize(("fixture", "effort"), [("simulated", SIMULATED), ("daemon", DAEMON)])
def test_no_request_gets_an_answer_that_is_not_documented(
    fixture: str, effort: tuple[int, str, int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    examples, phases, at_least = effort
    target: Target = request.getfixturevalue(fixture)
    schema = tmp_path / "openapi.json"
    schema.write_text(json.dumps(document_to_fuzz()))
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "tests/api/fuzz.toml"), "run", str(schema),
         "--url", target.url, "--seed", str(SEED), "--max-examples", str(examples), "--phases", phases, "--request-timeout", "20",
         "--header", f"Authorization: Bearer {target.token}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    took_s = time.monotonic() - began_s
    said = f"EDGE_AGENT_FUZZ_SEED={SEED}, {took_s:.0f} s\n{done.stdout}\n{done.stderr}"
    print(said)
    assert done.returncode == 0, said
    cases = sum(int(number.replace(",", "")) for number in re.findall(r"([0-9,]+) generated", done.stdout))
    assert cases >= at_least, said
