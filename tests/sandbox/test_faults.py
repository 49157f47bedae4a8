"""Every fault, seen from a plain HTTP client, and the queue that holds them."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from edge_agent.errors import AgentError, ModelError
from edge_agent.sandbox.faults import KINDS, Fault, FaultQueue
from edge_agent.sandbox.injector import PLAYS
from edge_agent.sandbox.matcher import Comparison, RuleMatcher
from edge_agent.sandbox.server import SandboxServer
from tests.sandbox.conftest import Caller


@pytest.fixture
def ready(enrolled: Caller) -> Caller:
    """A client whose next match would be positive."""
    enrolled.upload(b"target")
    return enrolled


def test_every_kind_is_explained_and_played():
    assert set(PLAYS) | {"reset_request"} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("drop", httpx.RemoteProtocolError, "without sending a response"),
        ("reset", httpx.ReadError, "reset by peer"),
        ("reset_request", httpx.TransportError, "reset by peer|disconnected without"),
        ("truncate", httpx.RemoteProtocolError, "received 16 bytes, expected 32"),
    ],
)
def test_a_broken_connection_is_broken_on_the_wire(ready: Caller, kind: str, error: type[Exception], message: str):
    ready.inject("match", kind)
    with pytest.raises(error, match=message):
        ready.match()
    assert ready.match().json()["match"] is True, "and only once"
    assert [r.status for r in ready.server.requests[-2:]] == [None, 200]


@pytest.mark.parametrize(("kind", "judged"), [("drop", 1), ("reset", 1), ("truncate", 1), ("reset_request", 0)])
def test_a_lost_answer_does_not_mean_that_nothing_happened(ready: Caller, kind: str, judged: int):
    ready.inject("match", kind)
    with pytest.raises(httpx.TransportError):
        ready.match()
    assert len(ready.server.judged) == judged


def test_effect_decides_whether_the_request_is_carried_out(ready: Caller):
    ready.inject("match", "status", effect=True)
    ready.inject("match", "truncate", effect=False)
    assert ready.match().status_code == 500
    assert len(ready.server.judged) == 1
    with pytest.raises(httpx.RemoteProtocolError):
        ready.match()
    assert len(ready.server.judged) == 1


def test_a_reset_in_the_middle_of_an_upload_stores_nothing(ready: Caller):
    url = ready.generate_url().json()["url"]
    ready.inject("put", "reset_request", at_bytes=100_000)
    with pytest.raises(httpx.TransportError):
        ready.put(url, b"x" * 5_000_000)
    ready.match()
    assert ready.server.judged[-1].target_sha256.startswith("34a04005bcaf206e"), "still the target before it"


def test_a_reset_waits_for_the_bytes_it_was_told_to(ready: Caller):
    ready.inject("put", "reset_request", at_bytes=5)
    with socket.create_connection(("127.0.0.1", ready.server.port), timeout=10) as raw:
        head = f"PUT /storage/x HTTP/1.1\r\nHost: {ready.server.host}\r\nContent-Length: 1000\r\n"
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 100"), "it asks for the body"
        raw.sendall(b"12345")
        with pytest.raises(ConnectionResetError):
            raw.recv(1000)


def test_an_upload_that_breaks_off_stores_nothing(ready: Caller):
    url = httpx.URL(ready.generate_url().json()["url"])
    with socket.create_connection(("127.0.0.1", ready.server.port)) as raw:
        head = f"PUT {url.raw_path.decode()} HTTP/1.1\r\nHost: {ready.server.host}\r\nContent-Type: image/jpeg\r\n"
        raw.sendall(f"{head}Content-Length: 1000\r\n\r\nhalf".encode())
    ready.match()
    assert ready.server.judged[-1].target_sha256.startswith("34a04005bcaf206e")


def test_the_cut_can_be_placed(ready: Caller):
    ready.inject("match", "truncate", at_bytes=3)
    with pytest.raises(httpx.RemoteProtocolError, match="received 3 bytes"):
        ready.match()


def test_an_empty_answer_is_cut_too(ready: Caller):
    ready.inject("put", "truncate")
    with pytest.raises(httpx.RemoteProtocolError, match="received 32 bytes, expected 64"):
        ready.upload()


def test_latency_delays_a_correct_answer(ready: Caller):
    ready.inject("match", "latency", latency_s=0.2)
    started_s = time.monotonic()
    assert ready.match().json()["match"] is True
    assert time.monotonic() - started_s >= 0.2


def test_a_hanging_request_leaves_the_server_responsive(ready: Caller):
    ready.inject("match", "hang")
    with pytest.raises(httpx.ReadTimeout):
        ready.http.post(
            "/api/face/match/", headers={"authorization": ready.token}, json={"userId": "alice"}, timeout=0.1
        )
    assert ready.match().status_code == 200


def test_a_slow_answer_comes_byte_by_byte(ready: Caller):
    ready.inject("match", "slow", bytes_per_s=500)
    request = ready.http.build_request(
        "POST", "/api/face/match/", headers={"authorization": ready.token}, json={"userId": "alice"}
    )
    answer = ready.http.send(request, stream=True)
    pieces = list(answer.iter_raw())
    assert len(pieces) > 5
    assert b"".join(pieces) == b'{"match":true,"similarity":99.5}'


@pytest.mark.parametrize("step", ["token", "refresh", "generate_url", "put", "match"])
@pytest.mark.parametrize("status", [400, 402, 403, 404, 406, 429, 500, 503])
def test_any_step_can_answer_any_status(ready: Caller, step: str, status: int):
    url = ready.generate_url().json()["url"]
    ready.inject(step, "status", status=status, retry_after=7)
    calls: dict[str, Any] = {
        "token": ready.access_token,
        "refresh": ready.refresh,
        "generate_url": ready.generate_url,
        "put": lambda: ready.put(url),
        "match": ready.match,
    }
    answer = calls[step]()
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert calls[step]().status_code == 200


@pytest.mark.parametrize(
    ("parameters", "status", "content_type", "start"),
    [
        ({"kind": "status"}, 500, "application/json", '{"message"'),
        ({"kind": "status", "status": 409, "body": "", "content_type": "text/plain"}, 409, "text/plain", ""),
        ({"kind": "status", "status": 204}, 204, "application/json", ""),
        ({"kind": "html"}, 200, "text/html", "<!DOCTYPE html>"),
        ({"kind": "html", "status": 511}, 511, "text/html", "<!DOCTYPE html>"),
        ({"kind": "garbage"}, 200, "application/json", '{"match": tru'),
        ({"kind": "garbage", "body": "é"}, 200, "application/json", "é"),
        ({"kind": "contradict"}, 200, "application/json", '{"match": true, "faceMatch": false'),
    ],
)
def test_an_answer_can_be_replaced(
    ready: Caller, parameters: dict[str, Any], status: int, content_type: str, start: str
):
    ready.inject("match", **parameters)
    answer = ready.match()
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.startswith(start)


def test_a_redirect_leads_to_another_host(ready: Caller):
    ready.inject("match", "redirect", status=307, location="https://elsewhere.example/")
    ready.inject("put", "redirect")
    match, put = ready.match(), ready.upload()
    assert (match.status_code, match.headers["location"]) == (307, "https://elsewhere.example/")
    assert (put.status_code, put.headers["location"]) == (302, "http://portal.invalid/login")


def test_a_contradictory_answer_of_another_step_claims_failure(ready: Caller):
    ready.inject("any", "contradict")
    answer = ready.generate_url().json()
    assert answer["success"] is False
    assert answer["url"]


def test_a_persistent_fault_stays_until_it_is_cleared(ready: Caller):
    ready.inject("match", "status", times=None)
    assert [ready.match().status_code for _ in range(4)] == [500] * 4
    ready.server.clear_faults()
    assert ready.match().status_code == 200


def test_only_the_chosen_step_fails(ready: Caller):
    ready.inject("put", "status")
    assert ready.match().status_code == 200
    assert ready.upload().status_code == 500


QUEUES: list[tuple[str, list[dict[str, Any]], list[str], list[str | None]]] = [
    ("nothing", [], ["match"], [None]),
    ("once", [{"step": "match"}], ["match", "match"], ["html", None]),
    ("times", [{"step": "match", "times": 2}], ["match"] * 3, ["html", "html", None]),
    ("any", [{"step": "any", "times": 2}], ["token", "put", "match"], ["html", "html", None]),
    ("skip", [{"step": "put", "skip": 2}], ["put"] * 4, [None, None, "html", None]),
    ("order", [{"step": "match"}, {"step": "match", "kind": "drop"}], ["match"] * 3, ["html", "drop", None]),
    ("behind", [{"step": "put", "skip": 1}, {"step": "put", "kind": "drop"}], ["put"] * 2, ["drop", "html"]),
    ("other", [{"step": "put"}], ["match", "put"], [None, "html"]),
]


@pytest.mark.parametrize(("faults", "steps", "kinds"), [q[1:] for q in QUEUES], ids=[q[0] for q in QUEUES])
def test_the_queue_gives_each_request_its_fault(faults: list[Any], steps: list[Any], kinds: list[str | None]):
    queue = FaultQueue()
    for fault in faults:
        queue.add(Fault.model_validate({"kind": "html", **fault}))
    assert [f.kind if (f := queue.take(step)) else None for step in steps] == kinds
    assert queue.waiting() == []


def test_the_queue_shows_what_is_left():
    queue = FaultQueue()
    queue.add(Fault(step="match", kind="html", times=5, skip=1))
    for _ in range(3):
        queue.take("match")
    assert queue.waiting() == [Fault(step="match", kind="html", times=3, skip=0)]


@pytest.mark.parametrize(
    "fault",
    [
        {"step": "match", "kind": "late_put"},
        {"step": "any", "kind": "late_put"},
        {"step": "put", "kind": "late_put", "effect": False},
        {"step": "put", "kind": "latency", "effect": False},
        {"step": "put", "kind": "reset_request", "effect": True},
        {"step": "match", "kind": "explode"},
        {"step": "elsewhere", "kind": "html"},
        {"step": "match", "kind": "html", "times": 0},
        {"step": "match", "kind": "status", "status": 42},
        {"step": "match", "kind": "status", "statsu": 500},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, Any]):
    with pytest.raises(ValidationError):
        Fault.model_validate(fault)


class SlowMatcher(RuleMatcher):
    """Compares only when it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        self.began.set()
        assert self.go.wait(10)
        return super().compare(user_id, source, target)


def test_the_server_answers_while_a_match_is_computed():
    matcher = SlowMatcher()
    with SandboxServer(matcher=matcher) as server:
        caller, answers = Caller(server), list[httpx.Response]()
        with caller.http:
            caller.log_in()
            server.enrol("alice", b"source")
            caller.upload()
            thread = threading.Thread(target=lambda: answers.append(caller.match()))
            thread.start()
            assert matcher.began.wait(10)
            assert caller.upload(b"next", "alice").status_code == 200
            matcher.go.set()
            thread.join(10)
    assert answers[0].json()["match"] is True


class BrokenMatcher(RuleMatcher):
    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        error: AgentError = ModelError("cannot run the model: out of memory")
        raise error


def test_a_failing_matcher_is_an_upstream_error():
    with SandboxServer(matcher=BrokenMatcher()) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            server.enrol("alice", b"source")
            caller.upload()
            assert caller.match().status_code == 402
        assert server.judged == ()


class NoticedMatcher(RuleMatcher):
    """Tells when it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        self.asked.set()
        return super().compare(user_id, source, target)


def test_hanging_and_slow_answers_do_not_hold_up_the_stop():
    matcher, errors = NoticedMatcher(), list[httpx.TransportError]()
    with SandboxServer(matcher=matcher) as server:
        caller = Caller(server)
        caller.log_in()
        server.enrol("alice", b"source")
        caller.upload()
        server.inject(Fault(step="match", kind="hang"), Fault(step="token", kind="slow"))

        def ask() -> None:
            try:
                caller.match()
            except httpx.TransportError as exc:
                errors.append(exc)

        hanging = threading.Thread(target=ask)
        hanging.start()
        assert matcher.asked.wait(10)
        slow = caller.http.send(caller.http.build_request("POST", "/api/access-token/"), stream=True)
        started_s = time.monotonic()
    stopped_after_s = time.monotonic() - started_s
    hanging.join(10)
    slow.close()
    caller.http.close()
    assert len(errors) == 1
    assert stopped_after_s < 2
