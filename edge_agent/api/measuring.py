"""The metrics: on the terminal API for whoever has a role, and alone on a loopback address for whoever is on this machine.

That second way has no token, because scrapers seldom can be given one safely and there is nothing personal to see. What
a page in a browser sends is refused there too, there is nothing but ``GET /metrics``, and few connections are taken.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.api.access import Access
from edge_agent.api.admission import Admission
from edge_agent.api.answers import http_problem
from edge_agent.api.calls import Call
from edge_agent.api.peer import Peer
from edge_agent.api.protocol import AccessProtocol
from edge_agent.metrics.page import MEDIA_TYPE, MetricsPage
from edge_agent.metrics.values import Counted

PATH: Final = "/metrics"
MAX_SCRAPERS: Final = 8
"""Connections to the listener of the metrics."""
SCRAPER: Final = Peer("metrics", frozenset())
OTHER: Final = "other"


class Asked:
    """How often what was asked for, and what came of it."""

    def __init__(self, access: Access) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By route, method and status."""
        self.problems: Counter[str] = Counter()
        self.counted = Counted(self.requests, self.problems, access.refused)

    def nowhere(self, status: int) -> None:
        """A request for a path or with a method that there is not: neither may become a label."""
        self.requests[OTHER, OTHER, status] += 1


async def metrics(call: Call) -> Response:
    """The agent's state and counts in Prometheus' text format; docs/metrics.md lists them."""
    return await _answer(call.request.app.state.metrics)


async def _answer(page: MetricsPage) -> Response:
    return Response(await page.text(), headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"})


def metrics_application(page: MetricsPage, access: Access) -> Starlette:
    """The ASGI application of the listener ``api.metrics``."""

    async def endpoint(request: Request) -> Response:
        del request
        return await _answer(page)

    app = Starlette(
        routes=[Route(PATH, endpoint, methods=["GET"])],
        middleware=[Middleware(_OnThisMachine, access=access)],
        exception_handlers={HTTPException: http_problem},
    )
    app.router.redirect_slashes = False
    return app


class _OnThisMachine(Admission):
    """Admits without a token what is no page in a browser."""

    def _by_token(self, headers: list[tuple[bytes, bytes]]) -> Peer | Response:
        del headers
        return SCRAPER


class ScraperProtocol(AccessProtocol):
    """One connection to the listener of the metrics."""

    def _is_one_too_many(self) -> bool:
        return len(self.connections) > MAX_SCRAPERS
