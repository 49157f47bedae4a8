"""The event bus: numbered, resumable, and never held up by a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent.events import EVENT_ID, KEPT, READER_BUFFER, Event, EventBus, Subscription, encode, stream

pytestmark = pytest.mark.arm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = "0123abcd"


def publish(bus: EventBus, count: int, verification_id: str | None = "a", kind: str = "hint", **data: Any) -> None:
    for i in range(count):
        bus.publish(kind, {"n": i, **data}, at=NOW, verification_id=verification_id)


def state(bus: EventBus, name: str, *, final: bool, verification_id: str = "a") -> None:
    publish(bus, 1, verification_id, "state", state=name, final=final)


async def drain(reader: Subscription) -> list[Event]:
    events = []
    while (event := await reader.next(0.0)) is not None:
        events.append(event)
    return events


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scenario, 10.0))


def test_events_are_numbered_in_order() -> None:
    async def scenario() -> None:
        bus = EventBus(LIFE)
        with bus.subscribe() as reader:
            publish(bus, 3)
            assert [event.id for event in await drain(reader)] == [f"{LIFE}-1", f"{LIFE}-2", f"{LIFE}-3"]

    run(scenario())


@pytest.mark.parametrize(
    ("verification_id", "kinds", "expected"),
    [
        (None, None, [("a", "hint"), ("b", "hint"), (None, "network"), ("b", "state")]),
        ("b", None, [("b", "hint"), ("b", "state")]),
        ("b", frozenset({"state"}), [("b", "state")]),
    ],
)
def test_a_reader_hears_what_it_asked_for_and_nothing_else(
    verification_id: str | None, kinds: frozenset[str] | None, expected: list[tuple[str | None, str]]
) -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe(verification_id, kinds=kinds) as reader:
            publish(bus, 1, "a")
            publish(bus, 1, "b")
            publish(bus, 1, None, "network")
            publish(bus, 1, "b", "state", final=False)
            assert [(event.verification_id, event.kind) for event in await drain(reader)] == expected

    run(scenario())


OF_NOW = "0123abcd-"
REMEMBERED = list(range(1, KEPT + 1))


@pytest.mark.parametrize(
    ("published", "after", "gap", "expected"),
    [
        (4, None, None, []),
        (4, "0", None, [1, 2, 3, 4]),
        (4, OF_NOW + "0", None, [1, 2, 3, 4]),
        (4, OF_NOW + "2", None, [3, 4]),
        (4, OF_NOW + "4", None, []),
        (4, OF_NOW + "5", "unknown_id", [1, 2, 3, 4]),
        (4, "89abcdef-2", "unknown_id", [1, 2, 3, 4]),
        (4, "2", "unknown_id", [1, 2, 3, 4]),  # as old releases counted
        (0, "89abcdef-2", "unknown_id", []),
        (KEPT + 10, OF_NOW + "10", None, [seq + 10 for seq in REMEMBERED]),
        (KEPT + 10, OF_NOW + "9", "forgotten", [seq + 10 for seq in REMEMBERED]),
        (KEPT + 10, "0", "forgotten", [seq + 10 for seq in REMEMBERED]),
    ],
)
def test_a_reader_that_comes_back_gets_what_it_missed_or_is_told_that_something_is_missing(
    published: int, after: str | None, gap: str | None, expected: list[int]
) -> None:
    async def scenario() -> None:
        bus = EventBus(LIFE)
        publish(bus, published)
        assert after is None or EVENT_ID.fullmatch(after)
        with bus.subscribe(after=after) as reader:
            events = await drain(reader)
        if gap is not None:
            first = events.pop(0)
            assert (first.kind, first.data) == ("dropped", {"count": None, "reason": gap})
            with bus.subscribe(after=first.id) as reader:  # whoever was cut off right after it misses nothing
                assert await drain(reader) == events
        assert [event.seq for event in events] == expected

    run(scenario())


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    async def scenario() -> None:
        bus = EventBus(LIFE)
        publish(bus, READER_BUFFER + 5)
        with bus.subscribe(after="0") as reader:
            publish(bus, READER_BUFFER + 10)
            events = await drain(reader)
            assert [event.seq for event in events[: READER_BUFFER + 5]] == list(range(1, READER_BUFFER + 6))
            lost = events[READER_BUFFER + 5]
            assert (lost.kind, lost.data) == ("dropped", {"count": 10, "reason": "slow_reader"})
            assert [event.seq for event in events[READER_BUFFER + 6 :]] == [
                READER_BUFFER + 15 + n for n in range(1, READER_BUFFER + 1)
            ]
            assert (bus.dropped, bus.readers) == (10, 1)
        with bus.subscribe(after=lost.id) as reader:
            assert (await drain(reader))[0].seq == READER_BUFFER + 16

    run(scenario())


def test_what_is_now_comes_after_the_word_that_something_is_missing_and_before_the_rest() -> None:
    async def scenario() -> None:
        bus = EventBus(LIFE)
        publish(bus, 2)
        with bus.subscribe("a", after="89abcdef-7") as reader:
            told = [reader.tells_state]
            reader.begin_with([reader.note("state", {"final": False})])
            told.append(reader.tells_state)
            publish(bus, 1)
            events = await drain(reader)
        assert told == [False, True]
        assert [(event.kind, event.seq) for event in events] == [
            ("dropped", 0), ("state", 0), ("hint", 1), ("hint", 2), ("hint", 3),
        ]  # fmt: skip

    run(scenario())


async def chunks_of(bus: EventBus, reader: Subscription, steps: list[Any]) -> list[bytes]:
    """What a stream without patience sends; after each chunk the next of ``steps`` happens."""
    chunks = []
    left = iter(steps)
    async for chunk in stream(reader, heartbeat_s=0.0):
        chunks.append(chunk)
        next(left, bus.close)()
    return chunks


def test_a_stream_sends_heartbeats_and_ends_with_the_bus() -> None:
    async def scenario() -> list[bytes]:
        bus = EventBus(LIFE)
        with bus.subscribe() as reader:
            return await chunks_of(bus, reader, [lambda: None, lambda: state(bus, "verified", final=True)])

    opened, heartbeat, event = run(scenario())
    assert opened.startswith(b":")
    assert opened.endswith(b"retry: 1000\n\n")
    assert heartbeat == b": heartbeat\n\n"
    assert event.startswith(b"id: 0123abcd-1\nevent: state\ndata: {")


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([("captured", False), ("verified", True)], 2),
        ([("failed", True), ("pending", False), ("verified", True)], 3),  # an admin reopened it
        ([("verified", True), ("of another", True)], 1),
    ],
)
def test_the_stream_of_a_verification_ends_after_its_final_state(states: list[tuple[str, bool]], told: int) -> None:
    async def scenario() -> list[bytes]:
        bus = EventBus(LIFE)
        for name, final in states:
            state(bus, name, final=final, verification_id="b" if name == "of another" else "a")
        with bus.subscribe("a", after="0") as reader:
            return [chunk async for chunk in stream(reader, heartbeat_s=60.0)][1:]

    chunks = run(scenario())
    assert len(chunks) == told
    assert b'"final":true' in chunks[-1]


def test_a_waiting_reader_is_woken_by_an_event() -> None:
    async def scenario() -> Event | None:
        bus = EventBus()
        with bus.subscribe() as reader:
            waiting = asyncio.create_task(reader.next(30.0))
            await asyncio.sleep(0)
            publish(bus, 1)
            return await waiting

    event = run(scenario())
    assert event is not None
    assert event.seq == 1


def test_a_reader_that_left_is_forgotten() -> None:
    async def scenario() -> None:
        bus = EventBus()
        with bus.subscribe():
            pass
        publish(bus, 1)
        assert not bus._readers

    run(scenario())


def test_two_lives_are_never_taken_for_each_other() -> None:
    assert len({EventBus().life for _ in range(50)}) == 50
    assert all(EVENT_ID.fullmatch(f"{EventBus().life}-1") for _ in range(50))


def test_an_event_is_one_line_of_json() -> None:
    text = encode(Event(LIFE, 7, NOW, "hint", "a", {"text": "line\nbreak"})).decode()
    assert '"at":"2026-01-01T00:00:00Z"' in text  # as the times of the records
    assert text.count("\n") == 4
    assert '"text":"line\\nbreak"' in text


def test_a_reader_who_is_shown_nothing_of_what_happens_hears_that_the_stream_lives() -> None:
    """Others are filmed all the time, which is none of this reader's business; silence would look like a dead line."""

    async def hide(event: Event) -> Event | None:
        return None

    async def scenario() -> None:
        bus = EventBus(LIFE)

        async def keep_busy() -> None:
            while True:
                publish(bus, 1)
                await asyncio.sleep(0.001)

        with bus.subscribe() as reader:
            busy = asyncio.create_task(keep_busy())
            chunks = stream(reader, heartbeat_s=0.03, see=hide)
            async with asyncio.timeout(2.0):
                told = [await anext(chunks) for _ in range(4)]
            busy.cancel()
        assert told[1:] == [b": heartbeat\n\n"] * 3

    run(scenario())
