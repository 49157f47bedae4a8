"""Where a capturing thread leaves its newest picture, and the reader finds it; and whether pictures still change."""

from __future__ import annotations

import threading
from hashlib import blake2b

import numpy as np

from edge_agent.camera.port import stalled
from edge_agent.errors import CameraError
from edge_agent.types import Frame, Image

SAMPLE_STEP_PX = 8
"""Every so many pixels in both directions are compared: a sensor's noise changes any sample of this size."""
FROZEN_AFTER_S = 2.0
MIN_REPEATS = 3
"""A webcam may deliver a picture twice when light is low; no sensor delivers the same one for so long."""
DARK_LEVEL = 24
"""A covered lens can give equal black pictures honestly; where no pixel is brighter than this, nothing is concluded."""


class CameraFrozen(CameraError):
    """It goes on delivering one and the same picture (camera_unavailable)."""


class Newest:
    """One slot: a newer picture replaces the older one, so nothing ever queues. ``description`` is for errors."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._failure: CameraError | None = None

    @property
    def index(self) -> int:
        """Of the newest picture; -1 before the first."""
        frame = self._frame
        return -1 if frame is None else frame.index

    def publish(self, frame: Frame) -> None:
        with self._changed:
            self._frame = frame
            self._changed.notify_all()

    def fail(self, error: CameraError) -> None:
        """Every wait from now on raises ``error``, also where a picture is there: it is of a camera that is no more."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def wait(self, *, after: int, not_before_s: float, timeout_s: float) -> Frame:
        """Wait for a picture with a higher index than ``after``, captured at ``not_before_s`` or later.

        Raises CameraError: camera_stalled after ``timeout_s``, or what ``fail`` was given.
        """

        def news() -> bool:
            frame = self._frame
            fresh = frame is not None and frame.index > after and frame.captured_at_s >= not_before_s
            return fresh or self._failure is not None

        with self._changed:
            if not self._changed.wait_for(news, timeout_s):
                raise stalled(self._description, timeout_s)
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._frame is None:
                raise AssertionError("a camera without a picture or a failure")
            return self._frame


class ChangeWatch:
    """Notices a camera that repeats its last picture: told each one, it raises when they stopped to change."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._digest = b""
        self._since_s = 0.0
        self._repeats = 0

    def see(self, image: Image, now_s: float) -> None:
        """``image``: uint8 (H, W) or (H, W, 3). Raises CameraFrozen."""
        sample = np.ascontiguousarray(image[::SAMPLE_STEP_PX, ::SAMPLE_STEP_PX])
        digest = blake2b(sample.tobytes(), digest_size=16).digest()
        if digest != self._digest or int(sample.max()) <= DARK_LEVEL:
            self._digest, self._since_s, self._repeats = digest, now_s, 0
            return
        self._repeats += 1
        if self._repeats >= MIN_REPEATS and now_s - self._since_s >= FROZEN_AFTER_S:
            raise CameraFrozen(
                f"cannot use the pictures of {self._description}: it repeats its last picture",
                hint="it is opened again; when this comes back, renew its cable and its power",
                retryable=True,
            )
