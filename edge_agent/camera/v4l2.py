"""A camera behind Linux' video interface, through OpenCV.

One thread of its own opens the device, grabs without a pause and keeps only the newest picture; ``read`` waits for
the next one. So the driver's queue never ages, and a driver that hangs inside a call hangs that thread, not the
caller: ``open``, ``read`` and ``close`` end in time whatever the device does. Only that thread touches OpenCV's
capture, because releasing it under a running read is not safe; one that hangs is left behind (a daemon thread, which
frees the device if it ever returns), and the supervisor's next step is to start the process anew.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from edge_agent.camera.guard import FrameGuard
from edge_agent.camera.newest import Newest
from edge_agent.camera.port import Camera, Clock, Rotation, checked, not_open, upright, upright_size
from edge_agent.errors import CameraError
from edge_agent.types import Frame, Image

log = logging.getLogger(__name__)

OpenCapture = Callable[[str], Any]
"""Opens a device and gives something with the methods of ``cv2.VideoCapture``."""

_FAILURES_IN_A_ROW = 5
"""Reads that may fail one after the other: a damaged MJPG picture is one failed read, an unplugged camera fails all."""


def _open_capture(device: str) -> Any:
    return cv2.VideoCapture(device, cv2.CAP_V4L2)


class V4l2Camera(Camera):
    """The device at path ``device``; ``size`` and ``fps`` are what it is asked for."""

    def __init__(
        self,
        device: str,
        *,
        size: tuple[int, int] = (1280, 720),
        fps: float = 15.0,
        rotate: Rotation = 0,
        stale_after_s: float = 1.0,
        open_timeout_s: float = 10.0,
        close_timeout_s: float = 2.0,
        clock: Clock = time.monotonic,
        open_capture: OpenCapture = _open_capture,
    ) -> None:
        self._device, self._size, self._fps, self._rotate = device, size, fps, rotate
        self._stale_after_s, self._open_timeout_s, self._close_timeout_s = (
            stale_after_s,
            open_timeout_s,
            close_timeout_s,
        )
        self._clock, self._open_capture = clock, open_capture
        self._grabber: _Grabber | None = None
        self._handed_out = -1

    @property
    def description(self) -> str:
        return f"camera {self._device}"

    @property
    def size(self) -> tuple[int, int]:
        return upright_size(self._size, self._rotate)

    def open(self) -> None:
        if self._grabber is not None:
            return
        _check_device(self._device)
        grabber = _Grabber(self._device, self._opened, self._clock)
        try:
            first = grabber.newest.wait(after=-1, not_before_s=-math.inf, timeout_s=self._open_timeout_s)
            self._note_size(first.image)
        except CameraError:
            grabber.stop(self._close_timeout_s)
            raise
        self._grabber, self._handed_out = grabber, -1

    def read(self, timeout_s: float) -> Frame:
        if self._grabber is None:
            raise not_open(self.description)
        frame = self._grabber.newest.wait(
            after=self._handed_out, not_before_s=self._clock() - self._stale_after_s, timeout_s=timeout_s
        )
        self._handed_out = frame.index
        self._note_size(frame.image)
        return Frame(upright(checked(frame.image, self.description), self._rotate), frame.captured_at_s, frame.index)

    def ease(self, fps: float | None) -> None:
        if self._grabber is not None:
            self._grabber.gap_s = 0.0 if fps is None else 1 / fps

    def close(self) -> None:
        if self._grabber is not None:
            self._grabber.stop(self._close_timeout_s)
        self._grabber = None

    def _opened(self) -> Any:
        """The capture, set up; runs in the grabber's thread. Raises CameraError."""
        capture = self._open_capture(self._device)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"cannot open {self.description}: it is not a camera, or another program uses it",
                hint=f"fuser {self._device} shows who uses it; v4l2-ctl --list-devices shows the cameras",
            )
        # the pixel format first: sizes and rates are offered per format, and uncompressed 720p is too much for USB 2
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        capture.set(cv2.CAP_PROP_FPS, self._fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _note_size(self, image: Image) -> None:
        """Take over the size that really comes."""
        picture = checked(image, self.description)
        actual = (picture.shape[1], picture.shape[0])
        if actual != self._size:
            log.warning(
                "%s delivers %dx%d, not the %dx%d asked for: going on with what it delivers",
                self.description, *actual, *self._size,
            )  # fmt: skip
            self._size = actual


class _Grabber:
    """The thread that owns the capture and leaves its pictures in ``newest``."""

    def __init__(self, device: str, opened: Callable[[], Any], clock: Clock) -> None:
        self._device, self._opened, self._clock = device, opened, clock
        self.newest = Newest(f"camera {device}")
        self._guard = FrameGuard(f"camera {device}")
        self._stopping = False
        self.gap_s = 0.0
        """Between two pictures that are decoded; the driver's queue is emptied all the same, so that it never ages."""
        self._thread = threading.Thread(target=self._run, name=f"camera {device}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread, waiting at most ``timeout_s``; one that hangs in the driver is left behind."""
        self._stopping = True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("camera %s hangs in its driver: its thread is left behind", self._device)

    def _run(self) -> None:
        try:
            capture = self._opened()
            try:
                self._grab(capture)
            finally:
                capture.release()
        except CameraError as exc:
            self.newest.fail(exc)
        except Exception as exc:  # the top of the thread: a reader must hear of everything
            self.newest.fail(CameraError(f"cannot read from camera {self._device}: {exc}"))

    def _grab(self, capture: Any) -> None:
        """Keep the newest picture until told to stop. Raises CameraError when the device is gone or frozen."""
        index = failures = 0
        taken_s = -math.inf
        while not self._stopping:
            spared = self._clock() - taken_s < self.gap_s
            found, image = (capture.grab(), None) if spared else capture.read()
            if found:
                if not spared:
                    self._take(image, index)
                    taken_s = self._clock()
                index, failures = index + 1, 0
                continue
            failures += 1
            if failures >= _FAILURES_IN_A_ROW:
                raise _lost(self._device)

    def _take(self, image: Any, index: int) -> None:
        now_s = self._clock()
        self._guard.see(checked(image, f"camera {self._device}"), now_s)
        self.newest.publish(Frame(image, now_s, index))


def _lost(device: str) -> CameraError:
    reason = "it delivers no pictures any more" if Path(device).exists() else "it is gone"
    return CameraError(
        f"cannot read from camera {device}: {reason}", hint="check the cable and its power", retryable=True
    )


def _check_device(device: str) -> None:
    """Say in advance what OpenCV would not: whether it is missing or forbidden. Raises CameraError."""
    if not Path(device).exists():
        raise CameraError(
            f"cannot open camera {device}: there is no such device",
            hint="ls /dev/video* shows the devices; set camera.device, or camera.source: auto",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise CameraError(
            f"cannot open camera {device}: permission denied",
            hint="the user needs the group video: usermod -aG video USER",
        )
