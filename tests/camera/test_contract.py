"""What every camera promises (edge_agent/camera/port.py), for each source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge_agent.camera import Camera
from edge_agent.camera.piped import PipedCamera
from edge_agent.camera.port import Rotation
from edge_agent.camera.replay import ReplayCamera
from edge_agent.camera.v4l2 import V4l2Camera
from edge_agent.errors import CameraError
from edge_agent.types import Image
from tests.camera.gst import MOVING, Gst, needs_gstreamer
from tests.camera.picamera import Pi
from tests.camera.processes import await_pictures, kill_process, stop_process
from tests.camera.sources import FakeCapture, ManualClock, picture, write_clip, write_picture

pytestmark = pytest.mark.arm
STALE_S = 0.5


@dataclass
class Source:
    """One kind of camera, and what a test does to it from outside."""

    make: Callable[..., Camera]
    clock: ManualClock
    linger: Callable[[], None]
    """Something like a second passes without a read."""
    unplug: Callable[[], None]
    plug_in: Callable[[], None]
    orientation: bool = True
    """The pictures of this source show how they are turned."""
    name: str = ""
    """A word of the description; default: the path of the test's folder."""
    faults: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What this kind can do wrong beside going away: hangs, freezes, loops, floods, lies; called before or after opening."""
    mend: Callable[[], None] = lambda: None
    """Ends the fault, after closing."""


def _replay(path: Path, plug_in: Callable[[], object], *, orientation: bool = True) -> Source:
    clock = ManualClock()
    plug_in()

    def make(rotate: Rotation = 0) -> Camera:
        return ReplayCamera(path, size=(320, 240), rotate=rotate, stale_after_s=STALE_S, clock=clock, sleep=clock.sleep)

    def unplug() -> None:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            file.unlink()
        if path.is_dir():
            path.rmdir()

    return Source(make, clock, lambda: clock.sleep(1), unplug, lambda: (plug_in(), None)[1], orientation)


def _folder(folder: Path) -> None:
    folder.mkdir()
    for name in ("a.png", "b.png"):
        write_picture(folder / name, picture(300, 200))


def _v4l2(tmp_path: Path) -> Source:
    clock, device, captures = ManualClock(), tmp_path / "video0", list[FakeCapture]()
    device.touch()
    answers: list[Callable[[FakeCapture, int], tuple[bool, Image | None]]] = [FakeCapture.a_picture]

    def open_capture(_device: str) -> FakeCapture:
        capture = FakeCapture()
        captures.append(capture)
        capture.answer = lambda number: answers[-1](capture, number)
        return capture

    def hang() -> None:
        captures[-1].hang_at = 0
        assert captures[-1].hanging.wait(10)

    def mend() -> None:
        captures[-1].freed.set()
        answers.append(FakeCapture.a_picture)

    def make(rotate: Rotation = 0) -> Camera:
        return V4l2Camera(
            str(device),
            size=(320, 240),
            rotate=rotate,
            stale_after_s=STALE_S,
            close_timeout_s=0.1,
            clock=clock,
            open_capture=open_capture,
        )

    def unplug() -> None:
        device.unlink()
        captures[-1].answer = lambda _number: (False, None)

    def linger() -> None:
        clock.sleep(1)
        captures[-1].wait_for(5)

    faults: dict[str, Callable[[], None]] = {
        "hangs": hang,
        "freezes": lambda: answers.append(lambda capture, _number: capture.a_picture(7)),
        "loops": lambda: answers.append(lambda capture, number: capture.a_picture(number % 6)),
        "floods": lambda: None,  # it delivers without a pause anyway
        "lies": lambda: answers.append(lambda _capture, number: (True, picture(200, 100, seed=number))),
    }
    return Source(make, clock, linger, unplug, device.touch, faults=faults, mend=mend)


def _picamera(tmp_path: Path) -> Source:
    clock, pi, cameras = ManualClock(), Pi(tmp_path), list[PipedCamera]()

    def make(rotate: Rotation = 0) -> Camera:
        cameras.append(pi.camera(size=(320, 240), rotate=rotate, stale_after_s=STALE_S, clock=clock))
        return cameras[-1]

    def linger() -> None:
        clock.sleep(1)
        await_pictures(cameras[-1], 5)

    def unplug() -> None:
        pi.plan(list="usb only", capture="die")

    faults: dict[str, Callable[[], None]] = {
        "hangs": lambda: pi.plan(capture="hang"),
        "freezes": lambda: pi.plan(frozen=True),
        "loops": lambda: pi.plan(loop=6),
        "floods": lambda: pi.plan(frame_s=0.0001),
        "lies": lambda: pi.plan(size=(200, 100)),
    }
    return Source(make, clock, linger, unplug, pi.plan, name="CSI camera 0", faults=faults, mend=pi.plan)


def _gstreamer(tmp_path: Path) -> Source:
    clock, gst, cameras = ManualClock(), Gst(tmp_path), list[PipedCamera]()

    pipelines = [MOVING]

    def make(rotate: Rotation = 0) -> Camera:
        cameras.append(gst.camera(pipelines[-1], size=(320, 240), rotate=rotate, stale_after_s=STALE_S, clock=clock))
        return cameras[-1]

    def linger() -> None:
        clock.sleep(1)
        await_pictures(cameras[-1], 5)

    def unplug() -> None:
        gst.uninstall()
        kill_process(cameras[-1])

    faults: dict[str, Callable[[], None]] = {
        "hangs": lambda: stop_process(cameras[-1]),
        "freezes": lambda: pipelines.append("videotestsrc is-live=true pattern=gradient"),
        "loops": lambda: pipelines.append("videotestsrc is-live=true pattern=blink foreground-color=0xff2040ff"),
        "floods": lambda: pipelines.append("videotestsrc horizontal-speed=3"),
    }
    return Source(
        make, clock, linger, unplug, gst.install, orientation=False, name="videotestsrc", faults=faults,
        mend=lambda: pipelines.append(MOVING),
    )  # fmt: skip


PARAMS = ["picture", "folder", "clip", "v4l2", "picamera", pytest.param("gstreamer", marks=needs_gstreamer)]


@pytest.fixture(params=PARAMS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "picture":
        file = tmp_path / "face.png"
        return _replay(file, lambda: write_picture(file, picture()))
    if request.param == "folder":
        folder = tmp_path / "faces"
        return _replay(folder, lambda: _folder(folder))
    if request.param == "clip":
        file = tmp_path / "clip.avi"
        return _replay(file, lambda: write_clip(file, 25), orientation=False)
    return {"v4l2": _v4l2, "picamera": _picamera, "gstreamer": _gstreamer}[request.param](tmp_path)


@pytest.fixture
def camera(source: Source) -> Iterator[Camera]:
    with source.make() as opened:
        yield opened


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(CameraError) as raised:
        act()
    assert raised.value.message.startswith("cannot ")
    return raised.value.code


def test_frames_are_8_bit_colour_of_the_size_that_the_camera_names(camera: Camera) -> None:
    image = camera.read(5).image
    assert image.dtype == np.uint8
    assert (image.shape[1], image.shape[0], image.shape[2]) == (*camera.size, 3)
    assert image.flags.c_contiguous
    assert camera.size == (320, 240)


def test_index_rises_and_capture_times_are_of_the_clock_and_never_fall(source: Source, camera: Camera) -> None:
    last_index, last_s = -1, 0.0
    for _ in range(8):
        frame = camera.read(5)
        assert frame.index > last_index
        assert last_s <= frame.captured_at_s <= source.clock()
        last_index, last_s = frame.index, frame.captured_at_s


def test_no_two_frames_are_the_same_picture(camera: Camera) -> None:
    pictures = {camera.read(5).image.tobytes() for _ in range(10)}
    assert len(pictures) == 10


def test_a_slow_reader_gets_the_newest_frame_and_misses_the_others(source: Source, camera: Camera) -> None:
    before = camera.read(5)
    source.linger()
    after = camera.read(5)
    assert after.index > before.index + 3
    assert source.clock() - after.captured_at_s <= STALE_S


def test_a_frame_belongs_to_its_receiver(camera: Camera) -> None:
    first = camera.read(5)
    kept = first.image.copy()
    second = camera.read(5)
    assert np.array_equal(first.image, kept)
    untouched = second.image.copy()
    first.image[:] = 0
    assert np.array_equal(second.image, untouched)
    assert camera.read(5).image.mean() > 5


@pytest.mark.parametrize(("rotate", "brightest"), [(90, "left"), (180, "left"), (270, "right")])
def test_pictures_are_turned_clockwise(source: Source, rotate: Rotation, brightest: str) -> None:
    with source.make(rotate) as camera:
        image = camera.read(5).image
        assert (image.shape[1], image.shape[0]) == camera.size == ((320, 240) if rotate == 180 else (240, 320))
    if source.orientation:
        top, bottom, left, right = (
            float(part.mean()) for part in (image[:40], image[-40:], image[:, :40], image[:, -40:])
        )
        # unturned, it is brightest on the right and brighter at the bottom than at the top
        assert (left > right) is (brightest == "left")
        assert (top > bottom) is (rotate in {180, 270})


def test_a_closed_camera_cannot_be_read(source: Source) -> None:
    camera = source.make()
    assert code_of(lambda: camera.read(1)) == "camera_unavailable"
    camera.open()
    camera.read(5)
    camera.close()
    camera.close()
    assert code_of(lambda: camera.read(1)) == "camera_unavailable"


def test_opening_twice_does_nothing_and_reopening_counts_anew(source: Source, camera: Camera) -> None:
    for _ in range(3):
        camera.read(5)
    source.linger()
    before = camera.read(5).index
    camera.open()
    assert camera.read(5).index > before
    camera.close()
    camera.open()
    assert camera.read(5).index < before


def test_a_missing_source_cannot_be_opened_and_the_error_says_what_to_try(source: Source) -> None:
    with source.make():
        source.unplug()
    camera = source.make()
    with pytest.raises(CameraError) as raised:
        camera.open()
    assert raised.value.code == "camera_unavailable"
    assert raised.value.hint
    camera.close()


def test_a_source_that_goes_away_is_unavailable_until_it_is_opened_again(source: Source, camera: Camera) -> None:
    camera.read(5)
    source.unplug()

    def read_on() -> None:
        for _ in range(100):
            camera.read(5)

    assert code_of(read_on) == "camera_unavailable"
    source.plug_in()
    camera.close()
    camera.open()
    assert camera.read(5).image.any()


def test_the_description_names_the_source(source: Source, camera: Camera, tmp_path: Path) -> None:
    assert (source.name or str(tmp_path)) in camera.description


HARDWARE = pytest.mark.parametrize("source", PARAMS[3:], indirect=True)
"""A file neither hangs nor repeats itself."""


@HARDWARE
def test_a_source_that_hangs_is_noticed_in_time_closed_in_time_and_opened_again(source: Source, camera: Camera) -> None:
    camera.read(5)
    source.faults["hangs"]()
    began_s = time.monotonic()

    def read_on() -> None:
        for _ in range(200):
            camera.read(0.2)

    assert code_of(read_on) == "camera_stalled"
    camera.close()
    assert time.monotonic() - began_s < 5
    source.mend()
    camera.open()
    assert camera.read(5).image.any()


@HARDWARE
def test_a_source_that_repeats_its_picture_is_never_taken_for_a_live_one(source: Source) -> None:
    source.faults["freezes"]()
    with source.make() as camera:
        # opening shows that it delivers; before the clock moves on, nobody can know
        source.linger()
        source.clock.sleep(2)

        def read_on() -> None:
            for _ in range(200):
                camera.read(5)

        with pytest.raises(CameraError, match="repeats its last picture") as raised:
            read_on()
        assert (raised.value.code, raised.value.retryable) == ("camera_frozen", True)
        assert code_of(lambda: camera.read(1)) == "camera_frozen"
        camera.close()
        source.mend()
        camera.open()
        for _ in range(3):
            camera.read(5)


@HARDWARE
def test_a_source_that_plays_the_same_pictures_over_and_over_is_never_taken_for_a_live_one(source: Source) -> None:
    source.faults["loops"]()

    def look() -> None:
        with source.make() as camera:
            for _ in range(200):
                camera.read(5)

    with pytest.raises(CameraError, match="came again") as raised:
        look()
    assert (raised.value.code, raised.value.retryable) == ("frame_loop", True)
    source.mend()
    with source.make() as camera:
        assert camera.read(5).image.any()


@HARDWARE
def test_a_source_that_floods_is_read_at_the_readers_pace_and_stays_fresh(source: Source) -> None:
    source.faults["floods"]()
    with source.make() as camera:
        indexes = []
        for _ in range(3):
            source.linger()
            frame = camera.read(5)
            assert source.clock() - frame.captured_at_s <= STALE_S
            indexes.append(frame.index)
        assert indexes == sorted(set(indexes))


@pytest.mark.parametrize("source", ["v4l2", "picamera"], indirect=True)
def test_a_source_that_lies_about_its_size_is_known_by_what_it_delivers(source: Source) -> None:
    source.faults["lies"]()
    with source.make() as camera:
        assert camera.size == (200, 100)
        image = camera.read(5).image
        assert (image.shape[1], image.shape[0]) == (200, 100)
