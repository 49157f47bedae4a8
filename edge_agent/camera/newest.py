"""Where a capturing thread leaves its newest picture, and the reader finds it."""

from __future__ import annotations

import threading

from edge_agent.camera.port import stalled
from edge_agent.errors import CameraError
from edge_agent.types import Frame


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
