"""The V4L2 camera against what OpenCV's capture is documented to do: fail, block, die, lie about its size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.camera.v4l2 import V4l2Camera
from edge_agent.errors import CameraError
from tests.camera.sources import FakeCapture, ManualClock


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "video0"
    path.touch()
    return path


@pytest.fixture
def capture() -> Iterator[FakeCapture]:
    fake = FakeCapture()
    yield fake
    fake.freed.set()
    assert not fake.asked or fake.released.wait(10)


def v4l2(device: Path, capture: FakeCapture, clock: ManualClock | None = None, **more: Any) -> V4l2Camera:
    more = {"size": (320, 240), "close_timeout_s": 5.0, **more}
    return V4l2Camera(str(device), clock=clock or ManualClock(), open_capture=lambda _device: capture, **more)


def error_of(camera: V4l2Camera, timeout_s: float = 5.0, *, reads: int = 100) -> CameraError:
    for _ in range(reads):
        try:
            camera.read(timeout_s)
        except CameraError as exc:
            return exc
    raise AssertionError("every read succeeded")


def test_format_size_rate_and_a_short_queue_are_asked_for_the_format_first(device: Path, capture: FakeCapture) -> None:
    with v4l2(device, capture, fps=12.0):
        pass
    assert capture.settings == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 320),
        (cv2.CAP_PROP_FRAME_HEIGHT, 240),
        (cv2.CAP_PROP_FPS, 12.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]
    assert capture.released.is_set()


def test_a_camera_that_does_not_open_says_who_may_hold_it(device: Path, capture: FakeCapture) -> None:
    capture.opens = False
    with pytest.raises(CameraError, match="another program uses it") as raised:
        v4l2(device, capture).open()
    assert raised.value.code == "camera_unavailable"
    assert "fuser" in str(raised.value.hint)
    assert capture.released.is_set()


def test_a_missing_device_and_a_forbidden_one_are_told_apart(
    tmp_path: Path, device: Path, capture: FakeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CameraError, match="no such device"):
        v4l2(tmp_path / "video9", capture).open()
    monkeypatch.setattr("edge_agent.camera.v4l2.os.access", lambda _path, _mode: False)
    with pytest.raises(CameraError, match="permission denied") as raised:
        v4l2(device, capture).open()
    assert "video" in str(raised.value.hint)


def test_a_silent_camera_is_a_stall_within_the_timeout_and_recovers(device: Path, capture: FakeCapture) -> None:
    capture.hang_at = 3
    with v4l2(device, capture) as camera:
        assert capture.hanging.wait(10)
        camera.read(5)
        error = error_of(camera, 0.01, reads=1)
        assert (error.code, error.retryable) == ("camera_stalled", True)
        capture.hang_at = None
        capture.freed.set()
        assert camera.read(5).index >= 3


def test_a_frame_that_grew_stale_is_never_handed_out(device: Path, capture: FakeCapture) -> None:
    clock = ManualClock()
    capture.hang_at = 3
    with v4l2(device, capture, clock, stale_after_s=1.0) as camera:
        assert capture.hanging.wait(10)
        clock.sleep(1.01)
        assert error_of(camera, 0.01, reads=1).code == "camera_stalled"
        capture.freed.set()


def test_a_frame_is_handed_out_once(device: Path, capture: FakeCapture) -> None:
    capture.hang_at = 3
    with v4l2(device, capture) as camera:
        assert capture.hanging.wait(10)
        assert camera.read(5).index == 2
        assert error_of(camera, 0.01, reads=1).code == "camera_stalled"
        capture.freed.set()


def test_a_damaged_picture_now_and_then_is_passed_over(device: Path, capture: FakeCapture) -> None:
    capture.answer = lambda number: (False, None) if number % 5 else capture.a_picture(number)
    with v4l2(device, capture) as camera:
        assert [camera.read(5).index for _ in range(4)][-1] >= 3


@pytest.mark.parametrize(("there", "word"), [(False, "it is gone"), (True, "no pictures any more")])
def test_a_camera_that_dies_is_unavailable(device: Path, capture: FakeCapture, there: bool, word: str) -> None:
    with v4l2(device, capture) as camera:
        camera.read(5)
        if not there:
            device.unlink()
        capture.answer = lambda _number: (False, None)
        error = error_of(camera)
        assert (error.code, error.retryable) == ("camera_unavailable", True)
        assert word in error.message
        assert error_of(camera, reads=1).code == "camera_unavailable"
    assert capture.released.is_set()


def test_another_size_than_asked_for_is_logged_and_used(
    device: Path, capture: FakeCapture, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), v4l2(device, capture, size=(1280, 720), rotate=90) as camera:
        assert camera.size == (240, 320)
        assert camera.read(5).image.shape == (320, 240, 3)
        camera.read(5)
    assert [r.getMessage() for r in caplog.records] == [
        f"camera {device} delivers 320x240, not the 1280x720 asked for: going on with what it delivers"
    ]


@pytest.mark.parametrize(
    "image",
    [np.zeros((240, 320), np.uint8), np.zeros((240, 320, 3), np.uint16), np.zeros((0, 0, 3), np.uint8), None],
    ids=["grey", "16-bit", "empty", "none"],
)
def test_what_is_no_8_bit_colour_picture_is_refused_and_the_device_is_freed(
    device: Path, capture: FakeCapture, image: np.ndarray | None
) -> None:
    capture.answer = lambda _number: (True, image)
    with pytest.raises(CameraError) as raised:
        v4l2(device, capture).open()
    assert raised.value.code == "camera_format"
    assert capture.released.is_set()


def test_an_exception_inside_opencv_reaches_the_reader(device: Path, capture: FakeCapture) -> None:
    def broken(number: int) -> Any:
        if number > 2:
            raise cv2.error("VIDIOC_DQBUF")
        return capture.a_picture(number)

    capture.answer = broken
    with v4l2(device, capture) as camera:
        error = error_of(camera)
    assert error.code == "camera_unavailable"
    assert "VIDIOC_DQBUF" in error.message


def test_a_driver_that_hangs_while_opening_ends_in_time(device: Path, capture: FakeCapture) -> None:
    hang = threading.Event()

    def never(_device: str) -> FakeCapture:
        hang.wait(20)
        return capture

    camera = V4l2Camera(str(device), open_timeout_s=0.01, close_timeout_s=0.01, open_capture=never)
    with pytest.raises(CameraError) as raised:
        camera.open()
    assert raised.value.code == "camera_stalled"
    hang.set()
    assert capture.released.wait(10)


def test_closing_a_camera_that_hangs_ends_in_time_and_it_is_freed_when_the_driver_returns(
    device: Path, capture: FakeCapture, caplog: pytest.LogCaptureFixture
) -> None:
    capture.hang_at = 1
    camera = v4l2(device, capture, close_timeout_s=0.01)
    camera.open()
    assert capture.hanging.wait(10)
    camera.close()
    assert "hangs in its driver" in caplog.text
    assert not capture.released.is_set()
    capture.freed.set()
    assert capture.released.wait(10)


def test_opencv_itself_refuses_what_is_no_camera(device: Path) -> None:
    with pytest.raises(CameraError, match="not a camera"):
        V4l2Camera(str(device)).open()


def test_at_ease_the_queue_is_emptied_and_few_pictures_are_decoded(device: Path, capture: FakeCapture) -> None:
    clock = ManualClock()
    with v4l2(device, capture, clock) as camera:
        camera.ease(5.0)
        capture.wait_for(2)
        camera.read(5)
        decoded = capture.decoded
        capture.wait_for(20)
        assert capture.decoded - decoded <= 1
        with pytest.raises(CameraError) as stall:
            camera.read(0.01)
        assert stall.value.code == "camera_stalled"
        clock.sleep(0.25)
        assert camera.read(5).captured_at_s == clock()
        camera.ease(None)
        decoded = capture.decoded
        capture.wait_for(20)
        assert capture.decoded - decoded >= 18


def test_a_camera_that_dies_at_ease_is_unavailable(device: Path, capture: FakeCapture) -> None:
    with v4l2(device, capture) as camera:
        camera.ease(1.0)
        capture.answer = lambda _: (False, None)
        assert error_of(camera).code == "camera_unavailable"
