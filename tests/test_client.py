"""The client when the agent does not answer: what is repeated, for how long, and how a stream goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent import client as module
from edge_agent.api.wire_events import DroppedEvent, HintEvent
from edge_agent.client import AgentClient, ApiError, ServerEvent
from edge_agent.errors import AgentError, EnvironmentFault

pytestmark = pytest.mark.arm


class Time:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Agent:
    """Answers what it was told to, one after the other, the last for ever; notes what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    passing = Time()
    monkeypatch.setattr(module, "time", passing)
    return passing


@pytest.fixture
def connect(tmp_path: Path, passing: Time) -> Iterator[Callable[..., AgentClient]]:
    clients = []

    def connect(agent: Agent, **options: Any) -> AgentClient:
        socket = tmp_path / "api.sock"
        socket.touch()
        client = AgentClient(socket, **options)
        client._http.close()
        client._http = httpx.Client(transport=httpx.MockTransport(agent), base_url="http://edge-agent")
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def problem(code: str, status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "cannot", "retryable": True}, headers=headers)


GONE = httpx.ConnectError("no such file")
CUT = httpx.RemoteProtocolError("peer closed connection")
FINE = httpx.Response(200, json={"ready": True})


@pytest.mark.parametrize(
    ("call", "patience_s", "answers", "asked", "code"),
    [
        ("status", 0.0, [GONE, FINE], 1, "agent_unreachable"),
        ("status", 5.0, [GONE, CUT, FINE], 3, None),
        ("status", 0.5, [GONE], 3, "agent_unreachable"),
        ("status", 5.0, [problem("starting", 503), problem("stopping", 503), FINE], 3, None),
        ("status", 5.0, [problem("storage_failed", 503), FINE], 1, "storage_failed"),
        ("reload", 5.0, [CUT, FINE], 1, "agent_unreachable"),  # nobody knows what came of it, and it has no key
        ("verify", 5.0, [CUT, problem("busy", 409)], 2, "busy"),
        ("verify", 0.0, [problem("starting", 503)], 1, "starting"),
    ],
)
def test_only_what_is_safe_is_repeated_and_only_for_the_patience_given(
    connect: Callable[..., AgentClient],
    passing: Time,
    call: str,
    patience_s: float,
    answers: list[httpx.Response | Exception],
    asked: int,
    code: str | None,
) -> None:
    agent = Agent(*answers)
    client = connect(agent, patience_s=patience_s)
    try:
        getattr(client, call)(*(["alice"] if call == "verify" else []))
        raised = None
    except AgentError as exc:
        raised = exc.code
    assert (raised, len(agent.asked)) == (code, asked)
    assert len({request.headers.get("Idempotency-Key") for request in agent.asked}) == 1, "one key for all tries"
    assert passing.now_s <= patience_s


def test_a_missing_socket_is_waited_for_too(connect: Callable[..., AgentClient], passing: Time, tmp_path: Path) -> None:
    client = connect(Agent(FINE), patience_s=2.0)
    (tmp_path / "api.sock").unlink()
    with pytest.raises(EnvironmentFault, match="there is no such socket"):
        client.status()
    assert 1.5 < passing.now_s <= 2.0


def test_when_to_come_back_is_told(connect: Callable[..., AgentClient]) -> None:
    client = connect(Agent(problem("locked_out", 429, **{"Retry-After": "120"}), problem("busy", 409)))
    told = []
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            client.verify("alice")
        told.append(caught.value.retry_after_s)
    assert told == [120.0, None]


def sse(*events: tuple[str, str, str]) -> bytes:
    return b": heartbeat\n\n" + b"".join(f"id: {i}\nevent: {k}\ndata: {d}\n\n".encode() for i, k, d in events)


class Breaking(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx.ReadError("reset")


def test_a_stream_goes_on_after_its_last_id_until_the_verification_is_final(
    connect: Callable[..., AgentClient],
) -> None:
    working = '{"state": "searching", "final": false}'
    agent = Agent(
        httpx.Response(200, stream=Breaking(sse(("l-1", "state", working), ("l-2", "hint", "{}")))),
        GONE,
        problem("starting", 503),
        httpx.Response(200, content=sse(("m-0", "dropped", "{}"))),
        httpx.Response(200, content=sse(("m-9", "state", '{"state": "failed", "final": true}'))),
    )
    events = list(connect(agent, patience_s=5.0).events("a"))
    assert [event.id for event in events] == ["l-1", "l-2", "m-0", "m-9"]
    assert [request.headers.get("Last-Event-ID") for request in agent.asked] == [None, "l-2", "l-2", "l-2", "m-0"]


def test_without_patience_a_break_is_an_error_and_an_end_is_an_end(connect: Callable[..., AgentClient]) -> None:
    body = sse(("l-1", "hint", "{}"))
    assert len(list(connect(Agent(httpx.Response(200, content=body))).events())) == 1
    with pytest.raises(EnvironmentFault) as caught:
        list(connect(Agent(httpx.Response(200, stream=Breaking(body)))).events())
    assert caught.value.code == "agent_unreachable"


class Barred(httpx.BaseTransport):
    """As httpx tells of a socket that the system keeps this user from."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 13] Permission denied") from PermissionError("denied")


@pytest.mark.parametrize("barred", ["the socket", "its folder"])
def test_what_this_user_may_not_open_is_not_called_a_dead_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barred: str
) -> None:
    def exists(_: Path) -> bool:
        if barred == "its folder":
            raise PermissionError("denied")
        return True

    socket = tmp_path / "api.sock"
    monkeypatch.setattr(Path, "exists", exists)
    with (
        AgentClient(socket, http=httpx.Client(transport=Barred(), base_url="http://edge-agent")) as client,
        pytest.raises(EnvironmentFault, match=f"cannot connect to {socket}: this user may not") as caught,
    ):
        client.status()
    assert caught.value.hint == "call with sudo, or join the group edge-agent"
    assert caught.value.exit_code == 3


def test_an_event_is_typed_where_its_kind_is_known() -> None:
    fields = {"at": "2026-01-01T00:00:00Z", "verification_id": None}
    hint = ServerEvent(
        "l-1", "hint", {**fields, "code": None, "text": "t", "since": fields["at"], "enrolment": False, "more": 1}
    ).body
    lost = ServerEvent("l-1", "dropped", {**fields, "count": None, "reason": "forgotten"}).body
    assert isinstance(hint, HintEvent)
    assert isinstance(lost, DroppedEvent)
    assert ServerEvent("l-1", "of a newer agent", {}).body is None
