"""The event bus: what happened, numbered, with a bounded memory and bounded readers.

Publishing never waits: a reader that falls behind loses the oldest of its events and is told how many (``dropped``).
Used from the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from edge_agent.types import JsonObject

KEPT = 1000
"""Events remembered for a reader that comes back with Last-Event-ID."""
READER_BUFFER = 256
"""Events a reader may lag behind."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    seq: int
    at: datetime
    kind: str
    """state, hint, camera, network, storage, configuration, dropped."""
    verification_id: str | None
    data: JsonObject
    approved_until_s: float | None = None
    """Seconds since boot: whoever reads this event later must not be told ``approved``; None = it never says so."""


class Subscription:
    """One reader's bounded view of the bus."""

    def __init__(self, verification_id: str | None) -> None:
        self._verification_id = verification_id
        self._buffer: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._dropped = 0
        self._closed = False

    def offer(self, event: Event) -> None:
        """Add an event, if it is for this reader; drop the oldest when the buffer is full."""
        if self._verification_id is not None and event.verification_id != self._verification_id:
            return
        if len(self._buffer) >= READER_BUFFER:
            self._buffer.popleft()
            self._dropped += 1
        self._buffer.append(event)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event; None after ``timeout_s`` without one (time for a heartbeat). StopAsyncIteration at the end."""
        if not self._buffer and not self._closed:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        if self._dropped and self._buffer:
            first, count, self._dropped = self._buffer[0], self._dropped, 0
            return Event(first.seq - 1, first.at, "dropped", first.verification_id, {"count": count})
        if self._buffer:
            return self._buffer.popleft()
        if self._closed:
            raise StopAsyncIteration
        return None


class EventBus:
    """Publishes to any number of readers."""

    def __init__(self) -> None:
        self._seq = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._readers: set[Subscription] = set()
        self._closed = False

    @property
    def last_seq(self) -> int:
        return self._seq

    def publish(
        self,
        kind: str,
        data: JsonObject,
        *,
        at: datetime,
        verification_id: str | None = None,
        approved_until_s: float | None = None,
    ) -> Event:
        self._seq += 1
        event = Event(self._seq, at, kind, verification_id, data, approved_until_s)
        self._kept.append(event)
        for reader in self._readers:
            reader.offer(event)
        return event

    @contextlib.contextmanager
    def subscribe(self, verification_id: str | None = None, *, after: int | None = None) -> Iterator[Subscription]:
        """A reader of everything, or of one verification; ``after`` replays what is remembered past that number."""
        reader = Subscription(verification_id)
        if after is not None:
            for event in self._kept:
                if event.seq > after:
                    reader.offer(event)
        self._readers.add(reader)
        if self._closed:
            reader.close()
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        """End every reader's stream, also of those that come from now on (the daemon stops)."""
        self._closed = True
        for reader in self._readers:
            reader.close()


def _long_after() -> float:
    return math.inf


async def stream(
    reader: Subscription,
    *,
    heartbeat_s: float,
    boottime_s: Callable[[], float] = _long_after,
    see: Callable[[Event], Awaitable[Event | None]] | None = None,
) -> AsyncIterator[bytes]:
    """Server-Sent Events of a reader, with comments as heartbeats. ``boottime_s``: the clock; without one all is old.

    ``see``: what of an event this reader may see; None = all of every event.
    """
    yield b": edge-agent events\n\n"
    while True:
        try:
            event = await reader.next(heartbeat_s)
        except StopAsyncIteration:
            return
        if event is not None and see is not None:
            event = await see(event)
            if event is None:
                continue
        yield b": heartbeat\n\n" if event is None else encode(event, boottime_s())


def encode(event: Event, boottime_s: float = math.inf) -> bytes:
    """One event as SSE bytes (id, event, data), as it may be read at ``boottime_s``."""
    data = {"at": event.at.isoformat(), "verification_id": event.verification_id, **event.data}
    if "approved" in data:
        data["approved"] &= event.approved_until_s is not None and boottime_s < event.approved_until_s
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
