"""Whole lives of a device: what happens to captures while the clocks are wrong, jump, stand still or are never right.

``Device`` knows the true time, which the program never does. After every step it checks what must hold in any life:
no age above the true one, nothing expired before its time or kept beyond its running time, order as created, an approval
only within its true time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from edge_agent.errors import InputError
from edge_agent.outbox.clock import instant
from edge_agent.outbox.records import Limits, NewVerification, approved
from edge_agent.types import State
from tests.outbox.fakes import (
    ENVIRONMENT,
    NOON,
    FakeClock,
    capture,
    crash,
    finish,
    lease,
    open_store,
    pending,
    picture,
    request,
    upload,
)

pytestmark = pytest.mark.arm

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
MONTH, YEAR = 30 * DAY, 365 * DAY
VALID_S = 120.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOST_PER_CUT_S = MINUTE
"""Uptime that a power cut may cost."""


@dataclass
class Made:
    """A capture, and what is true of it."""

    id: str
    made_at_s: float
    uptime_s: float
    """The device's true uptime, all boots, when it was made."""
    cuts: int
    deadline_s: float
    verdict_at_s: float | None = None
    boot: str = ""


class Device:
    """A terminal with a store, in a world where the true time is ``now_s``."""

    def __init__(self, folder: Path, *, wall: datetime = NOON, sync: bool = True, max_age_s: float = 3 * DAY) -> None:
        self.folder = folder
        self.limits = Limits(max_age_s=max_age_s)
        self.clock = FakeClock(wall_now=wall, sync=sync)
        self.now_s = self.uptime_s = 0.0
        self.cuts = 0
        self.made: list[Made] = []
        self.store = open_store(folder, self.clock, limits=self.limits)
        self.store.recover()

    # -- what happens to it

    def run(self, seconds: float) -> None:
        """The daemon works: it ticks. One tick for an hour stands for the sixty, and the last is on time."""
        while seconds > 0:
            step_s = min(seconds, HOUR)
            self._pass(step_s)
            self.clock.advance(step_s)
            seconds -= step_s
            self.store.tick()
        self.check()

    def suspend(self, seconds: float) -> None:
        self._pass(seconds)
        self.clock.suspend(seconds)
        self.store.tick()
        self.check()

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        self.uptime_s += seconds

    def cut(self, off_s: float, *, wall: datetime | None = None, sync: bool) -> None:
        """Power cut, then a boot after ``off_s``; without ``wall`` the clock is right (it has a battery or a network)."""
        self.now_s += off_s + 5.0
        self.uptime_s += 5.0
        self.cuts += 1
        crash(self.store)
        self.clock.reboot(wall=wall or self.right, sync=sync)
        self.store = open_store(self.folder, self.clock, limits=self.limits)
        self.store.recover()
        self.check()

    @property
    def right(self) -> datetime:
        return NOON + timedelta(seconds=self.now_s)

    def synchronise(self) -> None:
        self.clock.wall_now, self.clock.sync = self.right, True

    def jump(self, seconds: float, *, sync: bool) -> None:
        self.clock.wall_now += timedelta(seconds=seconds)
        self.clock.sync = sync

    # -- what it does

    def capture(self, user: str = "alice") -> Made:
        record = pending(self.store, user)
        made = Made(record.id, self.now_s, self.uptime_s, self.cuts, self.now_s + 15.0, boot=self.clock.boot)
        self.made.append(made)
        return made

    def verdict(self) -> Made:
        """The oldest capture gets its yes."""
        leased = lease(self.store)
        made = next(m for m in self.made if m.id == leased.record.id)
        finish(self.store, leased)
        made.verdict_at_s = self.now_s
        return made

    # -- what must hold

    def state(self, made: Made) -> State:
        return self.store.get(made.id).state

    def check(self) -> None:
        assert [r.id for r in self.store.list(limit=1000)] == [made.id for made in reversed(self.made)]
        for made in self.made:
            self._check_age(made)
            self._check_approval(made)
        self._check_order()

    def _check_age(self, made: Made) -> None:
        record = self.store.get(made.id)
        true_s = self.now_s - made.made_at_s
        running_s = self.uptime_s - made.uptime_s - LOST_PER_CUT_S * (self.cuts - made.cuts)
        assert running_s - 1 <= record.age_s <= true_s + 1, (record.age_s, true_s, running_s)
        if record.state is State.EXPIRED:
            assert true_s >= self.limits.max_age_s
        elif record.state is State.PENDING:
            assert self.store.payload(made.id) == picture(made.id)

    def _check_approval(self, made: Made) -> None:
        if approved(self.store.get(made.id), instant(self.clock), VALID_S):
            assert made.verdict_at_s is not None and made.boot == self.clock.boot
            assert made.verdict_at_s <= made.deadline_s
            assert self.now_s - made.verdict_at_s < VALID_S

    def _check_order(self) -> None:
        """The next to be forwarded is the oldest that is left."""
        waiting = [made.id for made in self.made if self.state(made) is State.PENDING]
        leased = self.store.lease_next(ENVIRONMENT, lease_s=60)
        assert (leased.record.id if leased else None) == (waiting[0] if waiting else None)
        if leased:
            self.store.release(leased.record.id, leased.lease, next_attempt_in_s=0, code="test")


Life = Callable[[Device], None]


def synchronised_later(device: Device) -> None:
    """1970 at the capture, right a minute later, then a month in a drawer."""
    device.run(MINUTE)
    device.synchronise()
    device.run(MINUTE)
    device.cut(MONTH, wall=EPOCH, sync=False)
    device.run(MINUTE)
    assert device.state(device.made[0]) is State.PENDING  # nobody knows the time yet
    device.synchronise()
    device.run(MINUTE)


def a_day_later_synchronised(device: Device) -> None:
    """As before, but only a day went by."""
    device.synchronise()
    device.run(MINUTE)
    device.cut(DAY, wall=EPOCH, sync=False)
    device.synchronise()
    device.run(MINUTE)


def a_boot_that_never_knew(device: Device) -> None:
    """Right at the capture; a boot without network in between; right again after a month in all."""
    device.run(HOUR)
    device.cut(MONTH / 2, wall=EPOCH, sync=False)
    device.capture()
    device.run(HOUR)
    device.cut(MONTH / 2, sync=True)
    device.run(MINUTE)
    assert device.state(device.made[1]) is State.PENDING  # on which side of it the month lay, nobody knows


def jump_and_back(seconds: float, *, sync: bool) -> Life:
    """The clock jumps, captures are made meanwhile, it is mended, then an ordinary reboot."""

    def life(device: Device) -> None:
        device.run(MINUTE)
        device.jump(seconds, sync=sync)
        device.capture("bob")
        device.run(HOUR)
        device.synchronise()
        device.run(MINUTE)
        device.cut(MINUTE, sync=True)
        device.run(HOUR)

    return life


def jump_and_reboot(seconds: float, *, sync: bool) -> Life:
    """The clock jumps and stays wrong over a reboot (its battery keeps it)."""

    def life(device: Device) -> None:
        device.run(MINUTE)
        device.jump(seconds, sync=sync)
        device.run(HOUR)
        device.cut(MINUTE, wall=device.clock.wall_now + timedelta(seconds=65), sync=sync)
        device.run(HOUR)

    return life


def month_in_a_drawer(before: bool, after: bool) -> Life:
    def life(device: Device) -> None:
        device.clock.sync = before
        device.run(MINUTE)
        device.cut(MONTH, sync=after)
        device.run(MINUTE)

    return life


def month_asleep(device: Device) -> None:
    """Suspend counts, whatever the wall clock says."""
    device.jump(-YEAR, sync=False)
    device.suspend(MONTH)


LIVES: list[tuple[str, bool, Life, State]] = [
    # name, synchronised at the capture, life, end of the first capture
    ("1970, synchronised later, a month in a drawer", False, synchronised_later, State.EXPIRED),
    ("1970, synchronised later, a day off", False, a_day_later_synchronised, State.PENDING),
    ("a boot without network between two with", True, a_boot_that_never_knew, State.EXPIRED),
    ("a year forwards, called synchronised, mended", True, jump_and_back(YEAR, sync=True), State.PENDING),
    ("a year forwards, not synchronised, mended", True, jump_and_back(YEAR, sync=False), State.PENDING),
    ("a year back, called synchronised, mended", True, jump_and_back(-YEAR, sync=True), State.PENDING),
    ("a year back, not synchronised, mended", True, jump_and_back(-YEAR, sync=False), State.PENDING),
    ("a year forwards, called synchronised, for good", True, jump_and_reboot(YEAR, sync=True), State.PENDING),
    ("a year forwards, not synchronised, for good", True, jump_and_reboot(YEAR, sync=False), State.PENDING),
    ("a year back, called synchronised, for good", True, jump_and_reboot(-YEAR, sync=True), State.PENDING),
    ("a year back, not synchronised, for good", True, jump_and_reboot(-YEAR, sync=False), State.PENDING),
    ("a month in a drawer, synchronised before and after", True, month_in_a_drawer(True, True), State.EXPIRED),
    ("a month in a drawer, never synchronised before", False, month_in_a_drawer(False, True), State.PENDING),
    ("a month in a drawer, not synchronised after", True, month_in_a_drawer(True, False), State.PENDING),
    ("a month in suspend", True, month_asleep, State.EXPIRED),
]


@pytest.mark.parametrize(("sync", "life", "end"), [life[1:] for life in LIVES], ids=[life[0] for life in LIVES])
def test_a_capture_outlives_wrong_clocks_and_nothing_else(state_dir: Path, sync: bool, life: Life, end: State) -> None:
    device = Device(state_dir, wall=NOON if sync else EPOCH, sync=sync)
    first = device.capture()
    life(device)
    assert device.state(first) is end
    assert device.store.verify().ok and device.store.verify_audit().ok
    device.store.close()


def test_a_board_without_clock_and_network_used_10_minutes_a_day_keeps_a_capture_for_its_running_time_only(
    state_dir: Path,
) -> None:
    device = Device(state_dir, wall=EPOCH, sync=False, max_age_s=6 * HOUR)
    first = device.capture()
    while device.state(first) is State.PENDING and device.cuts < 100:
        device.run(10 * MINUTE)
        device.cut(DAY - 10 * MINUTE, wall=EPOCH, sync=False)
    assert device.state(first) is State.EXPIRED
    assert 35 <= device.cuts <= 40  # 36 days of 10 minutes are 6 hours; a cut may cost a minute
    device.store.close()


# -- requests, locks and leases over such lives


def replay(device: Device, new: NewVerification) -> str:
    try:
        return "same" if device.store.create(new)[1] else "new"
    except InputError as exc:
        return exc.code


@pytest.mark.parametrize(
    ("life", "answer"),
    [
        (lambda d: d.run(23 * HOUR), "same"),
        (lambda d: d.run(25 * HOUR), "idempotency_expired"),
        (lambda d: d.suspend(25 * HOUR), "idempotency_expired"),
        (lambda d: d.jump(YEAR, sync=True), "same"),
        (lambda d: d.jump(-YEAR, sync=True), "same"),
        (lambda d: d.cut(25 * HOUR, sync=True), "idempotency_expired"),
        (lambda d: d.cut(25 * HOUR, wall=EPOCH, sync=False), "same"),  # nobody knows; it is never approved again
        (jump_and_back(-YEAR, sync=True), "same"),
    ],
)
def test_an_idempotency_key_ends_after_24_known_hours_and_never_begins_anew(
    state_dir: Path, life: Life, answer: str
) -> None:
    device = Device(state_dir)
    new = request()
    record, _ = device.store.create(new)
    device.store.cancel(record.id)
    device.check = lambda: None  # type: ignore[method-assign]  # this one is no capture
    life(device)
    assert replay(device, new) == answer
    device.store.close()


@pytest.mark.parametrize("seconds", [YEAR, -YEAR])
@pytest.mark.parametrize("sync", [True, False])
def test_a_jump_of_the_clock_touches_no_lease_no_back_off_no_quarantine_no_lock_and_no_approval(
    state_dir: Path, seconds: float, sync: bool
) -> None:
    device = Device(state_dir)
    store, clock = device.store, device.clock
    for _ in range(5):
        store.record_failure("mallory", "spoof")
    live = capture(store, "dora")
    good = store.lease_one(live.id, lease_s=60)
    assert good is not None
    finish(store, good)
    unknown, blocked = pending(store, "bob"), pending(store, "bob")
    leased = lease(store)
    upload(store, leased)
    store.release(unknown.id, leased.lease, next_attempt_in_s=600, code="network")
    held = store.lease_one(pending(store, "carol").id, lease_s=60)
    assert held is not None

    def facts() -> list[object]:
        lock = store.locked_until("mallory")
        return [
            lock.retry_after_s if lock else None,
            approved(store.get(live.id), instant(clock), VALID_S),
            store.lease_one(blocked.id, lease_s=60),
            store.next_ready_in_s(ENVIRONMENT),
            store.get(held.record.id).lease,
        ]

    before = facts()
    device.jump(seconds, sync=sync)
    store.tick()
    assert facts() == before == [180.0, True, None, 0.0, held.lease]
    store.renew(held.record.id, held.lease, lease_s=60)
    store.close()


def test_over_suspend_leases_locks_approvals_and_quarantines_run_on(state_dir: Path) -> None:
    device = Device(state_dir)
    store = device.store
    for _ in range(5):
        store.record_failure("mallory", "spoof")
    yes = capture(store, "dora")
    good = store.lease_one(yes.id, lease_s=60)
    assert good is not None
    finish(store, good)
    device.clock.suspend(HOUR)
    assert store.locked_until("mallory") is None
    assert not approved(store.get(yes.id), instant(device.clock), VALID_S)
    late = capture(store, "erin")
    leased = store.lease_one(late.id, lease_s=7200)
    assert leased is not None
    device.clock.suspend(20)  # over the deadline, within the lease
    assert finish(store, leased).late
    store.close()


def test_a_reboot_between_upload_and_match_ends_the_attempt_and_its_approval(state_dir: Path) -> None:
    device = Device(state_dir)
    first = device.capture()
    other = device.capture()
    leased = lease(device.store)
    upload(device.store, leased)
    device.clock.sync = False
    crash(device.store)
    device.clock.reboot(wall=EPOCH, sync=False)
    device.store = store = open_store(state_dir, device.clock)
    store.recover()
    assert store.lease_one(other.id, lease_s=60) is None  # the PUT of before may land yet
    again = lease(store)
    assert (again.record.id, again.record.attempts) == (first.id, 2)
    record = finish(store, again)
    assert record.late and not approved(record, instant(device.clock), VALID_S)
    device.clock.advance(61)
    assert store.lease_one(other.id, lease_s=60) is not None
    store.close()


# -- any life


class Lives(RuleBasedStateMachine):
    """Honest lives: when the clock calls itself synchronised at a boot or before a cut, it is right."""

    @initialize(sync=st.booleans())
    def start(self, sync: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.device = Device(self.folder / "state", wall=NOON if sync else EPOCH, sync=sync)

    def teardown(self) -> None:
        if hasattr(self, "device"):
            assert self.device.store.verify().ok and self.device.store.verify_audit().ok
            crash(self.device.store)
            shutil.rmtree(self.folder)

    @rule(user=st.sampled_from(["alice", "bob"]))
    def capture(self, user: str) -> None:
        self.device.capture(user)

    @precondition(lambda self: any(self.device.state(made) is State.PENDING for made in self.device.made))
    @rule()
    def verdict(self) -> None:
        self.device.verdict()
        self.device.check()

    @rule(seconds=st.sampled_from([10.0, 59.0, 130.0, HOUR, 30 * HOUR]))
    def run(self, seconds: float) -> None:
        self.device.run(seconds)

    @rule(seconds=st.sampled_from([MINUTE, DAY, MONTH]))
    def suspend(self, seconds: float) -> None:
        self.device.suspend(seconds)

    @rule()
    def synchronise(self) -> None:
        self.device.synchronise()
        self.device.check()

    @rule(seconds=st.sampled_from([YEAR, -YEAR, 40 * DAY]))
    def jump(self, seconds: float) -> None:
        self.device.jump(seconds, sync=False)
        self.device.check()

    @rule(seconds=st.sampled_from([YEAR, -YEAR, 40 * DAY]), user=st.sampled_from(["alice", "bob"]))
    def jump_called_synchronised_and_back(self, seconds: float, user: str) -> None:
        self.device.synchronise()
        self.device.check()  # the boot has known the time before
        self.device.jump(seconds, sync=True)
        self.device.capture(user)
        self.device.run(MINUTE)
        self.device.synchronise()
        self.device.run(MINUTE)

    @rule(off_s=st.sampled_from([1.0, HOUR, DAY, MONTH]), sync=st.booleans(), battery=st.booleans())
    def cut(self, off_s: float, sync: bool, battery: bool) -> None:
        wall = None if sync or battery else EPOCH
        self.device.cut(off_s, wall=wall, sync=sync)


Lives.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,  # a sync takes as long as it takes
    suppress_health_check=[HealthCheck.too_slow],
)
TestLives = Lives.TestCase
