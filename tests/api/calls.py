"""What the tests of the API call with."""

from __future__ import annotations

import time
from typing import Any

import httpx

from edge_agent.api.wire import VerificationBody
from edge_agent.client import AgentClient
from tests.terminal import Terminal

SOURCE = b"source picture"


def raw(t: Terminal) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(t.socket)), base_url="http://agent", timeout=20)


def start(t: Terminal, key: str = "k-1", **options: Any) -> httpx.Response:
    with raw(t) as http:
        return http.post("/v1/verifications", headers={"Idempotency-Key": key}, **options)


def until_final(client: AgentClient, record: VerificationBody, seconds: float = 10.0) -> VerificationBody:
    deadline = time.monotonic() + seconds
    while not record.final and time.monotonic() < deadline:
        time.sleep(0.02)
        record = client.get(record.id)
    return record
