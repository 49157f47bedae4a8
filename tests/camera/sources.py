"""The sources under test: a clock that only moves when told, pictures, clips, and a stand-in for OpenCV's capture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_agent.types import Image


class ManualClock:
    """Monotonic seconds that pass only by ``sleep``."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


def picture(width: int = 320, height: int = 240, *, seed: int = 1) -> Image:
    """Smooth colours, brighter to the right and to the bottom, so that orientation shows."""
    rng = np.random.default_rng(seed)
    blobs = cv2.resize(rng.integers(0, 60, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    ramp = np.linspace(20, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    levels: Image = (blobs + ramp).clip(0, 255).astype(np.uint8)
    return levels


def write_picture(file: Path, image: Image) -> Path:
    """By atomic rename, as the demo does it."""
    beside = file.with_name("." + file.name)
    found, data = cv2.imencode(file.suffix, image)
    assert found
    beside.write_bytes(data.tobytes())
    beside.rename(file)
    return file


def write_clip(file: Path, frames: int, *, fps: float = 10.0, size: tuple[int, int] = (320, 240)) -> Path:
    """Motion JPEG; frame i is grey with the level 20 + 8 i."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 + 8 * number, np.uint8))
    writer.release()
    return file


class FakeCapture:
    """Behaves like cv2.VideoCapture: free-running pictures, failures, a driver that hangs, another size."""

    def __init__(self, size: tuple[int, int] = (320, 240), *, opens: bool = True) -> None:
        self.size, self.opens = size, opens
        self.asked = False
        self.settings: list[tuple[int, float]] = []
        self.released = threading.Event()
        self.delivered = 0
        self.decoded = 0
        self.answer: Callable[[int], tuple[bool, Image | None]] = self.a_picture
        self.hang_at: int | None = None
        self.hanging, self.freed = threading.Event(), threading.Event()
        self._moved = threading.Condition()
        self._pace = threading.Event()
        self._base = picture(*size)

    def isOpened(self) -> bool:
        self.asked = True
        return self.opens

    def set(self, prop: int, value: float) -> bool:
        self.settings.append((prop, value))
        return True

    def release(self) -> None:
        self.released.set()

    def grab(self) -> bool:
        found, _ = self.read()
        self.decoded -= 1
        return found

    def read(self) -> tuple[bool, Image | None]:
        assert not self.released.is_set(), "read after release"
        if self.hang_at is not None and self.delivered >= self.hang_at:
            self.hanging.set()
            self.freed.wait(20)
            return False, None
        self._pace.wait(0.001)
        answer = self.answer(self.delivered)
        with self._moved:
            self.delivered += 1
            self.decoded += 1
            self._moved.notify_all()
        return answer

    def a_picture(self, number: int) -> tuple[bool, Image | None]:
        image = self._base.copy()
        image[:4, :4] = number % 256, number // 256 % 256, 0  # no picture comes again
        return True, image

    def wait_for(self, more: int) -> None:
        """Until that many more reads have ended."""
        with self._moved:
            target = self.delivered + more
            assert self._moved.wait_for(lambda: self.delivered >= target, 10)
