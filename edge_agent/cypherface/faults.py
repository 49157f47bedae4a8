"""The library's exceptions as our errors: the one seam between httpx and the rest.

They are translated *without* keeping them as ``__cause__``: they hold the request, that is the token, the pre-signed
URL and the picture, and h11 quotes an illegal header in its message. What helps a technician (the operating system's
or OpenSSL's reason) is copied into ours.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx

from edge_agent.cypherface.wire import Step
from edge_agent.errors import Transient

HTTPX_EXCEPTIONS = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError, OSError)
"""Everything that the library can raise (a test enumerates it); OSError: a TLS failure while reading leaks raw."""


class Progress:
    """How far the exchange in flight has come, as httpcore reports it to ``trace``."""

    def __init__(self) -> None:
        self.in_flight = False
        self.answered = False
        self._events: set[str] = set()
        self._unsecured: Any = None

    def begin(self) -> None:
        """A new exchange starts."""
        self.in_flight, self.answered = True, False
        self._events.clear()
        self._unsecured = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """The extension ``trace`` of httpcore: called at each event of the exchange."""
        name = event.partition(".")[2]  # "connection.connect_tcp.started" -> "connect_tcp.started"
        self._events.add(name)
        if name == "connect_tcp.complete":
            self._unsecured = info.get("return_value")
        elif name == "start_tls.complete":
            self._unsecured = None

    async def abandon(self) -> None:
        """Close a connection whose TLS handshake was cancelled: httpcore closes it on errors only, and it would leak."""
        if self.securing and self._unsecured is not None:
            await self._unsecured.aclose()

    @property
    def connected(self) -> bool:
        """A new connection was established for this exchange."""
        return "connect_tcp.complete" in self._events

    @property
    def not_connected(self) -> bool:
        """Known: a connection was tried for this exchange, and there is none."""
        return self.in_flight and "connect_tcp.started" in self._events and not self.connected

    @property
    def securing(self) -> bool:
        """TLS was begun and no request has left: a failure now is a failure of TLS."""
        return "start_tls.started" in self._events and not self.sending

    @property
    def sending(self) -> bool:
        """The request has begun to leave."""
        return "send_request_headers.started" in self._events

    @property
    def may_have_acted(self) -> bool:
        """Bytes may have left: always so, unless the exchange is known to have got stuck before."""
        return self.in_flight and (self.sending or "connect_tcp.started" not in self._events)


class Fault(NamedTuple):
    """What an exception of the library means."""

    code: str
    what: str
    left: bool
    """Bytes may have left."""


FAULTS: dict[type[Exception], Fault] = {
    httpx.ConnectError: Fault("connect", "no connection", left=False),
    httpx.ConnectTimeout: Fault("connect", "no connection in time", left=False),
    httpx.PoolTimeout: Fault("timeout", "no free connection", left=False),
    httpx.TimeoutException: Fault("timeout", "no answer in time", left=True),
    httpx.NetworkError: Fault("network", "the connection broke", left=True),
    httpx.RemoteProtocolError: Fault("network", "the connection ended early or spoke no HTTP", left=True),
    httpx.LocalProtocolError: Fault("protocol", "the request cannot be expressed in HTTP", left=True),
    httpx.ProtocolError: Fault("protocol", "the exchange broke HTTP's rules", left=True),
    httpx.ProxyError: Fault("network", "a proxy refused", left=True),
    httpx.UnsupportedProtocol: Fault("protocol", "the URL's scheme is not HTTP", left=False),
    httpx.TooManyRedirects: Fault("captive_portal", "redirected", left=True),
    httpx.DecodingError: Fault("bad_answer", "the answer's encoding is broken", left=True),
    httpx.HTTPError: Fault("network", "the exchange failed", left=True),
    httpx.InvalidURL: Fault("protocol", "the URL is invalid", left=False),
    httpx.CookieConflict: Fault("bad_answer", "the answer's cookies conflict", left=True),
    httpx.StreamError: Fault("bad_answer", "the answer cannot be read", left=True),
    OSError: Fault("network", "the connection broke", left=True),
}


def translate(step: Step, exc: Exception, progress: Progress) -> Transient:
    """Our error for an exception of the library: always transient, with a stable code and no secret in it."""
    fault = next(FAULTS[kind] for kind in type(exc).__mro__ if kind in FAULTS)
    reason = _reason(exc)
    connect_kind = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
    if _is_tls(exc) or (connect_kind and progress.securing):
        return Transient(
            f"cannot {step}: no secure connection{reason}",
            code="tls",
            hint="check the terminal's date, cypherface.ca_bundle, and whether something intercepts TLS",
            outcome_unknown=progress.sending,
        )
    cut_short = progress.answered and fault.code == "network"
    return Transient(
        f"cannot {step}: {'the answer was cut short' if cut_short else fault.what}{reason}",
        code="incomplete_answer" if cut_short else fault.code,
        connect_failed=connect_kind and not progress.connected,
        outcome_unknown=fault.left and progress.may_have_acted,
    )


def deadline_passed(step: Step, limit_s: float, progress: Progress) -> Transient:
    """Our error for a step that took longer than its total time."""
    if progress.not_connected:
        return Transient(f"cannot {step}: no connection within {limit_s:g} s", code="connect", connect_failed=True)
    return Transient(
        f"cannot {step}: not done within {limit_s:g} s",
        code="tls" if progress.securing else "timeout",
        outcome_unknown=progress.may_have_acted,
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The exception and everything that led to it, groups opened."""
    pending: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        pending += [item.__context__, item.__cause__]
        if isinstance(item, BaseExceptionGroup):
            pending += item.exceptions


def _is_tls(exc: BaseException) -> bool:
    return any(isinstance(item, ssl.SSLError) for item in _chain(exc))


def _reason(exc: BaseException) -> str:
    """The operating system's or OpenSSL's own words; nothing of the request is in them."""
    for item in _chain(exc):
        if isinstance(item, ssl.SSLError):
            # The attributes are there only on errors that OpenSSL raised.
            words = getattr(item, "verify_message", None) or getattr(item, "reason", None) or "TLS failed"
            return f": {words.replace('_', ' ')}"
        if isinstance(item, OSError) and item.errno:
            # Name resolution has numbers of its own, below zero; above, asyncio replaces the text by the address.
            return f": {os.strerror(item.errno) if item.errno > 0 else item.strerror}"
    return ""
