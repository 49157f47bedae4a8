"""Whether pictures come from a sensor that lives: told every picture of a source, it objects to what no sensor does.

Two faults, both of the device and neither of them a verdict on anybody:

- ``camera_frozen``: one and the same picture, three times in a row at least and for two seconds;
- ``frame_loop``: a picture that was there before, within ten seconds and not directly before: something plays a
  recording to us, or a driver hands out its buffers again.

A real sensor's noise changes every picture, so what is compared may be a sample of the pixels: a repeated picture repeats
the sample too, so none is missed, and two pictures that differ are taken for one only where thousands of samples are
all without noise. At 1280x720 that takes 0.26 ms of a PC's core, a CRC of the whole picture 1.6. Whether a picture came
before is told by 128 bits: CRC-32 would save another tenth of a millisecond, and of the 150 pictures of ten seconds it
would take one for another once in some 30 million frames, every few days on a fleet of a hundred terminals that film for
an hour a day.

Where the whole picture is blank (nothing but black, as with a covered lens, or nothing but white) nothing is concluded:
a sensor does deliver equal pictures then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b
from math import isqrt

import numpy as np

from edge_agent.errors import CameraError
from edge_agent.types import Image

SAMPLE_PX = 14_400
"""About so many pixels are compared, evenly spread: each 8th of each 8th row at 1280x720."""
FROZEN_AFTER_S = 2.0
MIN_REPEATS = 2
"""Three equal pictures. Alone they are no proof: a webcam repeats pictures when light is low, and a network camera that
compresses sends a still scene as "nothing changed" for a while."""
LOOP_WITHIN_S = 10.0
DARK_LEVEL, WHITE_LEVEL = 24, 250
"""8-bit levels: a picture without a pixel that is brighter, or without one that is darker, is blank."""


class FrameFault(CameraError):
    """What came are pictures, and no sensor delivers such ones."""


class CameraFrozen(FrameFault):
    """It goes on delivering one and the same picture."""

    code = "camera_frozen"


class FrameLoop(FrameFault):
    """It delivers pictures that were there before."""

    code = "frame_loop"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a picture is known by."""

    digest: bytes
    blank: bool


def mark_of(image: Image) -> Mark:
    """``image``: uint8 (H, W) or (H, W, 3)."""
    step = max(1, isqrt(image.shape[0] * image.shape[1] // SAMPLE_PX))
    sample = np.ascontiguousarray(image[::step, ::step])
    blank = int(sample.max()) <= DARK_LEVEL or int(sample.min()) >= WHITE_LEVEL
    return Mark(blake2b(sample.data, digest_size=16).digest(), blank)


class ChangeWatch:
    """Notices a camera that repeats its last picture: told each one, it raises when they stopped to change."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._digest = b""
        self._since_s = 0.0
        self._repeats = 0

    def see(self, image: Image, now_s: float) -> None:
        """Raises CameraFrozen."""
        self.note(mark_of(image), now_s)

    def note(self, mark: Mark, now_s: float) -> bool:
        """True when the picture is another one than the last. Raises CameraFrozen."""
        if mark.digest != self._digest or mark.blank:
            changed = mark.digest != self._digest
            self._digest, self._since_s, self._repeats = mark.digest, now_s, 0
            return changed
        self._repeats += 1
        if self._repeats >= MIN_REPEATS and now_s - self._since_s >= FROZEN_AFTER_S:
            raise CameraFrozen(
                f"cannot use the pictures of {self._description}: it repeats its last picture",
                hint="it is opened again; when this comes back, renew its cable and its power",
                retryable=True,
            )
        return False


class FrameGuard:
    """One per opening of a source, told every picture of it, also those that nobody reads."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._changes = ChangeWatch(description)
        self._shown_s: dict[bytes, float] = {}
        """When each picture of the last seconds was there last."""
        self._order: deque[tuple[float, bytes]] = deque()

    def see(self, image: Image, now_s: float) -> None:
        """``now_s``: monotonic. Raises CameraFrozen or FrameLoop."""
        mark = mark_of(image)
        changed = self._changes.note(mark, now_s)
        if mark.blank:
            return
        self._forget(now_s - LOOP_WITHIN_S)
        before_s = self._shown_s.get(mark.digest)
        if changed and before_s is not None:
            raise self._loop(now_s - before_s)
        self._shown_s[mark.digest] = now_s
        self._order.append((now_s, mark.digest))

    def _forget(self, before_s: float) -> None:
        while self._order and self._order[0][0] < before_s:
            at_s, digest = self._order.popleft()
            if self._shown_s.get(digest) == at_s:
                del self._shown_s[digest]

    def _loop(self, ago_s: float) -> FrameLoop:
        return FrameLoop(
            f"cannot use the pictures of {self._description}: one of {ago_s:.1f} s ago came again",
            hint="no sensor does that: look for a recording or a program in place of the camera (docs/cameras.md)",
            retryable=True,
        )
