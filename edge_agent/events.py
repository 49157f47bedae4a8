"""The event bus: what happened, numbered, with a bounded memory and bounded readers.

Publishing never waits: a reader that falls behind loses the oldest of its events and is told how many (``dropped``).
An id names the life of the daemon it is of, so that one of an earlier life is never taken for one of this.
Used from the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edge_agent.types import JsonObject

KEPT = 1000
"""Events remembered for a reader that comes back with Last-Event-ID."""
READER_BUFFER = 256
"""Events a reader may lag behind."""
FROM_THE_START = "0"
"""The id to resume after for everything that is remembered."""
EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,18}|[0-9]{1,18}")
"""Ids that clients may send: ours, FROM_THE_START, and the bare numbers of old releases."""
RETRY_MS = 1000
"""A browser's EventSource comes back after this."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    life: str
    seq: int
    at: datetime
    kind: str
    """state, hint, camera, motion, aim, network, storage, configuration, dropped; the fields of each: api/wire_events.py."""
    verification_id: str | None
    data: JsonObject
    approved_until_s: float | None = None
    """Seconds since boot: whoever reads this event later must not be told ``approved``; None = it never says so."""

    @property
    def id(self) -> str:
        """What Last-Event-ID resumes after."""
        return f"{self.life}-{self.seq}"

    @property
    def ends_its_verification(self) -> bool:
        """True for a final state."""
        return self.kind == "state" and bool(self.data["final"])


class Subscription:
    """One reader's bounded view of the bus."""

    def __init__(self, verification_id: str | None, kinds: frozenset[str] | None, start: Event) -> None:
        """``start`` carries the life and the number that this reader begins after."""
        self.verification_id = verification_id
        self._kinds = kinds
        self._start = start
        self._first: deque[Event] = deque()
        """What was there before the subscription; remembered by the bus anyway, so it takes no room."""
        self._buffer: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._dropped = 0
        self._closed = False

    def offer(self, event: Event) -> bool:
        """Add an event, if it is for this reader. False when the buffer was full: the oldest was dropped for it."""
        if not self._wants(event):
            return True
        full = len(self._buffer) >= READER_BUFFER
        if full:
            self._buffer.popleft()
            self._dropped += 1
        self._buffer.append(event)
        self._wake.set()
        return not full

    def _wants(self, event: Event) -> bool:
        if self.verification_id is not None and event.verification_id != self.verification_id:
            return False
        return self._kinds is None or event.kind in self._kinds

    def replay(self, events: Iterable[Event], gap: str | None) -> None:
        """Begin with what is remembered; ``gap`` says why something before that may be missing."""
        if gap is not None:
            self._first.append(self.note("dropped", {"count": None, "reason": gap}))
        self._first.extend(event for event in events if self._wants(event))

    def note(self, kind: str, data: JsonObject, approved_until_s: float | None = None) -> Event:
        """An event for this reader alone; resuming after it gives all that follows."""
        start = self._start
        return Event(start.life, start.seq, start.at, kind, self.verification_id, data, approved_until_s)

    @property
    def queues(self) -> tuple[deque[Event], deque[Event]]:
        """What will be read next."""
        return self._first, self._buffer

    @property
    def tells_state(self) -> bool:
        """True while a state is among what will be read next."""
        return any(event.kind == "state" for queue in self.queues for event in queue)

    def begin_with(self, present: Iterable[Event]) -> None:
        """Put how things are now before what follows, and after the word that something is missing."""
        gaps = [event for event in self._first if event.kind == "dropped"]
        rest = [event for event in self._first if event.kind != "dropped"]
        self._first = deque([*gaps, *present, *rest])

    def ends_with(self, event: Event | None) -> bool:
        """True when ``event`` is the last of its verification: a final state, and no other waits to be read.

        (A parked one that was reopened has a state after a final one.)
        """
        if self.verification_id is None or event is None:
            return False
        return event.ends_its_verification and not self.tells_state

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event; None after ``timeout_s`` without one (time for a heartbeat). StopAsyncIteration at the end."""
        if not self._first and not self._buffer and not self._closed:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        if self._first:
            return self._first.popleft()
        if self._dropped and self._buffer:
            return self._tell_the_loss()
        if self._buffer:
            return self._buffer.popleft()
        if self._closed:
            raise StopAsyncIteration
        return None

    def _tell_the_loss(self) -> Event:
        first, count, self._dropped = self._buffer[0], self._dropped, 0
        data: JsonObject = {"count": count, "reason": "slow_reader"}
        return Event(first.life, first.seq - 1, first.at, "dropped", self.verification_id, data)


class EventBus:
    """Publishes to any number of readers."""

    def __init__(self, life: str | None = None) -> None:
        """``life``: 8 hex digits, this daemon's; None makes one up."""
        self.life = life or secrets.token_hex(4)
        self._seq = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._readers: set[Subscription] = set()
        self._closed = asyncio.Event()
        self.dropped = 0
        """Events that readers were too slow for, in all."""

    @property
    def readers(self) -> int:
        """How many there are now."""
        return len(self._readers)

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
        event = Event(self.life, self._seq, at, kind, verification_id, data, approved_until_s)
        self._kept.append(event)
        for reader in self._readers:
            self.dropped += not reader.offer(event)
        return event

    def retract(self, verification_id: str) -> None:
        """Whoever reads an event of this verification from now on is not told ``approved``."""
        for events in (self._kept, *(queue for reader in self._readers for queue in reader.queues)):
            for place, event in enumerate(events):
                if event.verification_id == verification_id and event.approved_until_s is not None:
                    events[place] = replace(event, approved_until_s=None)

    @contextlib.contextmanager
    def subscribe(
        self,
        verification_id: str | None = None,
        *,
        after: str | None = None,
        kinds: frozenset[str] | None = None,
    ) -> Iterator[Subscription]:
        """A reader of everything, or of one verification, or of some kinds.

        ``after``: an id (EVENT_ID); what is remembered past it comes first. Where that may not be all, a ``dropped``
        says so: ``forgotten`` (too long ago) or ``unknown_id`` (of another life), and all that is remembered follows.
        """
        seq, gap = (self._seq, None) if after is None else self._resume(after)
        start = Event(self.life, seq, datetime.now(UTC), "start", verification_id, {})
        reader = Subscription(verification_id, kinds, start)
        reader.replay((event for event in self._kept if event.seq > seq), gap)
        self._readers.add(reader)
        if self._closed.is_set():
            reader.close()
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def _resume(self, after: str) -> tuple[int, str | None]:
        """The number to go on after, and why something may be missing there."""
        life, _, number = after.rpartition("-")
        seq, before_all = int(number), self._seq - len(self._kept)
        if after != FROM_THE_START and (life != self.life or seq > self._seq):
            return before_all, "unknown_id"
        return (before_all, "forgotten") if seq < before_all else (seq, None)

    def close(self) -> None:
        """End every reader's stream, also of those that come from now on (the daemon stops)."""
        self._closed.set()
        for reader in self._readers:
            reader.close()

    async def wait_closed(self) -> None:
        """Return once ``close`` was called."""
        await self._closed.wait()


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

    ``see``: what of an event this reader may see; None = all of every event. A heartbeat comes ``heartbeat_s`` after
    the last thing that was sent, whatever happened that is not shown. Ends with the bus; that of one verification also
    after its final state.
    """
    now_s = asyncio.get_running_loop().time
    yield f": edge-agent events\nretry: {RETRY_MS}\n\n".encode()
    due_s = now_s() + heartbeat_s
    while True:
        try:
            event = await reader.next(max(0.0, due_s - now_s()))
        except StopAsyncIteration:
            return
        if event is not None and see is not None:
            event = await see(event)
        if event is None and now_s() < due_s:
            continue
        yield b": heartbeat\n\n" if event is None else encode(event, boottime_s())
        due_s = now_s() + heartbeat_s
        if reader.ends_with(event):
            return


def utc(moment: datetime) -> str:
    """As in the records of the API: RFC 3339 with a ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def encode(event: Event, boottime_s: float = math.inf) -> bytes:
    """One event as SSE bytes (id, event, data), as it may be read at ``boottime_s``."""
    data = {"at": utc(event.at), "verification_id": event.verification_id, **event.data}
    if "approved" in data:
        data["approved"] &= event.approved_until_s is not None and boottime_s < event.approved_until_s
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
