"""The page over HTTP: three requests, all for one browser (see door.py), nothing kept, nothing asked of anybody else."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from edge_agent.aim.door import COOKIE, Door, from_loopback, from_own_page
from edge_agent.aim.gauges import gauges_json
from edge_agent.aim.show import Show

Handler = Callable[[Request], Awaitable[Response]]

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NOT_YOURS = (
    "This page is open in another browser, or the link is not the newest. Start edge-agent aim again for a new link."
)
NOT_HERE = "This address is not the terminal's own: open the link as edge-agent aim printed it."


def application(show: Show, door: Door, terminal: str) -> Starlette:
    """``terminal``: what the page calls the place."""

    async def page(request: Request) -> Response:
        cookie = door.open(request.query_params.get("token", ""))
        if cookie is None and not door.knows(request.cookies):
            return _refusal(NOT_YOURS)
        show.open()
        answer = _page(terminal)
        if cookie is not None:
            answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict")
        return answer

    async def look(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        return JSONResponse(await show.newer(int(after) if after.isdecimal() and len(after) < 16 else 0))

    async def stop(_: Request) -> Response:
        show.stop.set()
        return JSONResponse({})

    app = Starlette(
        routes=[
            Route("/", _guarded(page), methods=["GET"]),
            Route("/look", _guarded(_for_its_browser(door, look)), methods=["GET"]),
            Route("/stop", _guarded(_for_its_browser(door, stop)), methods=["POST"]),
        ]
    )
    app.router.redirect_slashes = False
    return app


def _for_its_browser(door: Door, handler: Handler) -> Handler:
    async def admitted(request: Request) -> Response:
        if not door.knows(request.cookies) or not from_own_page(request.headers):
            return _refusal(NOT_YOURS)
        return await handler(request)

    return admitted


def _guarded(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        # HEAD comes with GET: what looks at a link before a person does must not use it up
        if request.method == "HEAD":
            response: Response = Response()
        elif not from_loopback(request.headers.get("host", "")):
            response = _refusal(NOT_HERE)
        else:
            response = await handler(request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Content-Security-Policy", POLICY.format("none"))
        return response

    return answer


def _refusal(text: str) -> Response:
    return HTMLResponse(f"<!doctype html><meta charset=utf-8><title>edge-agent aim</title><p>{html.escape(text)}", 403)


def _page(terminal: str) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = resources.files("edge_agent.aim").joinpath("page.html").read_text(encoding="utf-8")
    gauges = json.dumps(gauges_json()).replace("<", "\\u003c")
    for name, value in (("nonce", nonce), ("terminal", html.escape(terminal)), ("gauges", gauges)):
        text = text.replace(f"{{{{{name}}}}}", value)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY.format(nonce)})
