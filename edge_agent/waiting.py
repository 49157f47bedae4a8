"""Waiting for a verification to get somewhere: any number of callers, each with its own patience.

A waiter wakes only for states, and those who wake together share one read of the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge_agent.events import EventBus
from edge_agent.outbox.records import VerificationRecord

STATES = frozenset({"state"})


class Waiting:
    """Used from the event loop's thread only."""

    def __init__(self, bus: EventBus, read: Callable[[str], Awaitable[VerificationRecord]]) -> None:
        """``read`` gives the record of an id and raises what the store raises."""
        self._bus = bus
        self._read = read
        self._reads: dict[tuple[str, int], asyncio.Future[VerificationRecord]] = {}

    async def until(
        self, verification_id: str, seconds: float, done: Callable[[VerificationRecord], bool]
    ) -> VerificationRecord:
        """The record once ``done`` says so of it; what it is after ``seconds``, or when the bus closes."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + seconds
        with self._bus.subscribe(verification_id, kinds=STATES) as reader:
            while True:
                record = await self._shared_read(verification_id)
                left_s = deadline_s - loop.time()
                if done(record) or left_s <= 0:
                    return record
                try:
                    await reader.next(left_s)
                except StopAsyncIteration:
                    return await self._shared_read(verification_id)

    async def _shared_read(self, verification_id: str) -> VerificationRecord:
        """A read that began after the last event: what is under way already, or a new one."""
        key = (verification_id, self._bus.last_seq)
        reading = self._reads.get(key)
        if reading is None:
            reading = self._reads[key] = asyncio.ensure_future(self._read(verification_id))
            reading.add_done_callback(lambda read: self._forget(key, read))
        return await asyncio.shield(reading)  # one caller that hangs up does not take it from the others

    def _forget(self, key: tuple[str, int], read: asyncio.Future[VerificationRecord]) -> None:
        del self._reads[key]
        if not read.cancelled():
            read.exception()  # every waiter may have gone: an error nobody is left to hear is no news
