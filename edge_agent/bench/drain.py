"""Draining a backlog with the forwarder, beside a bare loop that makes the same three calls and two commits."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bench.bare import BareLoop
from edge_agent.bench.queue import BenchStore, user
from edge_agent.bench.service import Service
from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.wire import new_image_name
from edge_agent.errors import EnvironmentFault
from edge_agent.forwarder import CONTENT_TYPE, Forwarder
from edge_agent.outbox import Store
from edge_agent.outbox.records import Environment, VerificationRecord
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import State

GOAL = 0.6
"""The forwarder is to reach this share of the bare loop's speed."""
ROW_BYTES = 1000
_MOST_TURNS = 5
_FEWEST_A_TURN = 30
_PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Drain:
    """Captures per second, medians over turns of the same number of captures each."""

    rows: int
    users: int
    turns: int
    forwarder_per_s: float
    bare_per_s: float
    """One capture after the other."""
    bare_together_per_s: float
    """The bare loop with as many users at once as the forwarder serves."""

    @property
    def ratio(self) -> float:
        """The forwarder's speed to the bare loop's."""
        return self.forwarder_per_s / self.bare_per_s

    @property
    def ratio_together(self) -> float:
        return self.forwarder_per_s / self.bare_together_per_s


def measure(
    folder: Path, key: bytes, service: Service, rows: int, users: int, tell: Callable[[str], None] = lambda _: None
) -> Drain:
    """Drain ``rows`` captures in turns: the forwarder, the bare loop, the bare loop with several at once."""
    settings = service.settings(folder)
    turns = min(_MOST_TURNS, max(1, rows // _FEWEST_A_TURN))
    share = rows // turns
    names = [user(number) for number in range(users)]
    asyncio.run(enrol(settings, names))
    speeds: list[tuple[float, float, float]] = []
    for turn in range(turns):
        tell(f"draining {share} captures, turn {turn + 1} of {turns}")
        with BareLoop(folder / f"bare-{turn}.db", settings) as bare:
            ours = asyncio.run(_drain(folder / "drain", key, settings, share, users))
            bare.fill(share, names, ROW_BYTES)
            alone = asyncio.run(bare.drain(at_once=1))
            bare.fill(share, names, ROW_BYTES)
            together = asyncio.run(bare.drain(at_once=3))
        speeds.append((share / ours, share / alone, share / together))
    medians = [statistics.median(column) for column in zip(*speeds, strict=True)]
    return Drain(share * turns, users, turns, *medians)


async def enrol(settings: CypherFaceSection, names: list[str]) -> None:
    """Every user needs a source picture before anything can be matched with it."""
    async with CypherFaceClient(settings) as client:
        for name in names:
            target = await client.generate_url(name, new_image_name(), CONTENT_TYPE, "upload")
            await client.put(target, os.urandom(ROW_BYTES), CONTENT_TYPE)


async def _drain(state_dir: Path, key: bytes, settings: CypherFaceSection, rows: int, users: int) -> float:
    """Seconds that the forwarder takes for ``rows`` captures; filling the queue is not counted."""
    verdicts = _Verdicts(rows)

    def open_store(*, adopt: bool) -> Store:
        del adopt
        return BenchStore.without_caps(state_dir, key, verdicts.note)

    keeper = Storekeeper(open_store)
    await keeper.bring_up()
    try:
        environment = Environment(settings.base_url, settings.merchant_id)
        await keeper.run(_fill, rows, users, environment)
        async with CypherFaceClient(settings) as client:
            seconds = await _forward_all(Forwarder(keeper, client, settings), verdicts)
        await keeper.run(_check)
        return seconds
    finally:
        await keeper.close()


def _fill(store: Store, /, rows: int, users: int, environment: Environment) -> None:
    if isinstance(store, BenchStore):
        store.fill(rows, users, ROW_BYTES, environment)


class _Verdicts:
    """Hears of every change on the store's thread, and tells the loop when the last capture has its verdict."""

    def __init__(self, wanted: int) -> None:
        self.all = asyncio.Event()
        self._missing = wanted
        self._loop = asyncio.get_running_loop()

    def note(self, record: VerificationRecord) -> None:
        self._missing -= record.state is State.VERIFIED
        if not self._missing:
            self._loop.call_soon_threadsafe(self.all.set)


async def _forward_all(forwarder: Forwarder, verdicts: _Verdicts) -> float:
    began_s = time.perf_counter()
    task = asyncio.create_task(forwarder.run())
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await verdicts.all.wait()
        return time.perf_counter() - began_s
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _check(store: Store) -> None:
    """A capture that ended otherwise than with its verdict was not the work that is measured."""
    others = {state.value: number for state, number in store.counts().items() if number and state is not State.VERIFIED}
    if others:
        raise EnvironmentFault(f"cannot measure the drain: not every capture was verified: {others}")
