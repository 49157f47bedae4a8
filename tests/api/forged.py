"""Requests to the ASGI application as any caller would send them, without a socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from edge_agent.api.peer import ABORT_KEY, STATE_KEY, Credentials

PORT = 8470
Application = Callable[[Any, Any, Any], Awaitable[None]]


def process(uid: int, *groups: int) -> Credentials:
    """A process of a user whose own group has the same number."""
    return Credentials(pid=1, uid=uid, gid=uid, groups=frozenset({uid, *groups}))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask(
    app: Application, method: str, path: str, credentials: Credentials | None = None, **options: Any
) -> httpx.Response:
    """What the application answers; ``credentials`` None: over TCP."""

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        await app(
            {**scope, "state": {STATE_KEY: credentials, ABORT_KEY: lambda: None}, "server": ("127.0.0.1", PORT)},
            receive,
            send,
        )

    transport = httpx.ASGITransport(app=with_peer)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}", timeout=20) as http:
        return await http.request(method, path, **options)
