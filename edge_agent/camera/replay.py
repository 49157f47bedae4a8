"""A camera that plays a picture, a folder of pictures or a clip.

- A **picture** is shown as a person standing still would look (see ``sway``), for as long as it is read.
- A **folder**: its pictures sorted by name, each for ``hold_s``.
- A **clip** (by its suffix): its own frames, at its own size and rate.

In real time frames fall due by the clock and late readers skip some, as with a camera. As fast as possible, every
read gives the next frame, and each picture of a folder is shown once. While nobody reads, a replay pauses: at most
a second of it is skipped between two reads.

What ``path`` names may be exchanged while it plays (write beside it, then rename over it): the replay goes on with
the new content at the next frame. While it is missing or unreadable, reads fail with camera_unavailable or
camera_format, as if the camera were unplugged.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Literal, Protocol

from edge_agent.camera.clip import CLIP_SUFFIXES, Clip
from edge_agent.camera.port import Camera, Clock, Rotation, Sleep, not_open, stalled, upright, upright_size
from edge_agent.camera.stills import PICTURE_SUFFIXES, Stills
from edge_agent.errors import CameraError
from edge_agent.types import Frame, Image

Pace = Literal["real_time", "fast"]
_LONGEST_SKIP_S = 1.0


class Recording(Protocol):
    """What is played: frames by number, at a rate."""

    fps: float
    size: tuple[int, int]

    def image(self, number: int) -> Image | None:
        """Frame ``number`` from 0, a fresh array; None behind the end. Numbers must not decrease."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class ReplayCamera(Camera):
    """Plays ``path``. ``size`` and ``fps`` hold for pictures; a clip has its own."""

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int] = (1280, 720),
        fps: float = 15.0,
        rotate: Rotation = 0,
        stale_after_s: float = 1.0,
        pace: Pace = "real_time",
        loop: bool = True,
        hold_s: float = 2.0,
        seed: int = 0,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._path, self._size, self._fps, self._rotate = path, size, fps, rotate
        self._stale_after_s, self._pace, self._loop, self._hold_s, self._seed = stale_after_s, pace, loop, hold_s, seed
        self._clock, self._sleep = clock, sleep
        self._recording: Recording | None = None
        self._signature: object = None
        self._open = False
        self._index = -1
        self._number = -1
        self._started_s = 0.0
        self._easy = False

    @property
    def description(self) -> str:
        return f"replay of {self._path}"

    @property
    def size(self) -> tuple[int, int]:
        return upright_size(self._recording.size if self._recording else self._size, self._rotate)

    def open(self) -> None:
        if self._open:
            return
        self._load(_signature(self._path))
        self._open, self._index, self._easy = True, -1, False

    def ease(self, fps: float | None) -> None:
        """At ease it goes on only while it is read: passing over a clip's frames would cost as much as showing them."""
        self._easy = fps is not None

    def close(self) -> None:
        self._unload()
        self._open = False

    def read(self, timeout_s: float) -> Frame:
        if not self._open:
            raise not_open(self.description)
        recording = self._current()
        number, due_s = self._wait(recording, timeout_s)
        image = recording.image(number)
        if image is None:
            raise CameraError(f"cannot read on from {self.description}: it is over", code="end_of_source")
        self._index += number - self._number
        self._number = number
        return Frame(upright(image, self._rotate), due_s, self._index)

    def _wait(self, recording: Recording, timeout_s: float) -> tuple[int, float]:
        """Number and capture time of the next frame, when it is due. Raises CameraError camera_stalled."""
        now_s = self._clock()
        if self._pace == "fast":
            return self._number + 1, now_s
        number = max(self._number + 1, int((now_s - self._started_s) * recording.fps))
        number -= self._pause(number - self._number - 1, recording.fps)
        if now_s - self._due_s(recording, number) > self._stale_after_s:
            number += 1  # at a very low rate even the newest frame may be too old
        due_s = self._due_s(recording, number)
        wait_s = due_s - now_s
        if wait_s > timeout_s:
            self._sleep(timeout_s)
            raise stalled(self.description, timeout_s)
        if wait_s > 0:
            self._sleep(wait_s)
        return number, due_s

    def _pause(self, missed: int, fps: float) -> int:
        """How many of the frames that fell due unseen are put off, so that skipping stays quick."""
        put_off = max(0, missed if self._easy else missed - math.ceil(_LONGEST_SKIP_S * fps))
        self._started_s += put_off / fps
        return put_off

    def _due_s(self, recording: Recording, number: int) -> float:
        return self._started_s + number / recording.fps

    def _current(self) -> Recording:
        """The recording of what ``path`` names now."""
        signature = _signature(self._path)
        if self._recording is None or signature != self._signature:
            self._load(signature)
        if self._recording is None:
            raise not_open(self.description)
        return self._recording

    def _load(self, signature: object) -> None:
        self._unload()
        self._recording = self._recording_of(self._path)
        self._signature = signature
        self._number, self._started_s = -1, self._clock()

    def _unload(self) -> None:
        if self._recording is not None:
            self._recording.close()
        self._recording = None

    def _recording_of(self, path: Path) -> Recording:
        if not path.is_dir() and path.suffix.lower() in CLIP_SUFFIXES:
            return Clip(path, default_fps=self._fps, loop=self._loop)
        shots = 1 if self._pace == "fast" else max(1, round(self._hold_s * self._fps))
        files = _pictures_of(path) if path.is_dir() else [path]
        return Stills(files, size=self._size, fps=self._fps, shots=shots, loop=self._loop, seed=self._seed)


def _signature(path: Path) -> object:
    """Changes when the file, or any picture of the folder, is exchanged. Raises CameraError when it is missing."""
    try:
        if path.is_dir():
            return [(str(file), *_identity(file)) for file in _pictures_of(path)]
        return _identity(path)
    except OSError as exc:
        raise _missing(path, exc) from exc


def _missing(path: Path, exc: OSError) -> CameraError:
    return CameraError(
        f"cannot read the replay {path}: {exc.strerror}", hint="camera.path names a picture, a folder or a clip"
    )


def _identity(file: Path) -> tuple[int, int, int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _pictures_of(folder: Path) -> list[Path]:
    """The folder's pictures by name. Raises CameraError where there is none."""
    try:
        found = sorted(folder.iterdir())
    except OSError as exc:
        raise _missing(folder, exc) from exc
    files = [f for f in found if f.suffix.lower() in PICTURE_SUFFIXES and not f.name.startswith(".")]
    if not files:
        raise CameraError(
            f"cannot replay the folder {folder}: there is no picture in it",
            hint=f"put pictures there ({' '.join(sorted(PICTURE_SUFFIXES))})",
        )
    return files
