"""A TCP proxy between the client and the service that fails as networks do. Loopback only.

One port for good, because the captures remember the URL they were made for; the pre-signed URLs name it too (the
sandbox signs for the host it was called by). The mode decides what happens to connections that come from now on, and
to what flows on those that are open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Flow = Literal["request", "answer"]
Action = Literal["pass", "refuse", "swallow", "reset", "stall", "trickle", "portal"]

CHUNK_BYTES = 4096
PORTAL_PAGE = b"<!DOCTYPE html><html><head><title>Free Wi-Fi</title></head><body>Please log in.</body></html>"
PORTALS = {
    200: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
    302: b"HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/login\r\nContent-Type: text/html\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s",
}
START_S = 10.0


@dataclass(frozen=True, slots=True)
class Mode:
    """What the network does.

    refuse: nobody listens. swallow: connections are taken, nothing is ever answered. reset: RST once a request of
    ``verb`` has sent ``after_bytes`` (or, for ``flow`` answer, when its answer begins). stall: the same place, but
    silence instead. trickle: ``bytes_per_s`` in the direction of ``flow``. portal: every request gets ``status``.
    """

    action: Action = "pass"
    verb: bytes = b""
    """Requests that begin so; empty = all."""
    flow: Flow = "request"
    after_bytes: int = 0
    bytes_per_s: float = 1024.0
    status: int = 200


PASS = Mode()


class FaultProxy:
    """A context manager: the proxy in a thread of its own. Every method may be called from any thread."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._mode = PASS
        self._open: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.met: Counter[str] = Counter()
        """How often each action was really taken: a fault that nobody met proves nothing."""
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_S), "the fault proxy did not come up"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def set(self, mode: Mode) -> None:
        """From now on. Open connections are cut, so that no request of the time before is half-way in."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(START_S)

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        for task in self._open:
            task.cancel()
        if mode.action == "refuse" and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif mode.action != "refuse" and self._listener is None:
            await self._listen()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self._listen()
        self._ready.set()
        await self._stop.wait()
        await self._set(Mode("refuse"))
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0.01)  # a transport that was aborted is closed by the loop's next turn

    async def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = await asyncio.start_server(self._accept, sock=listener)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: _reset(writer))  # not in the task: it may be cancelled before it begins

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mode = self._mode
        try:
            if mode.action == "swallow":
                self.met["swallow"] += 1
                while await reader.read(CHUNK_BYTES):
                    pass
            elif mode.action == "portal":
                await self._portal(reader, writer, mode)
            else:
                await self._carry(reader, writer, mode)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side went away: that is what networks do

    async def _portal(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: Mode) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.met["portal"] += 1
        writer.write(PORTALS[mode.status] % (len(PORTAL_PAGE), PORTAL_PAGE))
        await writer.drain()
        with contextlib.suppress(TimeoutError):  # a close with unread input would be a reset: read the body first
            async with asyncio.timeout(0.2):
                while await reader.read(CHUNK_BYTES):
                    pass

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: Mode) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        wire = _Wire(mode, self.met)
        ways = [
            asyncio.create_task(wire.carry(reader, back, "request")),
            asyncio.create_task(wire.carry(there, writer, "answer")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _reset(back)  # first: a second cancellation may come during the wait
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


class _Wire:
    """Both directions of one connection, which may carry several requests."""

    def __init__(self, mode: Mode, met: Counter[str]) -> None:
        self._mode = mode
        self._met = met
        self._concerned = False
        """The request under way is one that the mode is about."""
        self._seen_bytes = 0

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flow: Flow) -> None:
        """Until one side ends, or the fault ends it."""
        while chunk := await source.read(CHUNK_BYTES):
            if flow == "request":
                self._notice(chunk)
            if self._concerned and flow == self._mode.flow and self._mode.action != "pass":
                if not await self._fail(chunk, sink):
                    return
            else:
                sink.write(chunk)
                await sink.drain()

    def _notice(self, chunk: bytes) -> None:
        if chunk.split(b" ", 1)[0] in {b"POST", b"PUT"}:  # a body of random bytes begins so once in 2^32 chunks
            self._concerned = chunk.startswith(self._mode.verb)
            self._seen_bytes = 0

    async def _fail(self, chunk: bytes, sink: asyncio.StreamWriter) -> bool:
        """Pass on what still may pass; False when the connection shall be reset."""
        mode = self._mode
        if mode.action == "trickle":
            self._met["trickle"] += 1
            await _trickle(chunk, sink, mode.bytes_per_s)
            return True
        passes = chunk[: max(0, mode.after_bytes - self._seen_bytes)]
        self._seen_bytes += len(chunk)
        sink.write(passes)
        await sink.drain()
        if len(passes) == len(chunk):
            return True
        self._met[mode.action] += 1
        if mode.action == "stall":
            await asyncio.Event().wait()
        return False


async def _trickle(chunk: bytes, sink: asyncio.StreamWriter, bytes_per_s: float) -> None:
    step = max(1, int(bytes_per_s / 50))
    for at in range(0, len(chunk), step):
        sink.write(chunk[at : at + step])
        await sink.drain()
        await asyncio.sleep(step / bytes_per_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
