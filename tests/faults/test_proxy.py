"""The fault proxy does what it says, seen by a plain client: otherwise the matrix would prove nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from edge_agent.sandbox.server import SandboxServer
from tests.faults.proxy import PASS, FaultProxy, Mode
from tests.sandbox.conftest import Caller

BODY = bytes(20_000)


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def proxy(server: SandboxServer) -> Iterator[FaultProxy]:
    server.reset()
    with FaultProxy(server.port) as ready:
        yield ready


@pytest.fixture
def caller(server: SandboxServer, proxy: FaultProxy) -> Iterator[Caller]:
    """Talks to the sandbox through the proxy; has a token and one pre-signed URL's worth of trust."""
    server.enrol("alice", b"source")
    through = Caller(server)
    once = httpx.Limits(max_keepalive_connections=0)  # a change of mode cuts what is open: begin anew every time
    through.http = httpx.Client(base_url=proxy.base_url, timeout=0.5, trust_env=False, limits=once)
    with through.http:
        through.log_in()
        yield through


def test_it_passes_everything_and_the_pre_signed_url_goes_through_it_too(caller: Caller, proxy: FaultProxy) -> None:
    url = caller.generate_url().json()["url"]
    assert url.startswith(proxy.base_url)
    assert caller.put(url, BODY).status_code == 200
    assert caller.match().json()["match"] is True
    assert not proxy.met


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        (Mode("refuse"), httpx.ConnectError),
        (Mode("swallow"), httpx.ReadTimeout),
        (Mode("reset", b"PUT", after_bytes=5000), (httpx.ReadError, httpx.WriteError)),
        (Mode("reset", b"PUT", "answer"), httpx.ReadError),
        (Mode("stall", b"PUT", after_bytes=5000), (httpx.ReadTimeout, httpx.WriteTimeout)),
        (Mode("stall", b"PUT", "answer", after_bytes=20), httpx.ReadTimeout),
    ],
    ids=lambda value: value.action + value.flow if isinstance(value, Mode) else "",
)
def test_a_broken_network_looks_like_one(
    caller: Caller, proxy: FaultProxy, mode: Mode, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    url = caller.generate_url().json()["url"]
    proxy.set(mode)
    with pytest.raises(error):
        caller.put(url, BODY)
    assert proxy.met[mode.action] == (mode.action != "refuse")
    arrived = [p for p in caller.server.state.saved.pictures if p.type == "match"]
    assert len(arrived) == (mode.flow == "answer"), "a PUT whose answer is lost has landed, another has not"
    proxy.set(PASS)
    assert caller.put(url, BODY).status_code == 200


def test_a_slow_line_is_as_slow_as_it_says(caller: Caller, proxy: FaultProxy) -> None:
    url = caller.generate_url().json()["url"]
    proxy.set(Mode("trickle", b"PUT", bytes_per_s=20_000))
    began_s = time.monotonic()
    assert caller.http.put(url, content=bytes(8_000), headers={"content-type": "image/jpeg"}, timeout=5).is_success
    assert 0.35 < time.monotonic() - began_s < 2.0
    assert proxy.met["trickle"] > 0


@pytest.mark.parametrize("status", [200, 302])
def test_a_portal_answers_for_everybody(caller: Caller, proxy: FaultProxy, status: int) -> None:
    url = caller.generate_url().json()["url"]
    proxy.set(Mode("portal", status=status))
    for answer in (caller.put(url, BODY), caller.match(), caller.access_token()):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html")
    assert proxy.met["portal"] == 3


def test_the_port_stays_the_same_when_it_listens_again(proxy: FaultProxy) -> None:
    before = proxy.port
    proxy.set(Mode("refuse"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", before), 1).close()
    proxy.set(PASS)
    socket.create_connection(("127.0.0.1", before), 1).close()
