"""A request that could mean something else than its sender thinks is refused, and nobody is filmed for it."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from edge_agent.errors import StorageError
from tests.api.calls import raw, start
from tests.terminal import Terminal

JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "k"}


def test_what_is_not_declared_is_refused(running: Terminal) -> None:
    """One terminal for the whole table: nothing here may change it."""
    refused: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("POST", "/v1/verifications?wait_s=5", {"json": {"user_id": "a"}}, 400, "Did you mean wait?"),
        ("POST", "/v1/verifications?wait=1&wait=2", {"json": {"user_id": "a"}}, 400, "given 2 times"),
        ("POST", "/v1/verifications?wait=1_0", {"json": {"user_id": "a"}}, 400, "wait='1_0'"),
        ("POST", "/v1/verifications?wait=%201", {"json": {"user_id": "a"}}, 400, "wait=' 1'"),
        ("POST", "/v1/verifications", {"json": {"userid": "a"}, "headers": KEY}, 422, "Did you mean user_id?"),
        ("POST", "/v1/verifications", {"json": {"user_id": "a", "ammount": "1"}, "headers": KEY}, 400, "Did you mean amount?"),
        ("POST", "/v1/verifications", {"json": {"user_id": "a", "xyz": 1}, "headers": KEY}, 400, "There are: user_id, "),
        ("POST", "/v1/verifications", {"content": b'{"user_id": "a"', "headers": KEY}, 400, "not JSON (line 1, column 16)"),
        ("GET", "/v1/verifications?State=pending", {}, 400, "Did you mean state?"),
        ("GET", "/v1/health?verbose", {}, 400, "takes no query parameters"),
        ("GET", "/v1/health?verbose=1", {}, 400, "takes no query parameters"),
        ("HEAD", "/v1/health?verbose=1", {}, 400, ""),
        ("POST", "/v1/outbox/retry", {"json": {"parked": True}}, 400, "retryOutbox takes none"),
        ("POST", "/v1/verifications/a/withdraw", {"json": {}}, 400, "Send none"),
        ("POST", "/v1/reload", {"content": iter([b"x"])}, 400, "takes none"),
        ("POST", "/v1/verifications", {"data": {"user_id": "a"}}, 415, "Send the header Content-Type: application/json."),
        ("POST", "/v1/verifications", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
        ("POST", "/v1/verifications",
         {"content": b"{}", "headers": {"Content-Type": "application/json; charset=latin1"}}, 415, "charset=latin1"),
        ("POST", "/v1/verifications", {"content": b"{}", "headers": JSON | {"Content-Encoding": "gzip"}}, 415, "compressed"),
        ("PUT", "/v1/users/a/source", {"content": b"picture"}, 415, "cannot read a body without a content type"),
        ("PUT", "/v1/users/a/source", {"json": {}}, 415, "image/jpeg"),
        ("GET", "/v1/status/", {}, 404, "/v1/status/"),
        ("OPTIONS", "/v1/status", {}, 405, "OPTIONS"),
    ]  # fmt: skip
    with raw(running) as http:
        for method, path, options, status, says in refused:
            answer = http.request(method, path, **options)
            assert answer.status_code == status, (path, answer.text)
            assert says in answer.text, (path, answer.text)
            if status >= 400 and method != "HEAD":
                assert answer.headers["content-type"] == "application/problem+json"
    assert running.camera.opened == 0


def test_json_that_not_everybody_reads_alike_is_refused(running: Terminal) -> None:
    refused = [
        (b'{"user_id": "alice", "user_id": "bob"}', "'user_id' stands twice"),
        (b'{"user_id": "a", "consent": {"reference": "r", "reference": "s"}}', "'reference' stands twice"),
        (b'{"user_id": "a", "search_timeout_s": NaN}', "not JSON"),
        (b'{"user_id": "a", "search_timeout_s": Infinity}', "not JSON"),
        (b'{"user_id": "a", "search_timeout_s": 1e999}', "search_timeout_s"),
        (b'{"user_id": "a", "search_timeout_s": "5"}', "search_timeout_s"),
        (b'{"user_id": "a", "amount": 12345678901234.1234}', "amount"),
        (b'{"user_id": "a", "amount": 1e99999}', "amount"),
        (b'{"user_id": "a", "amount": ' + b"9" * 5000 + b"}", "not JSON"),
        ('{"user_id": "a", "amount": "\u0663"}'.encode(), "amount"),
        (b'{"user_id": "a", "reference": "\\ud800"}', "body"),
        (b'{"user_id": "\xff"}', "not JSON"),
        ('{"user_id": "a"}'.encode("utf-16"), "not JSON"),
        (b'\xef\xbb\xbf{"user_id": "a"}', "not JSON"),
        (b'{"user_id": "a"} {}', "not JSON"),
        (b"[" * 8000 + b"]" * 8000, "not JSON"),
    ]
    for body, says in refused:
        answer = start(running, content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), body
        assert says in answer.json()["detail"], answer.json()
    assert running.camera.opened == 0


def test_an_exact_amount_stays_exact(running: Terminal) -> None:
    for key, (written, meant) in enumerate({'"12345678901234.1234"': "12345678901234.1234", "99999999999": "99999999999",
                                            "0.1": "0.1", "-0.0": "0.0"}.items()):  # fmt: skip
        body = b'{"user_id": "alice", "amount": ' + written.encode() + b"}"
        answer = start(running, f"k-{key}", content=body, params={"wait": "5"})
        assert answer.json()["amount"] == meant


def test_a_body_that_is_announced_too_large_is_not_waited_for(running: Terminal) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(running.socket))
        asking.sendall(b"POST /v1/verifications HTTP/1.1\r\nHost: a\r\nContent-Length: 16385\r\n\r\n{")
        assert asking.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_head_is_get_without_its_body_also_of_a_stream(running: Terminal) -> None:
    with raw(running) as http:
        for path in ("/v1/status", "/v1/events", "/v1/openapi.json"):
            answer = http.head(path)
            assert (answer.status_code, answer.content) == (200, b""), path
        assert http.head("/v1/events").headers["content-type"].startswith("text/event-stream")


def test_an_answer_that_is_not_documented_for_its_call_is_noticed(
    running: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, undocumented: list[str]
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StorageError("cannot say", code="storage_full")

    monkeypatch.setattr("edge_agent.api.condition._outbox", full)
    with caplog.at_level(logging.ERROR), raw(running) as http:
        assert http.get("/v1/status").json()["code"] == "storage_full"
    assert undocumented == ["GET /v1/status answers storage_full, which is not documented for it (storage_full)"]
    undocumented.clear()
