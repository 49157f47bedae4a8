"""The routes of the sandbox, and what is answered when none fits."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge_agent.sandbox import answers, guide
from edge_agent.sandbox.answers import Refusal
from edge_agent.sandbox.control import Control
from edge_agent.sandbox.runtime import Sandbox
from edge_agent.sandbox.service import Service, no_such_path
from edge_agent.sandbox.storage import Storage


def build(sandbox: Sandbox) -> Starlette:
    """The service, its storage, the control endpoints and the guide, without the faults."""

    async def refused(_request: Request, exc: Exception) -> Response:
        if not isinstance(exc, Refusal):
            raise exc
        return answers.error(sandbox.variants, exc.status, exc.message)

    async def no_route(request: Request, exc: Exception) -> Response:
        if isinstance(exc, HTTPException) and exc.status_code == 405:
            return PlainTextResponse("Method Not Allowed\n", 405, headers=exc.headers)
        return no_such_path(request)

    async def root(request: Request) -> Response:
        return PlainTextResponse(f"edge-agent sandbox: see http://{request.headers['host']}/docs\n")

    async def docs(request: Request) -> Response:
        return PlainTextResponse(guide.text(f"http://{request.headers['host']}", sandbox.credentials))

    routes = [
        Route("/", root, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
        *Service(sandbox).routes(),
        *Storage(sandbox).routes(),
        *Control(sandbox).routes(),
    ]
    app = Starlette(routes=routes, exception_handlers={Refusal: refused, HTTPException: no_route})
    app.router.redirect_slashes = False
    return app
