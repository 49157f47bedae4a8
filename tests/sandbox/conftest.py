from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer

TIMEOUT_S = 10.0


class Caller:
    """The documented calls, one method each, with nothing clever: every answer comes back as it is."""

    def __init__(self, server: SandboxServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.base_url, timeout=TIMEOUT_S, trust_env=False, verify=False)
        self.token = ""

    def access_token(self, **headers: str) -> httpx.Response:
        known = {"merchantId": self.server.credentials.merchant_id, "x-api-key": self.server.credentials.api_key}
        sent = {k: v for k, v in {**known, **headers}.items() if v}
        return self.http.post("/api/access-token/", headers=sent)

    def log_in(self) -> None:
        answer = self.access_token().json()
        fields = answer.get("data", answer)
        self.token = next(fields[k] for k in ("accessToken", "access_token", "token") if k in fields)

    def refresh(self, authorization: str | None = None) -> httpx.Response:
        return self.http.post("/api/refresh-token/", headers={"authorization": authorization or self.token})

    def generate_url(self, user_id: str = "alice", type_: str = "match", **changes: Any) -> httpx.Response:
        body = {"userId": user_id, "imageName": "a.jpg", "contentType": "image/jpeg", "type": type_, **changes}
        body = {k: v for k, v in body.items() if v is not None}
        return self.http.post("/api/upload/generate-url/", headers={"authorization": self.token}, json=body)

    def put(self, url: str, content: bytes = b"picture", **headers: str) -> httpx.Response:
        return self.http.put(url, content=content, headers={"content-type": "image/jpeg", **headers})

    def upload(self, content: bytes = b"picture", user_id: str = "alice", type_: str = "match") -> httpx.Response:
        return self.put(self.generate_url(user_id, type_).json()["url"], content)

    def match(self, user_id: str = "alice", path: str = "/api/face/match/") -> httpx.Response:
        return self.http.post(path, headers={"authorization": self.token}, json={"userId": user_id})

    def control(self, method: str, path: str, json: Any = None) -> httpx.Response:
        return self.http.request(method, f"/_sandbox/{path}", json=json)

    def inject(self, step: str, kind: str, **parameters: Any) -> None:
        self.server.inject(Fault.model_validate({"step": step, "kind": kind, **parameters}))


@pytest.fixture(scope="package")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def caller(server: SandboxServer) -> Iterator[Caller]:
    """A client of a sandbox without users, with default variants, no faults, and a token in hand."""
    server.reset()
    caller = Caller(server)
    with caller.http:
        caller.log_in()
        yield caller


@pytest.fixture
def enrolled(caller: Caller) -> Caller:
    """The same, with alice and no-bob enrolled."""
    caller.server.enrol("alice", b"alice's source")
    caller.server.enrol("no-bob", b"bob's source")
    return caller
