"""What every request passes before any handler: is it from here, is it no browser page's, and who sends it.

A page in a browser on this machine can send requests to a loopback address. It cannot send one without an ``Origin``
(or ``Sec-Fetch-Site``) that would read the answer or carry a token, and one whose name was pointed at 127.0.0.1 (DNS
rebinding) carries that name as its ``Host``. There is no CORS: nothing here ever allows an origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_agent.api.answers import problem_answer
from edge_agent.api.peer import STATE_KEY, Credentials, Peer

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from edge_agent.api.access import Access

MAX_HEADERS: Final = 64
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


class Admission:
    """ASGI middleware: puts a ``Peer`` into the state of every request it lets through."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        admitted = self._admit(scope)
        if isinstance(admitted, Peer):
            scope["state"] = {**scope.get("state", {}), STATE_KEY: admitted}
            await self._app(scope, receive, send)
        else:
            await admitted(scope, receive, send)

    def _admit(self, scope: Scope) -> Peer | Response:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        credentials = scope.get("state", {}).get(STATE_KEY)
        if len(headers) > MAX_HEADERS:
            return self._refuse("headers_too_large", f"cannot read the request: more than {MAX_HEADERS} headers")
        if _values(headers, b"origin") or not set(_values(headers, b"sec-fetch-site")) <= {b"none"}:
            return self._refuse("cross_origin", "cannot answer a page in a browser")
        if isinstance(credentials, Credentials):
            peer = self._access.peer_of(credentials)
            return peer or self._refuse("forbidden", f"cannot answer: {credentials.caller} has no role here")
        if not _is_for_us(headers, scope.get("server")):
            return self._refuse("misdirected", "cannot answer: the Host header names another server")
        return self._by_token(headers)

    def _by_token(self, headers: list[tuple[bytes, bytes]]) -> Peer | Response:
        given = _values(headers, b"authorization")
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        peer = self._access.grants.by_token(token.strip()) if scheme.lower() == b"bearer" else None
        if peer is not None:
            return peer
        why = "the bearer token is not one of this terminal's" if token else "there is no bearer token"
        return self._refuse(
            "unauthenticated", f"cannot answer: {why}", {"WWW-Authenticate": 'Bearer realm="edge-agent"'}
        )

    def _refuse(self, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
        self._access.refuse(code, detail)
        return problem_answer(code, detail, {"Connection": "close", **(headers or {})})


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _is_for_us(headers: list[tuple[bytes, bytes]], server: tuple[str, int | None] | None) -> bool:
    """Exactly one Host: a loopback name, or the very address that was connected to, with its port."""
    if server is None:
        return False
    address, port = server
    names = {*LOOPBACK_NAMES, f"[{address}]" if ":" in address else address}
    allowed = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
    hosts = _values(headers, b"host")
    return len(hosts) == 1 and hosts[0].decode("latin-1").lower() in allowed
