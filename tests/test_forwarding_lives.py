"""The forwarder over the lives that clocks have: what is sent, under which token, and what is approved in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent.outbox.clock import instant
from edge_agent.outbox.records import VerificationRecord, approved
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.bench import Bench, play, sha256_of
from tests.outbox.fakes import NOON, FakeClock, crash

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY, YEAR = 86_400.0, timedelta(days=365)
VALID_S = 120.0
USERS = ("alice", "carol", "dave")


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        for user in USERS:
            server.enrol(user, b"source picture")
        yield server


async def verified(bench: Bench, user: str) -> VerificationRecord:
    """A live capture of ``user``, forwarded at once."""
    record = await bench.captured(user)
    await bench.forwarder.submit(record.id)
    return await bench.reaches(record, State.VERIFIED)


def token_calls(sandbox: SandboxServer) -> list[str]:
    return [seen.step for seen in sandbox.requests if seen.step in {"token", "refresh"}]


def is_approved(bench: Bench, record: VerificationRecord) -> bool:
    return approved(record, instant(bench.clock), VALID_S)


async def power_cut(bench: Bench, **options: Any) -> None:
    """Nothing more of this process reaches the disk, then the next boot begins."""
    await bench.keeper.run(crash)
    bench.clock.reboot(**options)


def lives(folder: Path, sandbox: SandboxServer, clock: FakeClock, *boots: Callable[[Bench], Awaitable[None]]) -> None:
    """One process per boot, on the same files; all but the last end with a power cut."""
    for boot in boots:
        play(folder, sandbox, boot, clock=clock)


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("wall", [EPOCH, NOON, NOON + YEAR, NOON - YEAR])
def test_a_wrong_clock_changes_no_token_and_no_answer(
    tmp_path: Path, sandbox: SandboxServer, wall: datetime, sync: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.clock.wall_now, bench.clock.sync = wall, sync
        bench.start()
        first = await verified(bench, "alice")
        bench.clock.wall_now, bench.clock.sync = NOON, True  # it synchronises, or jumps
        second = await verified(bench, "carol")
        bench.clock.wall_now += YEAR
        third = await verified(bench, "dave")
        assert [is_approved(bench, record) for record in (first, second, third)] == [True] * 3
        assert token_calls(sandbox) == ["token"]

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("asleep", [False, True])
def test_a_token_ends_by_the_time_since_its_receipt_suspend_included(
    tmp_path: Path, sandbox: SandboxServer, asleep: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.start()
        await verified(bench, "alice")
        (bench.clock.suspend if asleep else bench.clock.advance)(1.7 * DAY)  # of the 2 days that it lives
        await verified(bench, "carol")
        assert token_calls(sandbox) == ["token"]
        (bench.clock.suspend if asleep else bench.clock.advance)(0.2 * DAY)
        await verified(bench, "dave")
        assert token_calls(sandbox) == ["token", "refresh"]

    play(tmp_path, sandbox, scenario)


def test_a_token_that_the_service_ended_while_the_device_slept_is_refreshed_on_its_refusal(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.start()
        await verified(bench, "alice")
        sandbox.advance(3 * DAY)  # by the terminal's clock no time went by
        await verified(bench, "carol")
        assert token_calls(sandbox)[:2] == ["token", "refresh"]

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("sync", [True, False])
def test_a_reboot_between_upload_and_match_uploads_the_capture_again_and_approves_nothing(
    tmp_path: Path, sandbox: SandboxServer, sync: bool
) -> None:
    clock = FakeClock()
    records: list[VerificationRecord] = []

    async def cut_while_matching(bench: Bench) -> None:
        sandbox.inject(Fault(step="match", kind="latency", latency_s=0.8, times=1))
        records.append(await bench.captured("alice"))
        await bench.forwarder.submit(records[0].id)
        await bench.until(lambda: "put" in bench.steps())
        await power_cut(bench, off_s=3600, wall=None if sync else EPOCH, sync=sync)

    async def next_boot(bench: Bench) -> None:
        assert await bench.state(records[0]) is State.PENDING
        later = await bench.pending("alice")
        bench.start()
        done = await bench.reaches(records[0], State.VERIFIED)
        assert done.late and not is_approved(bench, done)
        assert bench.judged[-1] == sha256_of(done)
        await bench.quiet()
        bench.advance(120.0)
        await bench.reaches(later, State.VERIFIED)
        assert bench.judged[-1] == sha256_of(later)

    lives(tmp_path, sandbox, clock, cut_while_matching, next_boot)


def test_a_backlog_of_boards_without_a_clock_is_sent_in_the_order_of_its_making(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    clock = FakeClock(wall_now=EPOCH, sync=False)
    records: list[VerificationRecord] = []

    def boot(wall: datetime, *, sync: bool) -> Callable[[Bench], Awaitable[None]]:
        async def offline(bench: Bench) -> None:
            records.append(await bench.pending("alice"))
            clock.advance(600)
            await power_cut(bench, wall=wall, sync=sync)

        return offline

    async def online(bench: Bench) -> None:
        bench.start()
        for record in records:
            await bench.reaches(record, State.VERIFIED)
        assert bench.judged == [sha256_of(record) for record in records]
        assert not [r for r in records if is_approved(bench, await bench.get(r))]

    walls = [NOON + YEAR, EPOCH, NOON - YEAR, EPOCH]
    lives(tmp_path, sandbox, clock, *[boot(wall, sync=wall > NOON) for wall in walls], online)


def test_back_off_and_retry_go_on_after_a_jump_and_a_suspend(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="status", status=503, times=3))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        for number, step in enumerate((bench.clock.advance, bench.clock.suspend, bench.clock.advance), 1):
            await bench.until(lambda n=number: bench.steps().count("match") == n)  # type: ignore[misc]  # bound at once
            await bench.until(lambda: bench.forwarder.status.active == 0)
            bench.clock.wall_now -= YEAR
            await bench.quiet()
            assert bench.steps().count("match") == number  # the wall clock ends no wait, and makes none longer
            step(60.0)
            bench.forwarder.wake()
        await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_a_lease_that_ended_in_suspend_brings_no_verdict_and_the_capture_goes_again(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.8, times=1))

    async def scenario(bench: Bench) -> None:
        record = await bench.captured("alice")
        await bench.forwarder.submit(record.id)
        await bench.until(lambda: "put" in bench.steps())
        bench.clock.suspend(DAY)
        await bench.until(lambda: bench.forwarder.status.active == 0)
        assert await bench.state(record) is not State.VERIFIED
        bench.start()
        done = await bench.reaches(record, State.VERIFIED)
        assert done.late and done.attempts == 2 and not is_approved(bench, done)

    play(tmp_path, sandbox, scenario)
