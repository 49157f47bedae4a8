"""One HTTP exchange, and one step with its total deadline: all that touches httpx's machinery.

Every exchange is complete (size-capped body read to its end) or an error. Nothing secret is logged or raised: the
library's loggers, which print URLs at INFO and headers at DEBUG, are silenced.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx

from edge_agent import __version__
from edge_agent.config import CypherFaceSection
from edge_agent.cypherface import faults
from edge_agent.cypherface.faults import Progress
from edge_agent.cypherface.wire import Answer, Step
from edge_agent.errors import ConfigurationError, CypherFaceError, Transient

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1 << 20

T = TypeVar("T")


class Line:
    """The connection to CypherFace and its storage."""

    def __init__(self, settings: CypherFaceSection, transport: httpx.AsyncBaseTransport | None) -> None:
        """Raises ConfigurationError when ``ca_bundle`` cannot be read."""
        self._settings = settings
        self._transport = transport
        self._http = _http_client(settings, transport)
        self._busy: Counter[httpx.AsyncClient] = Counter()
        """Exchanges under way, by client: one that was replaced is closed after its last."""
        self.answers = 0
        """HTTP answers received so far, of any status."""

    async def aclose(self) -> None:
        """Close every connection."""
        for http in {self._http, *self._busy}:
            await http.aclose()

    async def rebuild(self) -> None:
        """Go on with a new HTTP client: fresh connections, and certificate authorities as they are on the disk now.

        Exchanges under way end on the old one. When the new one cannot be made, the old one stays.
        """
        try:
            fresh = await asyncio.to_thread(_http_client, self._settings, self._transport)
        except ConfigurationError as exc:
            log.warning("cannot rebuild the HTTP client: %s", exc.message)
            return
        old, self._http = self._http, fresh
        if not self._busy[old]:
            await self._retire(old)

    async def _retire(self, http: httpx.AsyncClient) -> None:
        del self._busy[http]
        if self._transport is None:  # a given transport lives on in the new client
            await http.aclose()

    async def exchange(
        self, method: str, url: httpx.URL | str, headers: dict[str, str], content: bytes, progress: Progress
    ) -> Answer:
        """One complete answer, or an exception of the library, which ``within`` translates."""
        http = self._http
        self._busy[http] += 1
        try:
            return await self._exchange(http, method, url, headers, content, progress)
        finally:
            self._busy[http] -= 1
            if http is not self._http and not self._busy[http]:
                await self._retire(http)

    async def _exchange(
        self,
        http: httpx.AsyncClient,
        method: str,
        url: httpx.URL | str,
        headers: dict[str, str],
        content: bytes,
        progress: Progress,
    ) -> Answer:
        progress.begin()
        request = http.build_request(
            method, url, headers=headers, content=content, extensions={"trace": progress.trace}
        )
        try:
            response = await http.send(request, stream=True)
        except BaseException:
            await progress.abandon()
            raise
        try:
            self.answers += 1
            progress.answered = True
            body = await _read(response)
        finally:
            await response.aclose()
        progress.in_flight = False
        head = response.headers
        return Answer(
            response.status_code,
            head.get("content-type"),
            body,
            retry_after=head.get("retry-after"),
            date=head.get("date"),
            framed=not {"content-length", "transfer-encoding"}.isdisjoint(head),
        )

    async def within(self, step: Step, limit_s: float, work: Callable[[Progress], Awaitable[T]]) -> T:
        """Run one step under its total deadline; whatever goes wrong leaves as one of our errors."""
        progress, answers = Progress(), self.answers
        try:
            async with asyncio.timeout(limit_s):
                return await work(progress)
        except TimeoutError:
            failure: CypherFaceError = faults.deadline_passed(step, limit_s, progress)
        except faults.HTTPX_EXCEPTIONS as exc:
            failure = faults.translate(step, exc, progress)
        except CypherFaceError as exc:
            failure = exc
            failure.outcome_unknown = failure.outcome_unknown or progress.may_have_acted
        if self.answers != answers:
            failure.connect_failed = False  # a server was reached meanwhile: the line is not down
        raise failure  # outside the handlers: the library's exception holds the request with its secrets


async def _read(response: httpx.Response) -> bytes:
    """The whole body. Raises Transient for one that is too large or encoded."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Transient("cannot read the answer: it is compressed although that was declined", code="bad_answer")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise Transient(f"cannot read the answer: it is larger than {MAX_ANSWER_BYTES} bytes", code="bad_answer")
    return bytes(body)


def _http_client(settings: CypherFaceSection, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they print URLs and headers
    _settle_missing("sniffio")
    return httpx.AsyncClient(
        transport=transport,
        verify=tls_context(settings) if transport is None else True,  # slow to make, and a given transport ignores it
        trust_env=False,  # a proxy, a CA or a .netrc from the environment would be an unreviewed way out
        follow_redirects=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),  # none is kept
        timeout=httpx.Timeout(None, connect=settings.timeouts.connect_s),  # the rest: one deadline per step
        headers={
            "user-agent": f"edge-agent/{__version__}",
            "accept": "application/json",
            "accept-encoding": "identity",
        },
    )


def _settle_missing(module: str) -> None:
    """Make the import of a module that is not installed fail at once.

    httpcore tries this one for every lock and event, and Python searches its whole path again for what it did not
    find: a fifth of the processor time of a forwarded capture (encode/httpcore#1103).
    """
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        sys.modules[module] = None  # type: ignore[assignment]  # documented: the import then raises ModuleNotFoundError


def tls_context(settings: CypherFaceSection) -> ssl.SSLContext:
    """Whom to trust. Raises ConfigurationError when ``ca_bundle`` cannot be read."""
    if settings.ca_bundle is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(settings.ca_bundle))
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigurationError(
            f"cannot use cypherface.ca_bundle {settings.ca_bundle}: {exc.strerror or 'it holds no certificate'}",
            hint="give a PEM file with the certificate of the issuing authority",
        ) from exc
