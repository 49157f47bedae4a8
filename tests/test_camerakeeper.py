"""The agent's hold on the camera: looked after between sessions, ended for at most once an hour, never waited for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edge_agent import camerakeeper
from edge_agent.camera import CameraStatus, last_exit
from edge_agent.camera.ladder import ExitRecord
from edge_agent.camera.port import Camera
from edge_agent.camerakeeper import HUNG_S, Camerakeeper, Ending
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError, EnvironmentFault
from edge_agent.tasks import Tasks
from edge_agent.types import Frame
from edge_agent.workers import Worker
from tests.camera.sources import picture
from tests.outbox.fakes import FakeClock

GONE = CameraError("cannot open the camera: it is gone", hint="plug it in")
USB = CameraSection(source="v4l2")
PICTURE = picture(32, 24)


class Plug(Camera):
    """Pulled while ``error`` is set; ``stuck`` (cleared) lets a call hang in its driver."""

    description, size = "plug", (32, 24)

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.error: CameraError | None = None
        self.calling, self.stuck = threading.Event(), threading.Event()
        self.stuck.set()
        self.tried = 0
        self.is_open = False
        self.eased: float | None = None

    def ease(self, fps: float | None) -> None:
        self.eased = fps

    def open(self) -> None:
        if self.is_open:
            return
        self.tried += 1
        self.calling.set()
        self.stuck.wait(10)
        if self.error is not None:
            raise self.error
        self.is_open = True

    def read(self, timeout_s: float) -> Frame:
        if self.error is not None:
            raise self.error
        return Frame(PICTURE, self.clock.monotonic_s(), 0)

    def close(self) -> None:
        self.is_open = False


class Bench:
    """A keeper with a fake clock and a camera that can be pulled; ``idle`` is what the agent says of itself."""

    def __init__(self, state_dir: Path, clock: FakeClock | None = None, settings: CameraSection = USB) -> None:
        self.clock = clock or FakeClock()
        self.plug = Plug(self.clock)
        self.idle, self.managed, self.calls = True, True, list[str]()
        self.told: list[CameraStatus] = []
        self.state_dir, self.settings = state_dir, settings
        self.beats = 0

    def __call__(self, scenario: Callable[[Camerakeeper], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            worker, tasks = Worker("camera", self.clock.monotonic_s), Tasks()
            keeper = Camerakeeper(
                self.settings,
                worker=worker,
                clock=self.clock,
                state_dir=self.state_dir,
                spawn=tasks.spawn,
                make=lambda: self.plug,
                on_change=self.told.append,
                beat=self._beat,
            )
            keeper.ending = Ending(self._hold, lambda: self.calls.append("go on"), lambda: self.calls.append("end"))
            if not self.managed:
                keeper.ending = None
            try:
                await scenario(keeper)
            finally:
                self.plug.stuck.set()
                await tasks.cancel()
                worker.close()

        asyncio.run(run())

    def _beat(self) -> None:
        self.beats += 1

    def _hold(self) -> bool:
        self.calls.append("hold")
        return self.idle

    async def turns(self, keeper: Camerakeeper, seconds: float) -> None:
        """As the loop makes them, in no time."""
        for _ in range(int(seconds / 5)):
            self.clock.advance(5)
            await keeper.turn()

    async def pull(self, keeper: Camerakeeper) -> None:
        """A session that finds no camera."""
        self.plug.error = GONE
        with pytest.raises(CameraError):
            await keeper.open()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state")


def test_a_lost_camera_is_a_fault_with_a_hint_until_a_probe_finds_it_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge_agent.camerakeeper")

    async def scenario(keeper: Camerakeeper) -> None:
        await bench.pull(keeper)
        fault = keeper.fault
        assert fault is not None
        assert (fault.code, fault.message, fault.hint) == ("camera_unavailable", GONE.message, GONE.hint)
        await bench.turns(keeper, 60)
        shown = keeper.describe()
        assert (shown["state"], shown["step"], shown["code"]) == ("lost", "respawn", "camera_unavailable")
        assert shown["steps_taken"] == {"reopen": 3, "respawn": 4, "exit": 0}
        bench.plug.error = None
        await bench.turns(keeper, 60)
        assert keeper.fault is None
        assert (keeper.describe()["state"], keeper.describe()["failures"]) == ("ok", 0)
        assert not bench.plug.is_open
        tried = bench.plug.tried
        await bench.turns(keeper, 600)
        assert bench.plug.tried == tried, "a camera that is well is left alone"

    bench(scenario)
    assert [s.state for s in bench.told] == ["lost"] * 8 + ["ok"]
    logged = [r.getMessage() for r in caplog.records if r.getMessage().startswith("the camera is")]
    assert [text.partition(":")[0] for text in logged if "still" not in text] == [
        "the camera is lost",
        "the camera is back",
    ]


@pytest.mark.parametrize(("source", "state"), [("v4l2", "unknown"), ("none", "none")])
def test_a_camera_that_was_not_tried_or_is_not_wanted_is_no_fault_and_is_left_alone(
    tmp_path: Path, source: Any, state: str
) -> None:
    bench = Bench(tmp_path, settings=CameraSection(source=source))

    async def scenario(keeper: Camerakeeper) -> None:
        await bench.turns(keeper, 600)
        assert (keeper.status.state, keeper.fault, bench.plug.tried) == (state, None, 0)
        if source == "none":
            await bench.pull(keeper)
            await bench.turns(keeper, 600)
            assert (keeper.status.state, keeper.fault, bench.plug.tried, bench.told) == ("none", None, 1, [])

    bench(scenario)


def test_nobody_looks_at_the_camera_that_a_session_has(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        camera = await keeper.open()
        bench.plug.error = GONE
        with pytest.raises(CameraError):
            camera.read(1)
        assert keeper.fault is not None
        await bench.turns(keeper, 600)
        assert (bench.plug.tried, bench.calls, bench.plug.is_open) == (1, [], True)
        await keeper.release(camera)
        await bench.turns(keeper, 5)
        assert bench.plug.tried == 2

    bench(scenario)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_session_that_starts_during_a_probe_shares_its_try_when_that_fails(bench: Bench, comes_back: bool) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await bench.pull(keeper)
        bench.plug.stuck.clear()
        bench.plug.calling.clear()
        bench.clock.advance(5)
        turn = asyncio.create_task(keeper.turn())
        await asyncio.to_thread(bench.plug.calling.wait, 10)
        session = asyncio.create_task(keeper.open())
        await asyncio.sleep(0)
        if comes_back:
            bench.plug.error = None
        bench.plug.stuck.set()
        await turn
        if comes_back:
            camera = await session
            assert (await asyncio.to_thread(camera.read, 1)).image is PICTURE
            assert (bench.plug.is_open, bench.plug.tried) == (True, 3)
            await keeper.release(camera)
        else:
            with pytest.raises(CameraError, match="it is gone"):
                await session
            assert bench.plug.tried == 2, "the customer waits for one try, not for two"
        assert not bench.plug.is_open

    bench(scenario)


def test_a_call_that_hangs_stops_no_loop_fails_sessions_at_once_and_climbs_to_the_exit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camerakeeper, "PROBE_S", 0.01)

    async def scenario(keeper: Camerakeeper) -> None:
        await bench.pull(keeper)
        bench.plug.stuck.clear()
        await bench.turns(keeper, HUNG_S + 10)
        assert keeper.hangs
        with pytest.raises(CameraError, match="has not returned for"):
            await keeper.open()
        await bench.turns(keeper, 60)
        assert keeper.describe()["step"] == "respawn"
        assert bench.calls == []
        await bench.turns(keeper, 180)
        assert bench.calls == ["hold", "end"]
        watching = asyncio.create_task(keeper.watch())
        beats = bench.beats
        await asyncio.sleep(0.1)
        assert bench.beats > beats + 1
        watching.cancel()

    bench(scenario)


def test_an_open_that_hangs_is_given_up_and_films_nobody_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camerakeeper, "HUNG_S", 0.05)

    async def scenario(keeper: Camerakeeper) -> None:
        bench.plug.stuck.clear()
        with pytest.raises(CameraError, match=r"has not answered for 0\.05 s"):
            await keeper.open()
        bench.plug.stuck.set()
        monkeypatch.undo()
        camera = await keeper.open()  # behind the one that hung, and its end
        await keeper.release(camera)
        assert not bench.plug.is_open

    bench(scenario)


# -- the exit ---------------------------------------------------------------------------------------------------------


def ends_within(bench: Bench, seconds: float, *, before: Callable[[], None] = lambda: None) -> list[str]:
    """What a daemon whose camera is gone does about it in that time."""

    async def scenario(keeper: Camerakeeper) -> None:
        before()
        await bench.pull(keeper)
        await bench.turns(keeper, seconds)

    bench(scenario)
    return [call for call in bench.calls if call != "hold"]


def test_the_daemon_ends_once_an_hour_over_its_restarts(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Bench(tmp_path / "state", clock)
    assert ends_within(first, 600) == ["end"]
    file = tmp_path / "state" / last_exit.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    ended_s = last_exit.read(tmp_path / "state")
    assert ended_s is not None
    assert ended_s.boot_id == clock.boot
    assert ends_within(Bench(tmp_path / "state", clock), 2400) == []
    assert ends_within(Bench(tmp_path / "state", clock), 1200) == ["end"]
    clock.reboot()
    assert ends_within(Bench(tmp_path / "state", clock), 3300) == [], "the hour counts from the boot"
    assert ends_within(Bench(tmp_path / "state", clock), 600) == ["end"]


def test_after_such_an_end_the_camera_is_looked_at_before_anybody_asks(tmp_path: Path) -> None:
    clock = FakeClock()
    ends_within(Bench(tmp_path, clock), 600)
    after = Bench(tmp_path, clock)
    after.plug.error = GONE

    async def scenario(keeper: Camerakeeper) -> None:
        await keeper.turn()
        assert keeper.fault is not None

    after(scenario)
    clock.reboot()
    Bench(tmp_path, clock)(never_tried)


async def never_tried(keeper: Camerakeeper) -> None:
    await keeper.turn()
    assert keeper.status.state == "unknown"


def test_it_does_not_end_while_somebody_is_served_and_does_as_soon_as_nobody_is(bench: Bench) -> None:
    bench.idle = False

    async def scenario(keeper: Camerakeeper) -> None:
        await bench.pull(keeper)
        await bench.turns(keeper, 300)
        assert set(bench.calls) == {"hold"}
        assert last_exit.read(bench.state_dir) is None
        bench.idle = True
        await keeper.turn()
        assert bench.calls[-1] == "end"
        assert keeper.describe()["steps_taken"]["exit"] == 1

    bench(scenario)


def test_it_stays_and_says_so_once_where_nobody_would_start_it_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge_agent.camerakeeper")
    bench.managed = False
    assert ends_within(bench, 900) == []
    assert caplog.text.count("nobody would start one") == 1
    assert last_exit.read(bench.state_dir) is None


def test_it_stays_where_the_end_cannot_be_written_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise EnvironmentFault("cannot write it: no space left", code="not_writable")

    monkeypatch.setattr(last_exit, "save", full)
    assert ends_within(bench, 900) == ["go on"]
    assert "no space left" in caplog.text


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b'"a"',
    b"{}",
    b'{"boot_id": "a"}',
    b'{"boot_id": 1, "boottime_s": 1}',
    b'{"boot_id": "a", "boottime_s": "1"}',
    b'{"boot_id": "a", "boottime_s": true}',
    b'{"boot_id": "a", "boottime_s": NaN}',
    b'{"boot_id": "a", "boottime_s": -1}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", GARBAGE, ids=repr)
def test_a_record_that_cannot_be_understood_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / last_exit.FILE).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert last_exit.read(tmp_path) is None
    assert "cannot be read" in caplog.text


def test_a_record_is_read_as_it_was_written_and_replaces_the_old_one(tmp_path: Path) -> None:
    assert last_exit.read(tmp_path) is None
    for record in (ExitRecord("a", 1.5), ExitRecord("b", 7200.25)):
        last_exit.save(tmp_path / "new", record)
        assert last_exit.read(tmp_path / "new") == record
    assert [path.name for path in (tmp_path / "new").iterdir()] == [last_exit.FILE]


# -- another camera ---------------------------------------------------------------------------------------------------


def test_another_camera_is_used_from_the_next_session_on(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        old = bench.plug
        camera = await keeper.open()
        bench.plug = Plug(bench.clock)
        keeper.renew(USB.model_copy(update={"device": "/dev/video7"}))
        assert camera.read(1).image is PICTURE
        assert keeper.status.state == "unknown", "what the old one does is not told of the new one"
        await keeper.release(camera)
        other = await keeper.open()
        assert (old.is_open, bench.plug.is_open) == (False, True)
        await keeper.release(other)

    bench(scenario)


def test_another_camera_in_the_place_of_a_lost_one_is_looked_at_at_once_and_the_hour_goes_on(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await bench.pull(keeper)
        await bench.turns(keeper, 600)
        assert bench.calls == ["hold", "end"]
        keeper.renew(USB)
        await bench.turns(keeper, 600)
        assert bench.calls == ["hold", "end"], "another ladder, but the same hour"
        taken = keeper.describe()["steps_taken"]
        bench.plug.error = None
        keeper.renew(USB)
        assert keeper.fault is None
        await keeper.turn()
        assert keeper.status.state == "ok"
        assert keeper.describe()["steps_taken"] == taken, "they count on"

    bench(scenario)


# -- watched between sessions -------------------------------------------------------------------------------------------

STALL = CameraError("cannot read in time", code="camera_stalled")


async def watched(keeper: Camerakeeper) -> None:
    """Until the camera is watched."""
    assert await keeper.glance(5.0) is None
    assert is_watched(keeper)


def is_watched(keeper: Camerakeeper) -> bool:
    return keeper.watched


def test_a_watched_camera_stays_open_at_ease_and_a_session_has_it_without_opening_it_again(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await watched(keeper)
        frame = await keeper.glance(5.0)
        assert frame is not None and frame.image is PICTURE
        assert (bench.plug.tried, bench.plug.eased, keeper.status.state) == (1, 5.0, "ok")
        camera = await keeper.open()
        assert (is_watched(keeper), bench.plug.tried, bench.plug.eased) == (False, 1, None)
        assert await keeper.glance(5.0) is None, "nobody else looks through the camera of a session"
        assert camera.read(1).image is PICTURE
        await keeper.release(camera)
        assert (bench.plug.is_open, bench.plug.tried) == (False, 1)
        await watched(keeper)
        assert (bench.plug.is_open, bench.plug.tried) == (True, 2)
        await keeper.close()
        assert not bench.plug.is_open

    bench(scenario)


def test_a_session_that_begins_while_the_watch_opens_the_camera_waits_for_that_and_has_it(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        bench.plug.stuck.clear()
        glance = asyncio.create_task(keeper.glance(5.0))
        await asyncio.to_thread(bench.plug.calling.wait, 10)
        session = asyncio.create_task(keeper.open())
        await asyncio.sleep(0)
        bench.plug.stuck.set()
        camera = await session
        assert (await glance, is_watched(keeper), bench.plug.tried, bench.plug.eased) == (None, False, 1, None)
        await keeper.release(camera)
        assert not bench.plug.is_open

    bench(scenario)


@pytest.mark.parametrize("examined", [False, True])
def test_a_glance_that_is_under_way_when_somebody_takes_the_camera_ends_first_and_comes_to_nothing(
    bench: Bench, examined: bool
) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await watched(keeper)
        order = list[str]()
        reading, go_on = threading.Event(), threading.Event()
        read, ease = bench.plug.read, bench.plug.ease

        def slow(timeout_s: float) -> Frame:
            reading.set()
            go_on.wait(10)
            order.append("glance")
            return read(timeout_s)

        bench.plug.read = slow  # type: ignore[method-assign]

        def eased(fps: float | None) -> None:
            order.append("session")
            ease(fps)

        bench.plug.ease = eased  # type: ignore[method-assign]
        glance = asyncio.create_task(keeper.glance(5.0))
        await asyncio.to_thread(reading.wait, 10)
        taking = asyncio.create_task(keeper.examine() if examined else keeper.open())
        await asyncio.sleep(0)
        go_on.set()
        camera = await taking
        assert (await glance, order, keeper.fault) == (None, ["glance", "session"], None)
        assert bench.plug.is_open is not examined
        if camera is not None:
            await keeper.release(camera)

    bench(scenario)


def test_a_watched_camera_that_dies_is_known_before_anybody_comes_and_is_watched_again_when_it_is_back(
    bench: Bench,
) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await watched(keeper)
        bench.plug.error = STALL
        assert await keeper.glance(5.0) is None
        assert (is_watched(keeper), keeper.fault) == (True, None), "a picture that is late is no loss"
        bench.plug.error = GONE
        assert await keeper.glance(5.0) is None
        assert (is_watched(keeper), bench.plug.is_open) == (False, False)
        assert keeper.fault is not None and keeper.fault.message == GONE.message
        tried = bench.plug.tried
        assert await keeper.glance(5.0) is None
        assert bench.plug.tried == tried, "when a lost camera is tried says the ladder"
        bench.plug.error = None
        await bench.turns(keeper, 10)
        assert keeper.describe()["state"] == "ok"
        await watched(keeper)
        assert await keeper.glance(5.0) is not None

    bench(scenario)


def test_a_session_after_a_watch_that_lost_the_camera_opens_it_anew(bench: Bench) -> None:
    """The watch had no time to close it: what is broken stays broken until then."""

    async def scenario(keeper: Camerakeeper) -> None:
        await watched(keeper)
        bench.plug.error = GONE
        glance = asyncio.create_task(keeper.glance(5.0))
        await asyncio.sleep(0)
        bench.plug.error = None
        keeper._recovery.note_failure(GONE)
        camera = await keeper.open()
        assert (bench.plug.tried, bench.plug.is_open) == (2, True)
        await glance
        assert bench.plug.is_open
        await keeper.release(camera)

    bench(scenario)


def test_a_camera_that_cannot_be_opened_for_watching_is_a_fault_and_nobody_waits_twice(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        bench.plug.error = GONE
        assert await keeper.glance(5.0) is None
        assert (is_watched(keeper), bench.plug.tried) == (False, 1)
        assert keeper.fault is not None

    bench(scenario)


def test_another_camera_is_watched_after_a_change_and_the_old_one_is_closed(bench: Bench) -> None:
    async def scenario(keeper: Camerakeeper) -> None:
        await watched(keeper)
        old, bench.plug = bench.plug, Plug(bench.clock)
        keeper.renew(USB.model_copy(update={"device": "/dev/video7"}))
        assert not is_watched(keeper)
        await watched(keeper)
        assert (old.is_open, bench.plug.is_open) == (False, True)
        keeper.renew(CameraSection(source="none"))
        assert await keeper.glance(5.0) is None
        await keeper._worker.run(lambda: None)  # behind whoever closes it
        assert not bench.plug.is_open

    bench(scenario)
