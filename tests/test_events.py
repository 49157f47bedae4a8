"""The event bus: numbered, resumable, and never held up by a slow reader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from edge_agent.events import READER_BUFFER, Event, EventBus, Subscription, encode, stream

pytestmark = pytest.mark.arm

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def publish(bus: EventBus, count: int, verification_id: str | None = "a") -> None:
    for i in range(count):
        bus.publish("state", {"n": i}, at=NOW, verification_id=verification_id)


async def drain(reader: Subscription) -> list[Event]:
    events = []
    while (event := await reader.next(0.0)) is not None:
        events.append(event)
    return events


def test_events_are_numbered_in_order() -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe() as reader:
            publish(bus, 3)
            assert [event.seq for event in await drain(reader)] == [1, 2, 3]

    asyncio.run(scenario())


def test_a_reader_of_one_verification_hears_nothing_else() -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe("b") as reader:
            publish(bus, 2, "a")
            publish(bus, 1, "b")
            publish(bus, 1, None)
            assert [event.verification_id for event in await drain(reader)] == ["b"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2, 3, 4]), (2, [3, 4]), (99, [])])
def test_a_reader_that_comes_back_gets_what_it_missed(after: int, expected: list[int]) -> None:
    async def scenario() -> None:
        bus = EventBus()
        publish(bus, 4)
        with bus.subscribe(after=after) as reader:
            assert [event.seq for event in await drain(reader)] == expected

    asyncio.run(scenario())


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe() as reader:
            publish(bus, READER_BUFFER + 10)
            events = await drain(reader)
        assert events[0].kind == "dropped"
        assert events[0].data == {"count": 10}
        assert [event.seq for event in events[1:]] == list(range(11, READER_BUFFER + 11))

    asyncio.run(scenario())


def test_a_stream_sends_heartbeats_and_ends_with_the_bus() -> None:
    async def scenario() -> list[bytes]:
        bus = EventBus()
        chunks = []
        with bus.subscribe() as reader:
            async for chunk in stream(reader, heartbeat_s=0.0):
                chunks.append(chunk)
                if len(chunks) == 2:
                    publish(bus, 1)
                if len(chunks) == 3:
                    bus.close()
        return chunks

    opened, heartbeat, event = asyncio.run(scenario())
    assert opened.startswith(b":")
    assert heartbeat == b": heartbeat\n\n"
    assert event.startswith(b"id: 1\nevent: state\ndata: {")


def test_a_waiting_reader_is_woken_by_an_event() -> None:
    async def scenario() -> Event | None:
        bus = EventBus()
        with bus.subscribe() as reader:
            waiting = asyncio.create_task(reader.next(30.0))
            await asyncio.sleep(0)
            publish(bus, 1)
            return await waiting

    event = asyncio.run(scenario())
    assert event is not None
    assert event.seq == 1


def test_a_reader_that_left_is_forgotten() -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe():
            pass
        publish(bus, 1)
        assert not bus._readers

    asyncio.run(scenario())


def test_an_event_is_one_line_of_json() -> None:
    text = encode(Event(7, NOW, "hint", "a", {"text": "line\nbreak"})).decode()
    assert text.count("\n") == 4
    assert '"text":"line\\nbreak"' in text
