"""What one client does, or does not do, harms no other: times, sizes and numbers, on real connections."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from edge_agent.api import protocol
from edge_agent.api.access import Access, Grants
from edge_agent.api.protocol import MAX_HEADER_BYTES, AccessProtocol
from edge_agent.listening import bind

ANSWER = b"y" * 4_000_000
"""More than the kernel takes off the server's hands."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body, or as many bytes as asked for; on events with a lot, a part at a time."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    asked = int(scope["query_string"] or 0)
    parts = [ANSWER[:1_000_000]] * 4 if scope["path"] == "/v1/events" else [ANSWER[:asked] or b"%d" % length]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Server:
    """uvicorn with our protocol, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.access = Access()
        config = uvicorn.Config(
            echo,
            http=partial(AccessProtocol, access=self.access),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=60,
        )
        self._server = uvicorn.Server(config)
        self._listener = bind(path)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def wait_until_open(self, count: int) -> None:
        """Until the server has that many connections."""
        deadline = time.monotonic() + 10
        while len(self._server.server_state.connections) != count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_until_refused(self, code: str) -> None:
        deadline = time.monotonic() + 10
        while not self.access.refused[code]:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("limits") / "api.sock")
    yield server
    server.close()


@pytest.fixture
def server(shared: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """With times that a test can wait for, and nobody connected."""
    for name in ("HEAD_S", "BODY_S", "READ_S"):
        monkeypatch.setattr(protocol, name, 0.2)
    shared.wait_until_open(0)
    shared.access.refused.clear()
    return shared


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    with connection:
        while chunk := connection.recv(1 << 20):
            received += chunk
    return received


def one_answer(connection: socket.socket) -> bytes:
    """A chunked answer, while the connection stays open."""
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        chunk = connection.recv(1 << 16)
        assert chunk, received
        received += chunk
    return received


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), str(json.loads(body)["code"])


SLOW = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n", (408, "request_timeout")),
    (b"G", (408, "request_timeout")),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", (408, "request_timeout")),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", (408, "request_timeout")),
]


@pytest.mark.parametrize(("sent", "expected"), SLOW)
def test_a_request_that_never_ends_is_ended(server: Server, sent: bytes, expected: tuple[int, str]) -> None:
    connection = server.connect()
    connection.sendall(sent)
    assert problem(until_closed(connection)) == expected
    assert server.access.refused == {"request_timeout": 1}


@pytest.mark.parametrize("drip", [b"a", b"\r\n"])
def test_a_client_that_drips_is_as_slow_as_one_that_stops(server: Server, drip: bytes) -> None:
    connection = server.connect()
    connection.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    one_answer(connection)
    began_s = time.monotonic()
    try:
        while time.monotonic() - began_s < 5:
            connection.sendall(drip)
            time.sleep(0.05)
    except OSError:
        pass
    assert time.monotonic() - began_s < 2
    connection.close()


def test_a_connection_that_says_nothing_is_closed_without_a_word(server: Server) -> None:
    assert until_closed(server.connect()) == b""


def test_the_time_counts_from_each_request_anew(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.5)
    with server.connect() as connection:
        for _ in range(4):
            time.sleep(0.2)
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert one_answer(connection).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"".join(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (n, b"x" * n) for n in (1, 2, 3))
        )
        received = b""
        while received.count(b"0\r\n\r\n") < 3:
            received += connection.recv(1 << 16)
    assert re.findall(rb"\r\n\r\n1\r\n(\d)\r\n", received) == [b"1", b"2", b"3"]


def test_an_answer_that_nobody_reads_is_dropped(server: Server) -> None:
    connection = server.connect()
    connection.sendall(b"GET /?4000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    server.wait_until_refused("answer_not_read")
    assert len(until_closed(connection)) < len(ANSWER)


def test_also_the_last_bytes_of_an_answer_that_nobody_reads_are_dropped(server: Server) -> None:
    """A few are over what the kernel takes; how much that is differs."""
    connections = [server.connect() for _ in range(10)]
    for number, connection in enumerate(connections):
        connection.sendall(b"GET /?%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % (100_000 + 48_000 * number))
    server.wait_until_refused("answer_not_read")
    server.wait_until_open(0)
    for connection in connections:
        connection.close()


def test_an_answer_that_is_read_slowly_but_in_time_is_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_S", 10.0)
    connection = server.connect()
    connection.sendall(b"GET /?4000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    time.sleep(0.1)
    assert len(until_closed(connection)) > len(ANSWER)


def test_a_reader_of_events_may_lag(server: Server) -> None:
    connection = server.connect()
    connection.sendall(b"GET /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    time.sleep(0.5)
    assert len(until_closed(connection)) > len(ANSWER)
    assert not server.access.refused


GARBAGE = [
    (b"\x16\x03\x01\x02\x00\r\n\r\n", (400, "invalid_request")),
    (b"GET / HTTP/1.1\r\n\r\n", (400, "invalid_request")),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, (431, "headers_too_large")),
    (b"GET /" + b"x" * 20_000, (431, "headers_too_large")),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", (400, "invalid_request")),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "invalid_request")),
]


@pytest.mark.parametrize(("sent", "expected"), GARBAGE)
def test_what_is_not_http_gets_a_problem_document(server: Server, sent: bytes, expected: tuple[int, str]) -> None:
    connection = server.connect()
    connection.sendall(sent)
    assert problem(until_closed(connection)) == expected


def test_one_caller_cannot_have_all_connections(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own user has every role: first it has to lose them."""
    monkeypatch.setattr(protocol, "HEAD_S", 10.0)
    monkeypatch.setattr(protocol, "MAX_OF_ONE_CALLER", 3)
    admins, server.access.grants = server.access.grants, Grants()
    try:
        own = [server.connect() for _ in range(3)]
        server.wait_until_open(3)
        assert problem(until_closed(server.connect())) == (503, "too_many_connections")
        server.access.grants = admins
        with server.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert one_answer(connection).startswith(b"HTTP/1.1 200")
    finally:
        server.access.grants = admins
        for connection in own:
            connection.close()


def test_the_last_connections_are_for_admins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HEAD_S", 10.0), ("MAX_CONNECTIONS", 4), ("KEPT_FOR_ADMINS", 2)):
        monkeypatch.setattr(protocol, name, value)
    admins, server.access.grants = server.access.grants, Grants()
    try:
        connections = [server.connect() for _ in range(2)]
        server.wait_until_open(2)
        assert problem(until_closed(server.connect())) == (503, "too_many_connections")
        server.access.grants = admins
        connections += [server.connect() for _ in range(2)]
        server.wait_until_open(4)
        assert problem(until_closed(server.connect())) == (503, "too_many_connections")
    finally:
        server.access.grants = admins
        for connection in connections:
            connection.close()
