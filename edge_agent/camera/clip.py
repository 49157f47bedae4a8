"""A video clip as a recording, decoded by OpenCV's FFmpeg."""

from __future__ import annotations

import math
from pathlib import Path

import cv2

from edge_agent.camera.port import checked
from edge_agent.errors import CameraError
from edge_agent.types import Image

CLIP_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".mjpeg", ".mjpg"})
_FASTEST_FPS = 240.0


class Clip:
    """The frames of one file; ``fps`` is the file's rate, or ``default_fps`` where it names none that makes sense."""

    def __init__(self, path: Path, *, default_fps: float, loop: bool) -> None:
        self._path, self._loop = path, loop
        self._capture = self._opened()
        self._grabbed = -1
        """Number of the frame that was decoded last."""
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if math.isfinite(rate) and 0 < rate <= _FASTEST_FPS else default_fps
        self._first: Image | None = self._next()
        if self._first is None:
            self.close()
            raise _unusable(path)
        self.size = (self._first.shape[1], self._first.shape[0])

    def image(self, number: int) -> Image | None:
        if number == self._grabbed and self._first is not None:
            first, self._first = self._first, None
            return first
        self._first = None
        while self._grabbed < number - 1:
            if not self._skip():
                return None
        return self._next()

    def close(self) -> None:
        """Free the decoder."""
        self._capture.release()

    def _opened(self) -> cv2.VideoCapture:
        if not self._path.is_file():
            raise CameraError(f"cannot replay {self._path}: it is not a file")
        # one backend, by name: OpenCV would try all it has, reading a numbered series of pictures among them
        capture = cv2.VideoCapture(str(self._path.resolve()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            capture.release()
            raise _unusable(self._path)
        return capture

    def _skip(self) -> bool:
        """Pass over one frame without decoding it into a picture; False at the end."""
        if not self._capture.grab() and not (self._rewind() and self._capture.grab()):
            return False
        self._grabbed += 1
        return True

    def _next(self) -> Image | None:
        found, image = self._capture.read()
        if not found and self._rewind():
            found, image = self._capture.read()
        if not found:
            return None
        self._grabbed += 1
        return checked(image, str(self._path))

    def _rewind(self) -> bool:
        """Start again, if it loops and there was anything to show; opening anew works for every container."""
        if not self._loop or self._grabbed < 0:
            return False
        self._capture.release()
        self._capture = self._opened()
        return True


def _unusable(path: Path) -> CameraError:
    reason = "it is empty" if path.exists() and not path.stat().st_size else "no frame can be decoded"
    return CameraError(
        f"cannot replay the clip {path}: {reason}",
        code="camera_format",
        hint="use a clip that a video player opens (H.264 in .mp4, or .gif)",
    )
