"""The camera for a daemon's life: what its sessions see, and which steps are taken behind them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_agent.camera import CameraRecovery, CameraStatus, ExitRecord, camera_recovery
from edge_agent.camera.ladder import ALL_STEPS, Ladder, Pace, Step
from edge_agent.camera.picamera import PicameraCamera
from edge_agent.camera.port import Camera, stalled
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError
from edge_agent.types import Frame
from tests.camera.picamera import Pi
from tests.camera.processes import gone_within
from tests.camera.sources import ManualClock, picture, write_picture

pytestmark = pytest.mark.arm
GONE = CameraError("cannot read from camera: it is gone", hint="plug it in")
PICTURE = picture(32, 24)


class Scripted(Camera):
    """Opens and reads as ``bench`` says: an error to raise, or a picture where there is none."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.opened, self._index = bench, False, -1

    @property
    def description(self) -> str:
        return f"camera {len(self.bench.made)}"

    @property
    def size(self) -> tuple[int, int]:
        return (32, 24)

    def open(self) -> None:
        self.bench.log.append("open")
        if self.bench.openings:
            error = self.bench.openings.popleft()
            if error is not None:
                raise error
        self.opened = True

    def read(self, timeout_s: float) -> Frame:
        if self.bench.readings:
            error = self.bench.readings.popleft()
            if error is not None:
                self.bench.clock.sleep(timeout_s if error.code == "camera_stalled" else 0)
                raise error
        self._index += 1
        return Frame(PICTURE, self.bench.clock(), self._index)

    def close(self) -> None:
        self.bench.log.append("close")
        self.opened = False


class Bench:
    """A recovery, the cameras that it makes, and what happened to them."""

    def __init__(self, **ladder: Any) -> None:
        self.clock = ManualClock()
        self.made: list[Scripted] = []
        self.log: list[str] = []
        self.openings: deque[CameraError | None] = deque()
        self.readings: deque[CameraError | None] = deque()
        self.told: list[CameraStatus] = []
        self.recovery = CameraRecovery(
            self.make, Ladder(boot_id="a", **ladder), on_change=self.told.append, clock=self.clock
        )

    def make(self) -> Camera:
        self.log.append("make")
        self.made.append(Scripted(self))
        return self.made[-1]

    def events(self) -> list[str]:
        found, self.log = self.log, []
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def error_of(act: Callable[[], object]) -> CameraError:
    with pytest.raises(CameraError) as raised:
        act()
    return raised.value


def test_a_camera_that_works_is_opened_and_closed_for_each_session_and_made_once(bench: Bench) -> None:
    for _ in range(2):
        camera = bench.recovery.open()
        assert camera.read(1).index >= 0
        camera.close()
        camera.close()
    assert bench.events() == ["make", "open", "close", "open", "close"]
    assert [status.state for status in bench.told] == ["ok"]
    assert not bench.recovery.steps_taken


def test_a_camera_that_cannot_be_opened_is_told_and_the_next_session_tries_at_once(bench: Bench) -> None:
    bench.openings.extend([GONE, GONE])
    for failures in (1, 2):
        assert error_of(bench.recovery.open) is GONE
        status = bench.recovery.status
        assert (status.state, status.failures, status.code) == ("lost", failures, "camera_unavailable")
        assert (status.detail, status.hint) == (GONE.message, GONE.hint)
    camera = bench.recovery.open()
    camera.read(1)
    assert bench.recovery.status.state == "ok"
    assert bench.recovery.steps_taken == {Step.REOPEN: 2}


def test_within_a_session_it_is_opened_again_at_the_ladders_pace_and_made_anew_when_that_does_not_help(
    bench: Bench,
) -> None:
    camera = bench.recovery.open()
    camera.read(1)
    bench.readings.append(GONE)
    assert error_of(lambda: camera.read(1)) is GONE
    camera.close()
    bench.events()
    bench.openings.extend([GONE] * 4)
    opened_at_s, refusals = [], set()
    while bench.recovery.source is None or not bench.made[-1].opened:  # as the agent does it, again and again
        bench.clock.sleep(0.25)
        try:
            camera.open()
        except CameraError as exc:
            if exc is GONE:
                opened_at_s.append(bench.clock())
            else:
                refusals.add(exc.message)
    assert camera.read(1).image is PICTURE
    assert f"cannot open the camera: the next attempt (respawn) is in 1.5 s; {GONE.message}" in refusals
    pauses_s = [b - a for a, b in pairwise(opened_at_s)]
    assert pauses_s == [1.0, 2.0, 2.0]
    assert bench.events() == ["open", "open", "open", "close", "make", "open", "close", "make", "open"]
    assert bench.recovery.steps_taken == {Step.REOPEN: 3, Step.RESPAWN: 2}
    assert {s.step for s in bench.told} == {Step.NONE, Step.REOPEN, Step.RESPAWN}


def test_a_short_stall_is_passed_on_and_a_long_one_is_a_loss_counted_once(bench: Bench) -> None:
    camera = bench.recovery.open()
    camera.read(1)
    bench.readings.extend([stalled("camera 1", 0.5)] * 7)
    codes = [error_of(lambda: camera.read(0.5)).code for _ in range(7)]
    assert codes == ["camera_stalled"] * 4 + ["camera_unavailable"] * 3
    assert bench.recovery.status.failures == 1
    camera.read(1)
    bench.readings.append(GONE)
    error_of(lambda: camera.read(1))
    assert bench.recovery.status.failures == 2


def test_a_loss_in_one_session_is_remembered_in_the_next_until_it_was_well(bench: Bench) -> None:
    camera = bench.recovery.open()
    bench.readings.append(GONE)
    error_of(lambda: camera.read(1))
    camera.close()
    assert bench.recovery.status.state == "lost"
    camera = bench.recovery.open()
    assert bench.recovery.steps_taken == {Step.REOPEN: 1}
    camera.read(1)
    camera.close()
    bench.recovery.open()
    assert bench.recovery.steps_taken == {Step.REOPEN: 1}


def test_a_closed_camera_cannot_be_read(bench: Bench) -> None:
    camera = bench.recovery.open()
    camera.close()
    assert error_of(lambda: camera.read(1)).code == "camera_unavailable"
    camera.open()
    camera.open()
    assert camera.read(1).index == 0


def test_the_end_of_a_finite_replay_is_no_failure(bench: Bench) -> None:
    camera = bench.recovery.open()
    bench.readings.append(CameraError("cannot read on: it is over", code="end_of_source"))
    assert error_of(lambda: camera.read(1)).code == "end_of_source"
    assert bench.recovery.status.failures == 0


def test_a_probe_tries_a_lost_camera_when_it_is_time_and_leaves_a_well_one_alone(bench: Bench) -> None:
    bench.recovery.probe()
    assert bench.events() == []
    bench.openings.extend([GONE, GONE, None])
    error_of(bench.recovery.open)
    bench.recovery.probe()
    assert bench.events() == ["make", "open"], "not before its time"
    bench.clock.sleep(0.5)
    assert bench.recovery.probe().state == "lost"
    bench.clock.sleep(1)
    assert bench.recovery.probe().state == "ok"
    assert bench.events() == ["open", "close", "open", "close"]
    assert not bench.made[0].opened


def exhausted(**ladder: Any) -> Bench:
    """Everything below the exit was tried for as long as it takes."""
    bench = Bench(pace=Pace(reopen_tries=1, respawn_tries=1), **ladder)
    bench.openings.extend([GONE] * 3)
    for _ in range(3):
        error_of(bench.recovery.open)
    bench.clock.sleep(Pace().exit_after_s)
    return bench


def test_ending_the_daemon_is_advised_last_and_not_during_a_session() -> None:
    bench = exhausted()
    assert not bench.recovery.exit_advised(in_session=True)
    assert bench.recovery.exit_advised(in_session=False)
    record = bench.recovery.exit_record()
    assert record == ExitRecord("a", bench.clock())
    assert not bench.recovery.exit_advised(in_session=False)
    assert bench.recovery.steps_taken[Step.EXIT] == 1
    assert not exhausted(last_exit=record).recovery.exit_advised(in_session=False)


def test_a_recovery_that_cannot_make_a_camera_says_so_and_goes_on_trying() -> None:
    answers: deque[CameraError | None] = deque([GONE, GONE, None])
    bench = Bench()

    def make() -> Camera:
        error = answers.popleft()
        if error is not None:
            raise error
        return Scripted(bench)

    recovery = CameraRecovery(make, Ladder(boot_id="a"), clock=bench.clock)
    error_of(recovery.open)
    error_of(recovery.open)
    assert recovery.status.state == "lost"
    assert recovery.open().read(1).image is PICTURE


def test_a_replay_is_never_mended_by_a_new_daemon(tmp_path: Any) -> None:
    path = tmp_path / "a.png"
    settings = CameraSection(source="replay", path=path, size=(64, 64))
    recovery = camera_recovery(settings, boot_id="a")
    error_of(recovery.open)
    assert recovery._ladder._steps == (Step.REOPEN,)
    write_picture(path, picture(64, 64))
    with recovery.open() as camera:
        assert camera.read(5).image.any()
        assert (camera.size, str(path) in camera.description) == ((64, 64), True)
    assert camera_recovery(CameraSection(), boot_id="a")._ladder._steps == ALL_STEPS


def test_a_capture_process_that_hangs_amid_a_session_is_replaced_within_it(tmp_path: Path) -> None:
    """The whole of it, with real processes: the alarm in the process, the ladder, and a new process."""
    pi = Pi(tmp_path)
    pi.plan(capture="hang", at=2)
    made: list[PicameraCamera] = []

    def make() -> Camera:
        made.append(pi.camera(silence_s=0.3, clock=time.monotonic))
        return made[-1]

    recovery = CameraRecovery(make, Ladder(boot_id="a"))
    with recovery.open() as camera:
        first = made[0].process_id
        assert first is not None
        began_s = time.monotonic()
        while (error := loss_of(camera)) is None:
            pass
        assert "hung in its driver" in error.message
        assert recovery.status.step is Step.REOPEN
        pi.plan()
        camera.close()
        while error is not None:  # as filming does it
            time.sleep(0.1)
            error = loss_of(camera, camera.open)
        assert camera.read(2).image.any()
        assert time.monotonic() - began_s < 5, "what a session waits for a lost camera"
        assert made[0].process_id not in {None, first}
        assert gone_within(first, 1)
    assert recovery.steps_taken == {Step.REOPEN: 1}


def loss_of(camera: Camera, act: Callable[[], object] | None = None) -> CameraError | None:
    try:
        (act or (lambda: camera.read(0.5)))()
    except CameraError as exc:
        return None if exc.code == "camera_stalled" else exc
    return None
