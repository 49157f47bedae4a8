"""One request's connection, seen closely enough to damage it: ASGI below, the TCP transport beside it."""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Peer = tuple[str, int]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""


class Transports:
    """The open TCP transports by the client's address: ASGI has no way to cut a connection."""

    def __init__(self) -> None:
        self._open: dict[Peer, asyncio.Transport] = {}

    def of(self, scope: Scope) -> asyncio.Transport:
        """Raises KeyError when the connection is gone."""
        host, port = scope["client"]
        return self._open[(host, port)]

    def protocol(self) -> type[H11Protocol]:
        """The HTTP/1.1 protocol of uvicorn that also registers its connections here."""
        opened = self._open

        class TrackedProtocol(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
                super().connection_made(transport)
                if self.client:
                    opened[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    opened.pop(self.client, None)
                super().connection_lost(exc)

        return TrackedProtocol


class Connection:
    """What a fault can do to the exchange at hand. ``stopping`` is set when the server shuts down."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, transports: Transports, stopping: asyncio.Event
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._transports = transports
        self._stopping = stopping

    async def pause(self, seconds: float) -> None:
        """Wait; shorter when the server stops."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def carry_out(self, app: ASGIApp) -> Answer:
        """Let the service handle the request, and keep its answer back."""
        started: Message = {"status": 500, "headers": []}
        body = bytearray()

        async def keep(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message
            else:
                body.extend(message.get("body", b""))

        await app(self.scope, self._receive, keep)
        return Answer(started["status"], list(started["headers"]), bytes(body))

    async def read(self, at_least_bytes: int | None = None) -> None:
        """Read the request's body: all of it, or until so many bytes have arrived."""
        arrived = 0
        while at_least_bytes is None or arrived < at_least_bytes:
            message = await self._receive()
            arrived += len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    async def answer(self, answer: Answer) -> None:
        await self._send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def trickle(self, answer: Answer, bytes_per_s: float) -> None:
        """Send the body byte by byte until it is through, the client has gone or the server stops."""
        await self._send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        for position in range(len(answer.body)):
            await self.pause(1 / bytes_per_s)
            if self._stopping.is_set() or self.is_gone():
                return
            byte = answer.body[position : position + 1]
            await self._send({"type": "http.response.body", "body": byte, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    def is_gone(self) -> bool:
        """Whether the client has closed the connection."""
        try:
            return self._transports.of(self.scope).is_closing()
        except KeyError:
            return True

    async def hang(self) -> None:
        """Say nothing until the client has gone; the connection is cut when the server stops."""
        gone = asyncio.ensure_future(self._until_gone())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not gone.done():
            await self.close()
        await gone

    async def close(self, said: bytes = b"") -> None:
        """Send these bytes as they are, then end the connection in good order (FIN)."""
        with contextlib.suppress(KeyError):
            transport = self._transports.of(self.scope)
            transport.write(said)
            transport.close()
        await self._until_gone()

    async def reset(self, said: bytes = b"") -> None:
        """Send these bytes as they are, then reset the connection (RST)."""
        with contextlib.suppress(KeyError):
            transport = self._transports.of(self.scope)
            transport.write(said)
            # A lingering time of zero makes the kernel send RST instead of FIN (socket(7), SO_LINGER).
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        await self._until_gone()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def head(answer: Answer, *, promised_bytes: int) -> bytes:
    """Status line and headers as bytes, with a Content-Length of our choosing."""
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}".encode()]
    lines += [k + b": " + v for k, v in answer.headers if k.lower() != b"content-length"]
    lines.append(f"content-length: {promised_bytes}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"
