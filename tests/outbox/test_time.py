"""Time: boards without a battery, clocks that jump, devices that lay in a drawer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.outbox import Store
from edge_agent.outbox.ages import MAX_BOOTS, RunningClock, age_s
from edge_agent.outbox.clock import BootInstant, SystemClock, instant
from edge_agent.outbox.records import Limits
from edge_agent.types import State
from tests.outbox.fakes import NOON, FakeClock, capture, crash, lease, open_store, pending, reopen, search

pytestmark = pytest.mark.arm

HOUR, DAY = 3600.0, 86_400.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def state_after_tick(store: Store, key: str) -> State:
    store.tick()
    return store.get(key).state


def test_running_time_expires_a_capture(store: Store, clock: FakeClock) -> None:
    record = pending(store)
    clock.advance(3 * DAY - 1)
    assert state_after_tick(store, record.id) is State.PENDING
    clock.advance(2)
    assert state_after_tick(store, record.id) is State.EXPIRED
    assert store.queue().payload_items == 0


@pytest.mark.parametrize("jump", [timedelta(days=365), timedelta(days=-365)])
def test_a_wall_clock_that_jumps_a_year_expires_and_reorders_nothing(
    store: Store, clock: FakeClock, jump: timedelta
) -> None:
    first = pending(store, "a")
    clock.wall_now += jump
    second = pending(store, "b")
    assert state_after_tick(store, first.id) is State.PENDING
    assert store.get(first.id).age_s == 0
    assert [record.id for record in store.list()] == [second.id, first.id]
    assert lease(store).record.id == first.id


@pytest.mark.parametrize(
    ("created_synced", "now_synced", "state"),
    [
        (True, True, State.EXPIRED),
        (False, True, State.PENDING),
        (True, False, State.PENDING),
        (False, False, State.PENDING),
    ],
)
def test_a_month_in_a_drawer_counts_only_between_two_trusted_clocks(
    state_dir: Path, clock: FakeClock, created_synced: bool, now_synced: bool, state: State
) -> None:
    clock.sync = created_synced
    store = open_store(state_dir, clock)
    record = pending(store)
    clock.reboot(off_s=30 * DAY, sync=now_synced)
    store = reopen(store, state_dir, clock)
    assert state_after_tick(store, record.id) is state
    assert store.get(record.id).age_s == pytest.approx(30 * DAY if state is State.EXPIRED else 5, abs=10)
    store.close()


def test_a_board_that_boots_in_1970_every_day_still_expires_its_captures_at_last(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    clock.sync = False
    record = pending(store)
    for day in range(1, 6):
        clock.reboot(wall=EPOCH, sync=False)
        store = reopen(store, state_dir, clock)
        assert store.get(record.id).state is State.PENDING, day
        clock.advance(16 * 3600)
        store.tick()
    assert store.get(record.id).state is State.EXPIRED
    store.close()


def test_up_to_the_last_tick_no_running_time_is_lost_by_a_power_cut(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    record = pending(store)
    clock.advance(1000)
    store.tick()
    clock.advance(59)
    clock.reboot(wall=EPOCH, sync=False)
    store = reopen(store, state_dir, clock)
    assert store.get(record.id).age_s == pytest.approx(1005)
    store.close()


def test_nothing_is_ever_from_the_future_even_when_no_tick_came(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    clock.advance(50_000)
    record = capture(store)  # no tick since the start: the audit record carries the time
    clock.reboot()
    store = reopen(store, state_dir, clock)
    younger = search(store)
    assert younger.created_running_s > record.created_running_s
    assert 0 <= store.get(record.id).age_s < 60
    store.close()


def test_back_off_goes_on_over_a_reboot(store: Store, state_dir: Path, clock: FakeClock) -> None:
    record = pending(store)
    store.release(record.id, lease(store).lease, next_attempt_in_s=600, code="network")
    clock.reboot(off_s=10)
    store = reopen(store, state_dir, clock)
    assert store.lease_next(record.environment, lease_s=60) is None
    clock.advance(600)
    assert lease(store).record.id == record.id
    store.close()


def test_a_leased_capture_does_not_expire_under_the_forwarder(store: Store, clock: FakeClock) -> None:
    record = pending(store)
    clock.advance(3 * DAY - 1)
    leased = lease(store)
    clock.advance(10)
    assert state_after_tick(store, record.id) is State.PENDING
    store.release(record.id, leased.lease, next_attempt_in_s=0, code="network")
    assert state_after_tick(store, record.id) is State.EXPIRED


def test_a_parked_capture_loses_its_picture_with_age_and_stays_failed(store: Store, clock: FakeClock) -> None:
    record = pending(store)
    store.park(record.id, lease(store).lease, code="unknown_user")
    clock.advance(3 * DAY + 1)
    store.tick()
    after = store.get(record.id)
    assert (after.state, after.parked, after.error_code, after.image_bytes) == (State.FAILED, False, "unknown_user", 0)


def test_a_row_that_was_made_younger_from_outside_keeps_no_other_capture_from_expiring(
    store: Store, clock: FakeClock
) -> None:
    forged, record = pending(store, "mallory"), pending(store, "alice")
    store._database.execute("UPDATE verifications SET created_running_s = 1e12 WHERE id = :id", id=forged.id)
    clock.advance(3 * DAY + 1)
    assert state_after_tick(store, record.id) is State.EXPIRED
    assert store.tampered == {forged.id}


def test_the_file_shrinks_after_a_backlog_drains(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, limits=Limits(max_age_s=60)) as store:
        for user in "abcdefgh":
            pending(store, user, jpeg=bytes(200_000))
        store.tick()
        store._wipe()
        full = (state_dir / "outbox.db").stat().st_size
        clock.advance(61)
        store.tick()
        store.tick()
        store._wipe()
        assert store.counts()[State.EXPIRED] == 8
        assert (state_dir / "outbox.db").stat().st_size < full / 5


@pytest.mark.parametrize(
    ("seen", "now", "running_s"),
    [
        ([], BootInstant("a", 30), 30),
        ([RunningClock("a", 30, 0)], BootInstant("a", 90), 90),
        ([RunningClock("a", 30, 0)], BootInstant("b", 5), 35),
        ([RunningClock("a", 30, 0), RunningClock("a", 50, 0)], BootInstant("b", 5), 55),
        ([RunningClock("a", 30, 0), RunningClock("b", 10, 30)], BootInstant("c", 5), 45),
        ([RunningClock("a", 30, 100)], BootInstant("a", 90), 190),
    ],
)
def test_the_running_clock_sums_boots(seen: list[RunningClock], now: BootInstant, running_s: float) -> None:
    resumed = RunningClock.resume(seen, now)
    clock = FakeClock(boot=now.boot_id, boottime=now.boottime_s)
    assert resumed.moment(clock).running_s == running_s


def test_the_clocks_of_this_machine_tell_plausible_times() -> None:
    clock = SystemClock()
    first, second = instant(clock), instant(clock)
    elapsed = second.seconds_since(first)
    assert elapsed is not None and 0 <= elapsed < 5
    assert clock.wall().tzinfo is UTC
    assert clock.synchronised() in {True, False}
    assert len(clock.boot_id()) == 36
    assert clock.boottime_s() - clock.monotonic_s() + 1 >= 0


@pytest.mark.parametrize(
    ("state", "told", "flag", "synchronised"),
    [
        (0, False, False, True),
        (5, True, True, False),
        (None, True, False, True),
        (None, False, True, False),
        (None, None, True, True),
        (None, None, False, False),
    ],
)
def test_the_kernel_says_whether_the_wall_clock_is_right_else_systemd_else_the_flag(
    state: int | None,
    told: bool | None,
    flag: bool,
    synchronised: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "synchronized"
    if flag:
        file.touch()
    monkeypatch.setattr("edge_agent.outbox.clock._adjtimex", lambda: state)
    monkeypatch.setattr("edge_agent.outbox.clock.TIMESYNC_FLAG", file)
    assert SystemClock(lambda: told).synchronised() is synchronised
    assert SystemClock.kernel_tells() is (state is not None)


def test_within_one_boot_the_wall_clock_is_not_asked() -> None:
    clock = FakeClock(boot="a")
    running = RunningClock.resume([], instant(clock)).trusting(clock)
    clock.wall_now += timedelta(days=365)
    clock.boottime += 60
    assert age_s(running.trusting(clock).moment(clock), running_s=100, boot_id="a") == 60


def test_what_a_running_clock_knows_of_earlier_boots_is_kept() -> None:
    clock = FakeClock()
    first = RunningClock.resume([], instant(clock)).trusting(clock)
    clock.reboot(off_s=DAY)
    second = RunningClock.resume([first], instant(clock)).trusting(clock)
    assert RunningClock.from_json(second.to_json()) == second
    assert second.moment(clock).dark_since_s("boot-1") == pytest.approx(DAY - 5)
    assert second.moment(clock).dark_since_s("boot-2") == 0


def test_what_was_made_before_the_boots_that_are_told_apart_counts_as_if_made_in_the_oldest() -> None:
    clock = FakeClock()
    running = RunningClock.resume([], instant(clock)).trusting(clock)
    for _ in range(MAX_BOOTS + 10):
        clock.reboot(off_s=HOUR)
        running = RunningClock.resume([running], instant(clock)).trusting(clock)
    now = running.moment(clock)
    assert len(running.boots) == MAX_BOOTS
    assert now.dark_since_s("boot-1") == now.dark_since_s(running.boots[0].boot_id) > 60 * (HOUR - 5)
    assert len(running.to_json()) < 8000


def test_a_tick_before_any_capture_is_quiet(store: Store, state_dir: Path, clock: FakeClock) -> None:
    store.tick()
    clock.reboot(wall=NOON)
    crash(store)
    open_store(state_dir, clock).close()
