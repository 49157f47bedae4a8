"""One look at the service: does anything answer, how soon, and what time is it there. Nothing secret is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.exchange import Line
from edge_agent.cypherface.faults import Progress
from edge_agent.cypherface.wire import Answer, Step


@dataclass(frozen=True, slots=True)
class Look:
    """An answer, of any status."""

    status: int
    latency_ms: float
    """With the connection, its TLS included."""
    date: datetime | None
    """Its ``Date`` header."""


async def look(
    settings: CypherFaceSection,
    *,
    limit_s: float,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """GET the base URL. Raises Transient when nothing answers, ConfigurationError when ``ca_bundle`` cannot be read."""
    line = Line(settings, transport)
    try:
        began_s = clock()

        async def work(progress: Progress) -> Answer:
            return await line.exchange("GET", settings.base_url, {}, b"", progress)

        answer = await line.within(Step.LOOK, limit_s, work)
        return Look(answer.status, (clock() - began_s) * 1000.0, _date(answer.date))
    finally:
        await line.aclose()


def _date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
