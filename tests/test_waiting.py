"""Waiting for a verification: woken by states, with few reads of the store, and gone at once when cancelled."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from edge_agent.errors import InputError
from edge_agent.events import EventBus
from edge_agent.outbox.records import VerificationRecord
from edge_agent.waiting import Waiting

pytestmark = pytest.mark.arm

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Desk:
    """One verification that changes under the eyes of those who wait; every read takes a turn of the loop."""

    def __post_init__(self) -> None:
        self.bus = EventBus()
        self.state = "searching"
        self.reads = 0
        self.waiting = Waiting(self.bus, cast("Any", self.read))

    async def read(self, id_: str) -> str:
        if id_ == "nope":
            raise InputError("cannot find nope", code="not_found")
        self.reads += 1
        state = self.state
        await asyncio.sleep(0.001)
        return state

    def change(self, state: str) -> None:
        self.state = state
        self.bus.publish("state", {"state": state, "final": False}, at=NOW, verification_id="a")

    async def wait(self, seconds: float = 30.0) -> str:
        def done(record: VerificationRecord) -> bool:
            return bool(cast("Any", record) == "verified")

        return cast("str", await self.waiting.until("a", seconds, done))

    async def rest(self) -> None:
        await asyncio.sleep(0.02)


def test_two_hundred_waiters_read_the_store_once_a_change_and_not_for_hints() -> None:
    async def scenario() -> None:
        desk = Desk()
        waiters = [asyncio.create_task(desk.wait()) for _ in range(200)]
        await desk.rest()
        for _ in range(50):
            desk.bus.publish("hint", {}, at=NOW, verification_id="a")
        await desk.rest()
        assert desk.reads == 1
        desk.change("captured")
        await desk.rest()
        desk.change("verified")
        assert set(await asyncio.gather(*waiters)) == {"verified"}
        assert desk.reads == 3
        assert not desk.bus._readers
        assert not desk.waiting._reads

    asyncio.run(scenario())


def test_a_change_during_the_read_is_not_missed() -> None:
    async def scenario() -> None:
        desk = Desk()
        waiter = asyncio.create_task(desk.wait())
        await asyncio.sleep(0)  # the read has begun, with the state of before
        await asyncio.sleep(0)
        desk.change("verified")
        late = asyncio.create_task(desk.wait())
        assert set(await asyncio.wait_for(asyncio.gather(waiter, late), 5.0)) == {"verified"}

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", ["time", "close"])
def test_it_ends_with_what_there_is_when_the_time_or_the_bus_is_over(ending: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        waiter = asyncio.create_task(desk.wait(0.05 if ending == "time" else 30.0))
        await desk.rest()
        if ending == "close":
            desk.bus.close()
        assert await asyncio.wait_for(waiter, 5.0) == "searching"

    asyncio.run(scenario())


def test_who_is_cancelled_leaves_nothing_and_takes_nothing_from_the_others() -> None:
    async def scenario() -> None:
        desk = Desk()
        first, second = (asyncio.create_task(desk.wait()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        assert len(desk.bus._readers) == 1
        desk.change("verified")
        assert await second == "verified"

    asyncio.run(scenario())


def test_what_the_store_raises_reaches_the_waiter() -> None:
    async def scenario() -> None:
        with pytest.raises(InputError, match="cannot find nope"):
            await Desk().waiting.until("nope", 1.0, lambda _: True)

    asyncio.run(scenario())
