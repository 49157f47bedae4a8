"""What only real sockets can do: stalls, drips, resets, truncation, TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadTarget
from edge_agent.errors import CypherFaceError, Transient

from .conftest import Settings
from .service import Handler, raw_server, read_request, token

SHORT = {"connect_s": 5.0, "request_s": 0.2, "match_s": 0.2}
LONG = {"connect_s": 5.0, "request_s": 20.0, "match_s": 20.0}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TOKEN = b'{"token": "%s"}' % token("t").encode()

Writer = asyncio.StreamWriter
Script = Callable[[Writer], Awaitable[None]]


def whole(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def serving(script: Script) -> Handler:
    """Tokens are given at once; everything else is answered by ``script``."""

    async def handler(reader: asyncio.StreamReader, writer: Writer) -> None:
        while True:
            line, _headers, _body = await read_request(reader)
            if "access-token" in line:
                writer.write(whole(TOKEN))
            else:
                await script(writer)

    return handler


async def for_ever(_writer: Writer) -> None:
    await asyncio.Event().wait()


async def drip(writer: Writer) -> None:
    """A byte now and then: every single read succeeds, the answer never ends."""
    writer.write(OK + b"Content-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.01)


async def drip_head(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.01)


def sending(data: bytes, *, reset: bool = False) -> Script:
    async def script(writer: Writer) -> None:
        writer.write(data)
        await writer.drain()
        if reset:
            # linger 0: the connection ends with a reset instead of a goodbye
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        raise ConnectionResetError

    return script


def run(
    handler: Handler, settings: Settings, work: Callable[[CypherFaceClient, int], Awaitable[Any]], **changes: Any
) -> Any:
    async def session() -> Any:
        scheme = "https" if "ssl" in changes else "http"
        async with raw_server(handler, **({"ssl": changes.pop("ssl")} if scheme == "https" else {})) as port:
            section = settings(base_url=f"{scheme}://127.0.0.1:{port}/", upload_hosts=[f"127.0.0.1:{port}"], **changes)
            async with CypherFaceClient(section) as client:
                return await work(client, port)

    return asyncio.run(session())


async def match(client: CypherFaceClient, _port: int) -> Any:
    return await client.match("u-1")


async def put(client: CypherFaceClient, port: int) -> None:
    target = UploadTarget(
        f"http://127.0.0.1:{port}/k?X-Amz-Signature=a%2Bb", "h", "n.jpg", "image/jpeg", "match", 0.0, 1e12
    )
    await client.put(target, b"\xff\xd8" * 50_000, "image/jpeg")


def failure(handler: Handler, settings: Settings, work: Any, **changes: Any) -> CypherFaceError:
    with pytest.raises(CypherFaceError) as caught:
        run(handler, settings, work, **changes)
    return caught.value


@pytest.mark.parametrize("script", [for_ever, drip, drip_head])
@pytest.mark.parametrize("work", [match, put])
def test_a_step_ends_at_its_total_deadline(settings: Settings, script: Script, work: Any) -> None:
    error = failure(serving(script), settings, work, timeouts=SHORT)
    assert (type(error), error.code, error.connect_failed) == (Transient, "timeout", False)
    assert error.outcome_unknown


def test_the_deadline_of_a_step_includes_its_token(settings: Settings) -> None:
    async def handler(reader: asyncio.StreamReader, _writer: Writer) -> None:
        await read_request(reader)
        await asyncio.Event().wait()

    error = failure(handler, settings, match, timeouts={**LONG, "match_s": 0.2})
    assert (error.code, error.outcome_unknown) == ("timeout", False)


def test_a_server_that_does_not_read_cannot_hold_an_upload(settings: Settings) -> None:
    async def handler(_reader: asyncio.StreamReader, _writer: Writer) -> None:
        await asyncio.Event().wait()

    async def large(client: CypherFaceClient, port: int) -> None:
        target = UploadTarget(f"http://127.0.0.1:{port}/k", "h", "n.jpg", "image/jpeg", "match", 0.0, 1e12)
        await client.put(target, b"\0" * (1 << 25), "image/jpeg")

    error = failure(handler, settings, large, timeouts=SHORT)
    assert (error.code, error.outcome_unknown) == ("timeout", True)


@pytest.mark.parametrize(
    ("data", "reset", "code"),
    [
        (b"", False, "network"),
        (b"", True, "network"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", False, "network"),
        (b"SSH-2.0-dropbear\r\n\r\n", False, "network"),
        (b"HTTP/1.1 abc\r\n\r\n", False, "network"),
        (OK + b"Content-Length: 100\r\n\r\n" + b'{"match": true}', False, "incomplete_answer"),
        (OK + b"Content-Length: 100\r\n\r\n", False, "incomplete_answer"),
        (OK + b"Content-Length: 100\r\n\r\n" + b'{"match": true}', True, "incomplete_answer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nf\r\n" + b'{"match": true}\r\n', False, "incomplete_answer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", False, "incomplete_answer"),
        (OK + b"\r\n", False, "incomplete_answer"),
    ],
)
def test_a_cut_answer_is_never_a_verdict(settings: Settings, data: bytes, reset: bool, code: str) -> None:
    script = sending(data, reset=reset)
    for bare in (False, True):
        error = failure(serving(script), settings, match, timeouts=LONG, accept_bare_200=bare)
        assert (type(error), error.code, error.connect_failed) == (Transient, code, False)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_an_upload_that_is_cut_may_have_landed(settings: Settings, data: bytes) -> None:
    error = failure(serving(sending(data, reset=True)), settings, put, timeouts=LONG)
    assert (type(error), error.outcome_unknown, error.connect_failed) == (Transient, True, False)


def test_an_endless_answer_is_cut_at_its_size(settings: Settings) -> None:
    async def endless(writer: Writer) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            await writer.drain()

    assert failure(serving(endless), settings, match, timeouts=LONG).code == "bad_answer"


def test_the_signed_path_and_the_picture_arrive_unchanged(settings: Settings) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def handler(reader: asyncio.StreamReader, writer: Writer) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    run(handler, settings, put, timeouts=LONG)
    line, headers, body = seen[0]
    assert line == "PUT /k?X-Amz-Signature=a%2Bb HTTP/1.1"
    assert headers["content-type"] == "image/jpeg"
    assert "authorization" not in headers
    assert body == b"\xff\xd8" * 50_000


def test_proxies_of_the_environment_are_not_used(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    monkeypatch.delenv("NO_PROXY", raising=False)
    script = sending(whole(b'{"match": true}'))
    assert run(serving(script), settings, match, timeouts=LONG).positive


def test_a_closed_port_is_a_connect_failure(settings: Settings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def session() -> None:
            async with CypherFaceClient(settings(base_url=f"http://127.0.0.1:{port}/")) as client:
                await client.match("u-1")

        with pytest.raises(Transient) as caught:
            asyncio.run(session())
    error = caught.value
    assert (error.code, error.connect_failed, error.outcome_unknown) == ("connect", True, False)
    assert "refused" in error.message


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def server_tls(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_the_operators_ca_bundle_is_trusted(settings: Settings, certificate: Path) -> None:
    script = sending(whole(b'{"match": true}'))
    verdict = run(serving(script), settings, match, timeouts=LONG, ca_bundle=certificate, ssl=server_tls(certificate))
    assert verdict.positive


def test_an_unknown_certificate_is_a_tls_error_and_not_an_outage(settings: Settings, certificate: Path) -> None:
    error = failure(serving(for_ever), settings, match, timeouts=LONG, ssl=server_tls(certificate))
    assert (type(error), error.code, error.connect_failed) == (Transient, "tls", False)
    assert "self-signed" in error.message.replace(" ", "-")


@pytest.mark.parametrize(
    ("greeting", "timeouts"),
    [
        (None, {**SHORT, "request_s": 20.0}),
        (None, {**LONG, "connect_s": 0.2}),
        (b"HTTP/1.1 200 OK\r\n\r\n", LONG),
        (b"", LONG),
    ],
)
def test_whatever_breaks_the_handshake_is_a_tls_error(
    settings: Settings, greeting: bytes | None, timeouts: dict[str, float]
) -> None:
    """A stall until the step's or the connection's time is up, plain text, a hang-up."""

    async def handler(_reader: asyncio.StreamReader, writer: Writer) -> None:
        if greeting is None:
            await asyncio.Event().wait()
        else:
            writer.write(greeting)

    async def session() -> None:
        async with raw_server(handler) as port:
            section = settings(base_url=f"https://127.0.0.1:{port}/", timeouts=timeouts)
            async with CypherFaceClient(section) as client:
                await client.match("u-1")

    with pytest.raises(Transient) as caught:
        asyncio.run(session())
    assert not caught.value.connect_failed
    if timeouts is LONG or timeouts["connect_s"] < 1:
        assert caught.value.code == "tls"
