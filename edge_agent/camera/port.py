"""The camera port: what every source of frames promises, in prose.

A camera is owned by **one thread** (the agent gives it a named worker): ``open``, ``read`` and ``close`` are called
from it only, block it, and each ends within a bound. What is true of every implementation:

- *Newest frame.* ``read`` gives the newest frame that was not handed out before, never one out of a queue: a slow
  reader misses frames (``Frame.index`` counts captured frames, so gaps show) and does not fall behind.
- *Fresh.* A frame older than ``stale_after_s`` is never handed out: it may show somebody else. ``captured_at_s`` is
  in seconds of the injected monotonic clock and never decreases.
- *Owned.* ``Frame.image`` is uint8 (H, W, 3) BGR, C-contiguous, turned upright by ``camera.rotate``, and belongs to
  the receiver: the camera does not write to it again.
- *Honest.* ``size`` is what is delivered, which may differ from what was asked for.

Errors are CameraError with one of six codes:

===================  =================================================================================================
camera_unavailable   the device or file is missing, refuses or went away, or the camera is not open
camera_frozen        it delivers one and the same picture (see ``guard``)
frame_loop           it delivers pictures that were there before (see ``guard``)
camera_stalled       no fresh frame came within the time given; a later ``read`` may succeed
camera_format        what came is not a picture that can be used
end_of_source        a finite replay is over; it stays over until the camera is closed and opened again
===================  =================================================================================================

Every source that captures shows each of its pictures to a ``guard.FrameGuard``. A replay does not: it repeats on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Literal, Protocol, Self

import cv2
import numpy as np

from edge_agent.errors import CameraError
from edge_agent.types import Frame, Image

Clock = Callable[[], float]
"""Monotonic seconds."""

Sleep = Callable[[float], None]
"""Blocks for that many seconds of the clock."""

Rotation = Literal[0, 90, 180, 270]
"""Degrees clockwise."""

_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Camera(Protocol):
    """A source of frames; see the module for what holds of all of them."""

    @property
    def description(self) -> str:
        """For people: what kind of source, and which one."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px of the frames, after rotation; what was asked for until the camera is open."""
        ...

    def open(self) -> None:
        """Start the source; frames count from 0 again. Does nothing when it is open.

        Raises CameraError (camera_unavailable, camera_stalled, camera_format); then it is closed.
        """
        ...

    def read(self, timeout_s: float) -> Frame:
        """Give the newest frame not handed out before, waiting at most ``timeout_s`` for one.

        Raises CameraError (see the module).
        """
        ...

    def ease(self, fps: float | None) -> None:
        """From now on about ``fps`` frames per second are enough, so spare the processor; None: all of them again.

        What could be older than it says is thrown away with None: the next frame is taken after that. A camera that
        cannot do with less ignores it, as this does. Opening it means all of them.
        """
        del fps

    def close(self) -> None:
        """Stop the source and free the device. Does nothing when it is closed; never raises."""
        ...

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def upright(image: Image, rotate: Rotation) -> Image:
    """Turn the picture clockwise by ``rotate`` degrees."""
    turned: Image = cv2.rotate(image, _ROTATIONS[rotate]) if rotate else image
    return turned


def upright_size(size: tuple[int, int], rotate: Rotation) -> tuple[int, int]:
    """(width, height) of a picture of ``size`` after ``upright``."""
    return (size[1], size[0]) if rotate in {90, 270} else size


def checked(image: object, source: str) -> Image:
    """The picture, when it is uint8 (H, W, 3) with at least one pixel. Raises CameraError camera_format."""
    if not isinstance(image, np.ndarray):
        raise CameraError(f"cannot use the picture from {source}: it is not an array of pixels", code="camera_format")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise CameraError(
            f"cannot use the picture from {source}: it is {image.dtype} {image.shape}, not 8-bit colour",
            code="camera_format",
            hint="choose a camera or mode that delivers 8-bit colour (MJPG or YUYV)",
        )
    return np.ascontiguousarray(image)


def not_open(description: str) -> CameraError:
    """The error of reading from a closed camera."""
    return CameraError(f"cannot read from {description}: it is not open", code="camera_unavailable")


def stalled(description: str, timeout_s: float) -> CameraError:
    """The error of a camera that gave no fresh frame in time."""
    return CameraError(
        f"cannot read from {description}: no fresh frame within {timeout_s:g} s",
        code="camera_stalled",
        hint="check the cable; the camera is opened again if it stays silent",
        retryable=True,
    )
