"""Every exception of the library has its translation."""

from __future__ import annotations

import asyncio
import ssl

import httpx
import pytest

from edge_agent.cypherface.faults import FAULTS, HTTPX_EXCEPTIONS, Progress, deadline_passed, translate
from edge_agent.cypherface.wire import Step

RAISED = sorted(
    (found for name in dir(httpx) if isinstance(found := getattr(httpx, name), type) and issubclass(found, Exception)),
    key=lambda kind: kind.__name__,
)


def progress(*events: str, in_flight: bool = True) -> Progress:
    made = Progress()
    if in_flight:
        made.begin()
    for event in events:
        asyncio.run(made.trace(event, {}))
    return made


CONNECTED = ("connection.connect_tcp.started", "connection.connect_tcp.complete")
SECURING = (*CONNECTED, "connection.start_tls.started")
SENT = (*CONNECTED, "http11.send_request_headers.started")


def test_the_list_of_exceptions_is_not_empty() -> None:
    assert len(RAISED) >= 28


@pytest.mark.parametrize("kind", RAISED)
def test_no_exception_of_httpx_is_unmapped(kind: type[Exception]) -> None:
    assert issubclass(kind, HTTPX_EXCEPTIONS), "it would leave the client raw"
    assert any(base in FAULTS for base in kind.__mro__)
    error = translate(Step.MATCH, kind.__new__(kind), progress())
    assert error.retryable
    assert error.message.startswith("cannot match the image")


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")
CERTIFICATE.verify_message = "certificate has expired"


@pytest.mark.parametrize(
    ("exc", "events", "code", "connect_failed", "unknown"),
    [
        (httpx.ConnectError(""), (), "connect", True, False),
        (httpx.ConnectError(""), CONNECTED[:1], "connect", True, False),
        (httpx.ConnectTimeout(""), CONNECTED[:1], "connect", True, False),
        (httpx.ConnectError(""), CONNECTED, "connect", False, False),
        (httpx.ConnectTimeout(""), SECURING, "tls", False, False),
        (httpx.ConnectError(""), SECURING, "tls", False, False),
        (chained(httpx.ConnectError(""), CERTIFICATE), (), "tls", False, False),
        (chained(httpx.ConnectError(""), ExceptionGroup("x", [ssl.SSLError()])), (), "tls", False, False),
        (ssl.SSLError(1, "bad record"), SENT, "tls", False, True),
        (httpx.ReadTimeout(""), SENT, "timeout", False, True),
        (httpx.ReadError(""), SENT, "network", False, True),
        (httpx.WriteError(""), CONNECTED, "network", False, False),
        (httpx.PoolTimeout(""), (), "timeout", False, False),
        (httpx.LocalProtocolError(""), CONNECTED, "protocol", False, False),
        (OSError(104, "reset"), SENT, "network", False, True),
    ],
)
def test_an_exception_tells_what_the_service_may_have_seen(
    exc: Exception, events: tuple[str, ...], code: str, connect_failed: bool, unknown: bool
) -> None:
    error = translate(Step.PUT, exc, progress(*events))
    assert (error.code, error.connect_failed, error.outcome_unknown) == (code, connect_failed, unknown)


def test_the_systems_reason_is_kept_and_the_librarys_text_is_not() -> None:
    refused = chained(httpx.ConnectError("https://x/?secret"), ConnectionRefusedError(111, "Connection refused"))
    assert (
        translate(Step.PUT, refused, progress()).message == "cannot upload the image: no connection: Connection refused"
    )
    expired = chained(httpx.ConnectError("secret"), CERTIFICATE)
    assert "certificate has expired" in translate(Step.PUT, expired, progress()).message


@pytest.mark.parametrize(
    ("events", "in_flight", "code", "connect_failed", "unknown"),
    [
        (CONNECTED[:1], True, "connect", True, False),
        (CONNECTED, True, "timeout", False, False),
        (SECURING, True, "tls", False, False),
        (SENT, True, "timeout", False, True),
        ((), True, "timeout", False, True),
        ((), False, "timeout", False, False),
    ],
)
def test_a_deadline_tells_how_far_the_exchange_had_come(
    events: tuple[str, ...], in_flight: bool, code: str, connect_failed: bool, unknown: bool
) -> None:
    error = deadline_passed(Step.PUT, 0.2, progress(*events, in_flight=in_flight))
    assert (error.code, error.connect_failed, error.outcome_unknown) == (code, connect_failed, unknown)


def test_a_new_exchange_starts_from_nothing() -> None:
    used = progress(*SENT)
    used.answered = True
    used.begin()
    assert not (used.connected or used.sending or used.answered)
