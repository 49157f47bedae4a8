"""The streams of events over the real socket: what a reader is told first, how it ends, and who is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.api import streams
from edge_agent.api.wire_events import DroppedEvent, HintEvent, StateEvent
from edge_agent.client import FROM_THE_START, AgentClient, ServerEvent
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import raw
from tests.faces import measurement
from tests.terminal import Terminal, terminal


@pytest.fixture
def patient(tmp_path: Path, sandbox: SandboxServer) -> Iterator[Terminal]:
    """Searches for as long as a test takes."""
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 60.0, "capture_window_s": 0.05}) as t:
        yield t


def until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_s, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def told(events: list[ServerEvent]) -> list[str]:
    return [event.data["state"] for event in events if event.kind == "state"]


# -- the present comes first ------------------------------------------------------------------------------------------


def test_a_reader_that_comes_during_a_search_learns_the_state_and_the_hint_and_then_what_happens(
    patient: Terminal,
) -> None:
    patient.eyes.sees = measurement(inter_eye_px=20.0)
    with patient.client() as client:
        record = client.verify("alice")
        until(lambda: _hint_code(client, record.id) == "too_far", "the hint")
        hint = client.get(record.id).hint
        events = []
        for event in client.events(record.id):
            events.append(event)
            patient.eyes.sees = measurement()
    first, second = events[0].body, events[1].body
    assert isinstance(first, StateEvent)
    assert isinstance(second, HintEvent)
    assert (first.state, first.verification_id) == (State.SEARCHING, record.id)
    assert hint is not None
    assert (second.code, second.text, second.since) == ("too_far", "Please come closer.", hint.since)
    assert record.created_at <= hint.since <= second.at
    assert told(events) == ["searching", "captured", "matching", "verified"], "and it ended by itself"


def _hint_code(client: AgentClient, id_: str) -> str | None:
    hint = client.get(id_).hint
    return hint.code if hint is not None else None


def test_the_stream_of_a_final_verification_tells_the_end_and_ends_whatever_it_resumes_after(
    running: Terminal, client: AgentClient
) -> None:
    record = client.verify("alice", wait_s=10)
    everything = list(client.events(record.id, after=FROM_THE_START))
    assert told(everything) == ["searching", "captured", "matching", "verified"]
    middle = next(event for event in everything if event.data.get("state") == "captured")
    life = running.agent.bus.life
    assert str(middle.id).startswith(life)
    for after, dropped, states in [
        (None, None, ["verified"]),
        (middle.id, None, ["matching", "verified"]),
        (everything[-1].id, None, ["verified"]),
        (f"{'0' * 8}-7", "unknown_id", ["searching", "captured", "matching", "verified"]),
        (f"{life}-999999", "unknown_id", ["searching", "captured", "matching", "verified"]),
    ]:
        events = list(client.events(record.id, after=after))
        assert told(events) == states, after
        gap = events[0].body
        assert (gap.reason if isinstance(gap, DroppedEvent) else None) == dropped
        assert events[-1].data["approved"] is True


def test_an_id_of_an_earlier_life_tells_the_end_after_a_restart(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 60.0}) as t, t.client() as client:
        t.eyes.sees = measurement(())
        record = client.verify("alice")
        seen = next(client.events(record.id))
    with terminal(tmp_path, sandbox) as t, t.client() as client:
        gap, state = list(client.events(record.id, after=seen.id))
    assert (gap.kind, gap.data["count"], gap.data["reason"]) == ("dropped", None, "unknown_id")
    assert (state.data["state"], state.data["error"], state.data["approved"]) == ("failed", "interrupted", False)


def test_a_client_with_patience_reads_on_over_a_restart(tmp_path: Path, sandbox: SandboxServer) -> None:
    events: list[ServerEvent] = []
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 60.0}) as t, t.client() as client:
        t.eyes.sees = measurement(())
        record = client.verify("alice")

        def follow() -> None:
            with AgentClient(t.socket, patience_s=20.0) as patient:
                events.extend(patient.events(record.id))
                events.append(ServerEvent(None, "got", {"state": patient.get(record.id).state.value}))

        thread = threading.Thread(target=follow)
        thread.start()
        until(lambda: len(t.agent.bus._readers) == 1, "the reader")
    with terminal(tmp_path, sandbox):
        thread.join(20)
    assert not thread.is_alive()
    assert (told(events)[0], events[-1].data["state"]) == ("searching", "failed")


def test_head_gives_the_headers_and_no_stream(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(())
    record = client.verify("alice")
    with raw(running) as http:
        for path in ("/v1/events", f"/v1/verifications/{record.id}/events"):
            answer = http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store"
            assert not running.agent.bus._readers
        assert http.head("/v1/verifications/nope/events").status_code == 404


# -- readers that do not read -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(t: Terminal, request: str) -> Iterator[socket.socket]:
    """A connection with small buffers on which ``request`` was sent and nothing is read."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10.0)
        sock.connect(str(t.socket))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: edge-agent\r\n\r\n".encode())
        yield sock


async def publish(t: Terminal, count: int) -> float:
    """Publish hints of 1 KB as fast as the loop takes them. Returns seconds per event, the pauses not counted."""
    spent_s = 0.0
    for number in range(count):
        began_s = time.perf_counter()
        data = {"code": None, "text": f"{number:01000}", "since": datetime.now(UTC).isoformat(), "enrolment": False}
        t.agent.bus.publish("hint", data, at=datetime.now(UTC), verification_id="a")
        spent_s += time.perf_counter() - began_s
        if number % 50 == 0:
            await asyncio.sleep(0.001)  # whoever reads can
    return spent_s / count


def test_readers_that_do_not_read_cost_the_publisher_neither_time_nor_memory_and_are_cut_off(
    running: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unread = running.run(publish(running, 2000))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(running, "GET /v1/events")) for _ in range(20)]
        until(lambda: len(running.agent.bus._readers) == 20, "the readers")
        running.run(publish(running, 3000))  # now every buffer is full
        tracemalloc.start()
        try:
            slow = running.run(publish(running, 500))
            before = tracemalloc.get_traced_memory()[0]
            slow = min(slow, running.run(publish(running, 4000)))
            grown_bytes = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown_bytes < 2_000_000, "20 readers, 4 MB of events each"
        assert slow < 50 * unread + 0.001
        assert len(running.agent.bus._readers) == 20
        monkeypatch.setattr(streams, "CUT_AFTER_S", 0.1)
        for sock in socks[:10]:  # these read a little, so their next sending is tried, and waits under the new limit
            sock.recv(400_000)
        deadline_s = time.monotonic() + 10
        while len(running.agent.bus._readers) > 10 and time.monotonic() < deadline_s:
            for sock in socks[:10]:
                with contextlib.suppress(ConnectionError):
                    sock.recv(1)
            running.run(publish(running, 100))
        assert len(running.agent.bus._readers) == 10
    until(lambda: not running.agent.bus._readers, "the others hung up")
    assert "ASGI" not in caplog.text
    assert running.agent.bus.last_seq > 9000


def test_a_reader_that_does_not_read_does_not_hold_up_the_stop(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LAST_WORDS_S", 0.1)
    with contextlib.ExitStack() as stack:
        with terminal(tmp_path, sandbox) as t:
            stack.enter_context(connected(t, "GET /v1/events"))
            until(lambda: len(t.agent.bus._readers) == 1, "the reader")
            t.run(publish(t, 1000))
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5.0


# -- who waits --------------------------------------------------------------------------------------------------------


def test_a_client_that_hangs_up_while_it_waits_leaves_nothing_behind_and_changes_nothing(patient: Terminal) -> None:
    patient.eyes.sees = measurement(())
    with patient.client() as client:
        record = client.verify("alice", idempotency_key="k")
        with connected(patient, f"GET /v1/verifications/{record.id}?wait=60"):
            until(lambda: len(patient.agent.bus._readers) == 1, "the waiting request")
        until(lambda: not patient.agent.bus._readers, "the end of the waiting", 2.0)
        assert client.get(record.id).state is State.SEARCHING
        patient.eyes.sees = measurement()
        again = client.verify("alice", idempotency_key="k", wait_s=10)
    assert (again.id, again.approved, again.replayed) == (record.id, True, True)


def test_a_post_whose_client_hangs_up_goes_on(patient: Terminal, sandbox: SandboxServer) -> None:
    patient.eyes.sees = measurement(())
    body = '{"user_id": "alice"}'
    head = f"POST /v1/verifications?wait=60 HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: {len(body)}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(patient.socket))
        sock.sendall(f"{head}\r\n\r\n{body}".encode())
        until(lambda: patient.agent.searching and len(patient.agent.bus._readers) == 1, "the session")
    until(lambda: not patient.agent.bus._readers, "the end of the waiting", 2.0)
    assert patient.agent.searching
    patient.eyes.sees = measurement()
    with patient.client() as client:
        assert client.verify("alice", idempotency_key="k", wait_s=10).approved
    assert len(sandbox.judged) == 1
