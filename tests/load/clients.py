"""Many clients of one terminal: a bounded, paced load on its socket, and a tally of what it answered.

A tenth of the connections read events (every other one of them does not read at all); the rest take turns sending
what a busy shop, a curious technician and a broken program send.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h11

from edge_agent.api.problems import CATALOGUE, MEDIA_TYPE

ANSWER_S = 30.0
"""No request here may wait longer for its answer."""
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /v1/status\r\n\r\n",
    b"POST /v1/verifications HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n",
)


@dataclass(slots=True)
class Tally:
    """What was sent and what came back."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By kind of request and status; status 0: the agent closed the connection (what garbage deserves)."""
    undocumented: list[str] = field(default_factory=list)
    """Answers that the problem catalogue does not know, as ``kind status body``."""
    events: int = 0
    """Read by those that read."""

    @property
    def requests(self) -> int:
        return sum(self.answers.values())


@dataclass(frozen=True, slots=True)
class Load:
    """How much: ``rate`` requests a second over all ``connections``, for ``seconds``."""

    connections: int = 200
    rate: float = 300.0
    seconds: float = 30.0
    seed: int = 1


class Clients:
    """One run of a load. ``run`` in an event loop of its own; it ends by itself."""

    def __init__(self, socket: Path, load: Load) -> None:
        self._socket, self._load = socket, load
        self._random = random.Random(load.seed)
        self._known: list[str] = ["0" * 32]
        """Ids of verifications that clients of this load started."""
        self.tally = Tally()

    async def run(self) -> Tally:
        """Returns the tally; raises OSError when the agent does not answer at all."""
        readers = self._load.connections // 10
        async with asyncio.TaskGroup() as group:
            for number in range(self._load.connections):
                group.create_task(self._read_events(number) if number < readers else self._ask(number, readers))
        return self.tally

    async def _read_events(self, number: int) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: edge-agent\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load.seconds):
                if number % 2:
                    await asyncio.sleep(self._load.seconds)
                while line := await reader.readline():
                    self.tally.events += line.startswith(b"event:")
        writer.close()

    async def _ask(self, number: int, readers: int) -> None:
        asking = self._load.connections - readers
        every_s = asking / self._load.rate
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._load.seconds
        next_s = loop.time() + every_s * (number - readers) / asking
        connection: _Connection | None = None
        while next_s < end_s:
            await asyncio.sleep(next_s - loop.time())
            next_s += every_s
            connection = connection if connection is not None and connection.usable else await self._connect()
            await self._one(connection)
        if connection is not None:
            connection.close()

    async def _connect(self) -> _Connection:
        return _Connection(*await asyncio.open_unix_connection(str(self._socket)))

    async def _one(self, connection: _Connection) -> None:
        kind = self._random.choices(("status", "list", "get", "start", "cancel", "wrong", "garbage"),
                                    (30, 10, 20, 10, 15, 10, 5))[0]  # fmt: skip
        async with asyncio.timeout(ANSWER_S):
            if kind == "garbage":
                status, media_type, body = await connection.garbage(self._random.choice(GARBAGE))
            else:
                status, media_type, body = await connection.request(*self._request(kind))
            self._count(kind, status, media_type, body)
            if (kind, status) == ("start", 201):  # at once, long before a capture: this load is about the API
                self._known.append(json.loads(body)["id"])
                await self._cancel(connection, self._known[-1])

    async def _cancel(self, connection: _Connection, verification_id: str) -> None:
        path = f"/v1/verifications/{verification_id}"
        self._count("cancel", *await connection.request("DELETE", path, b"", []))

    def _request(self, kind: str) -> tuple[str, str, bytes, list[tuple[str, str]]]:
        path = f"/v1/verifications/{self._random.choice(self._known)}"
        user = f"load-{self._random.randrange(1000)}"
        key = [("Idempotency-Key", uuid.UUID(int=self._random.getrandbits(128)).hex)]
        match kind:
            case "status":
                return "GET", "/v1/status", b"", []
            case "list":
                return "GET", "/v1/verifications", b"", []
            case "get":
                return "GET", path, b"", []
            case "start":
                return "POST", "/v1/verifications", json.dumps({"user_id": user}).encode(), key
            case "cancel":
                return "DELETE", path, b"", []
        return self._random.choice(
            (
                ("POST", "/v1/verifications", b"[" * 5000, key),
                ("POST", "/v1/verifications", b'{"user_id": "4111111111111111"}', key),
                ("POST", "/v1/verifications", b'{"user_id": "alice", "amount": NaN}', key),
                ("POST", "/v1/verifications", b"{}" + b" " * 20_000, key),
                ("PATCH", "/v1/verifications", b"", []),
                ("GET", "/v1/verifications?state=%00", b"", []),
                ("GET", "/etc/passwd", b"", []),
            )
        )

    def _count(self, kind: str, status: int, media_type: str, body: bytes) -> None:
        self.tally.answers[kind, status] += 1
        if status < 400 or kind == "garbage":
            documented = status < 500
        else:
            documented = media_type == MEDIA_TYPE and json.loads(body).get("code") in CATALOGUE
        if not documented:
            self.tally.undocumented.append(f"{kind} {status} {body[:200]!r}")


class _Connection:
    """One HTTP/1.1 connection, kept alive as long as the agent likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self.usable = True

    def close(self) -> None:
        self.usable = False
        self._writer.close()

    async def request(
        self, method: str, target: str, body: bytes, headers: list[tuple[str, str]]
    ) -> tuple[int, str, bytes]:
        """Status, media type and body; status 0 when the connection was closed instead."""
        fixed = [("Host", "edge-agent"), ("Content-Length", str(len(body)))]
        if body:
            fixed.append(("Content-Type", "application/json"))
        request = h11.Request(method=method, target=target, headers=fixed + headers)
        data = self._http.send(request) + (self._http.send(h11.Data(body)) or b"")
        return await self._exchange((data or b"") + (self._http.send(h11.EndOfMessage()) or b""))

    async def garbage(self, data: bytes) -> tuple[int, str, bytes]:
        """As ``request``, with bytes that are no request; the connection is not used again."""
        self._http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        self._http.send(h11.EndOfMessage())
        found = await self._exchange(data)
        self.close()
        return found

    async def _exchange(self, data: bytes) -> tuple[int, str, bytes]:
        status, media_type, body = 0, "", b""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()
            while not isinstance(event := await self._event(), h11.EndOfMessage | h11.ConnectionClosed):
                if isinstance(event, h11.Response):
                    status = event.status_code
                    media_type = dict(event.headers).get(b"content-type", b"").decode()
                elif isinstance(event, h11.Data):
                    body += event.data
        self._start_anew()
        return status, media_type, body

    def _start_anew(self) -> None:
        try:
            self._http.start_next_cycle()
        except h11.ProtocolError:
            self.close()

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(65536))
