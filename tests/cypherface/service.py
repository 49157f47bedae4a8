"""A scripted CypherFace behind httpx's mock transport, and raw servers for what only a socket can do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import jwt

from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient

API_KEY = "5b1f0f8e-7a52-4f0c-9d57-3c1f2a6b7d88"
MERCHANT = "0123456789abcdef01234567"
TWO_DAYS_S = 172_800
SIGNED_URL = "https://bucket.example/target/a.jpg?X-Amz-Expires=60&X-Amz-Signature=deadbeefcafe"
JSON = {"content-type": "application/json"}


def token(name: str, life_s: float = TWO_DAYS_S, iat: float = 1_700_000_000) -> str:
    """A JWT as CypherFace makes them; ``name`` tells one from another."""
    claims = {"merchantId": MERCHANT, "xApiKey": API_KEY, "iat": iat, "exp": iat + life_s, "name": name}
    return jwt.encode(claims, "a key that only the service has, 32+", algorithm="HS256")


class Clock:
    """A clock that only moves when told."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    """A JSON answer; ``body`` None: empty."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        return httpx.Response(status, headers={"content-length": "0", **named})
    return httpx.Response(status, json=body, headers=named)


Reply = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Service:
    """Answers each path from its own list, the last entry again and again; remembers every request."""

    def __init__(self, **replies: Reply | list[Reply]) -> None:
        self.requests: list[httpx.Request] = []
        defaults: dict[str, Reply | list[Reply]] = {
            "access_token": answer(body={"accessToken": token("first")}),
            "refresh_token": answer(body={"accessToken": token("refreshed")}),
            "generate_url": answer(body={"url": SIGNED_URL}),
            "put": answer(),
            "match": answer(body={"match": True, "similarity": 99.5}),
        }
        merged = {**defaults, **replies}
        self._replies = {name: value if isinstance(value, list) else [value] for name, value in merged.items()}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        replies = self._replies[_name(request)]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, httpx.Response):
            return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)
        return reply(request)

    @property
    def calls(self) -> list[str]:
        return [_name(request) for request in self.requests]

    @property
    def tokens_sent(self) -> list[str | None]:
        return [request.headers.get("authorization") for request in self.requests if _name(request) != "access_token"]

    def client(self, settings: CypherFaceSection, clock: Clock | None = None) -> CypherFaceClient:
        return CypherFaceClient(settings, transport=httpx.MockTransport(self), clock=clock or Clock())


def _name(request: httpx.Request) -> str:
    if request.method == "PUT":
        return "put"
    parts = [part for part in request.url.path.split("/") if part]
    return {"face-match": "match"}.get(parts[-1], parts[-1]).replace("-", "_")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(handler: Handler, **kwargs: Any) -> AsyncIterator[int]:
    """A TCP server on loopback; gives its port. Its connections end with it."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        if task is not None:
            tasks.append(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **kwargs)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # lets the transports close; no time passes


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers (lower case) and body of one request with Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return head[0], headers, body
