"""A camera behind ``gst-launch-1.0``: the operator names the source, we fix what comes out of it.

``camera.pipeline`` is the source's part of a pipeline in gst-launch's syntax, for example
``rtspsrc location=rtsp://… latency=0 ! decodebin`` or ``nvarguscamerasrc ! nvvidconv``. It is split into arguments here
and never sees a shell; gst-launch-1.0 is the only program that is started. Behind it we put the conversion to BGRx of
``camera.size``, a queue of one picture that drops the older one, and a sink into a descriptor of its own, apart from
anything the program prints.

- *Rate*: ``videorate drop-only=true`` drops what is more than ``camera.fps`` and repeats nothing, because a repeated
  picture would look fresh.
- *Time*: a picture's time is its arrival. GStreamer's time stamps count from the pipeline's own start and do not cross
  the pipe.
- *Size*: what is read is cut into pictures of exactly ``camera.size``; bytes left over at the end are camera_format.
"""

from __future__ import annotations

import logging
import math
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from edge_agent.camera.pipe import Pipe
from edge_agent.camera.piped import OPEN_TIMEOUT_S, SILENCE_S, Picture, PipedCamera
from edge_agent.camera.port import Clock, Rotation
from edge_agent.errors import CameraError
from edge_agent.types import Image

log = logging.getLogger(__name__)

PROGRAM = "gst-launch-1.0"
_SETPRIV = "/usr/bin/setpriv"
"""Part of every Debian: ends the program when the thread that started it ends, whatever ends that."""
_GUARD_S = 5.0
_INSTALL = "sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
_ERROR = re.compile(r"ERROR: from element (?:\S*/)?(?:\w+:)?([\w-]+): (?P<what>.+)")
_WRONG = re.compile(r"WARNING: erroneous pipeline: (?P<what>.+)")
_ECHOES = ("state change failed", "Internal data stream error", "Internal data flow error")
"""What elements report when another one, or the same before, has told the reason."""
_NO_ELEMENT = re.compile(r'no element "(?P<name>[^"]+)"')


def tokens(pipeline: str) -> list[str]:
    """The arguments that ``pipeline`` stands for. Raises CameraError where it is none, or would be more than one."""
    try:
        found = shlex.split(pipeline)
    except ValueError as exc:
        raise _unusable(str(exc).lower()) from exc
    if not found:
        raise _unusable("it is empty")
    options = [token for token in found if token.startswith("-")]
    if options:
        raise _unusable(f"{options[0]} is an option of gst-launch-1.0, not an element")
    if found[0] == "!" or found[-1] == "!":
        raise _unusable("it begins or ends with '!'")
    return found


def _unusable(why: str) -> CameraError:
    return CameraError(
        f"cannot use camera.pipeline: {why}",
        hint="give the source's part only, such as: v4l2src device=/dev/video0 ! jpegdec",
    )


class GstreamerCamera(PipedCamera):
    """``program`` is for tests. Raises CameraError for a pipeline that cannot be one."""

    def __init__(
        self,
        pipeline: str,
        *,
        size: tuple[int, int] = (1280, 720),
        fps: float = 15.0,
        rotate: Rotation = 0,
        stale_after_s: float = 1.0,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        silence_s: float = SILENCE_S,
        clock: Clock = time.monotonic,
        program: str = PROGRAM,
    ) -> None:
        super().__init__(
            _GstFeed(tokens(pipeline), size, fps, program),
            size=size,
            fps=fps,
            rotate=rotate,
            stale_after_s=stale_after_s,
            open_timeout_s=open_timeout_s,
            silence_s=silence_s,
            clock=clock,
        )


class _GstFeed:
    """Raw BGRx pictures of one size, one behind the other."""

    install_hint = _INSTALL

    def __init__(self, source: list[str], size: tuple[int, int], fps: float, program: str) -> None:
        self._source, self._size, self._fps, self._program = source, size, fps, program

    @property
    def description(self) -> str:
        """Without the arguments: they may hold a password."""
        return f"gstreamer source {self._source[0]}"

    def command(self, fd: int) -> Sequence[str]:
        program = shutil.which(self._program)
        if program is None:
            raise CameraError(f"cannot start {self._program}: it is not installed", hint=_INSTALL)
        return [*_guard(), program, "-q", *self._source, "!", *_converted(self._size, self._fps), f"fd={fd}"]

    def picture(self, pipe: Pipe) -> Picture:
        width, height = self._size
        raw: Image = np.empty((height, width, 4), np.uint8)
        pipe.read_into(raw.data)
        image: Image = cv2.cvtColor(raw, cv2.COLOR_BGRA2BGR)
        return Picture(image, 0.0, None, image)

    def ended(self, status: int, said: Sequence[str], *, partial: bool) -> CameraError:
        why = _why(said)
        if partial and why is None:
            return CameraError(
                f"cannot use the pictures of {self.description}: the bytes are no multiple of a "
                f"{self._size[0]}x{self._size[1]} picture",
                code="camera_format",
                hint="try the pipeline by hand: see docs/cameras.md",
            )
        return CameraError(
            f"cannot read from {self.description}: {why or f'it ended (exit status {status})'}",
            hint=_hint(why),
            retryable=True,
        )


@cache
def _guard() -> tuple[str, ...]:
    """What ends the program together with us, where it can be had.

    Under the service's filter of system calls setpriv fails, whatever it is asked for (it always sets capabilities);
    there systemd ends every process of the service.
    """
    guard = (_SETPRIV, "--pdeathsig", "KILL", "--")
    try:
        found = subprocess.run([*guard, "/bin/true"], capture_output=True, timeout=_GUARD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        log.debug("setpriv cannot be used: %s", exc)
        return ()
    return guard if found.returncode == 0 else ()


def _converted(size: tuple[int, int], fps: float) -> list[str]:
    caps = f"video/x-raw,format=BGRx,width={size[0]},height={size[1]},pixel-aspect-ratio=1/1"
    return [
        "videorate", "drop-only=true", f"max-rate={math.ceil(fps)}", "!",
        "videoconvert", "!", "videoscale", "!", caps, "!",
        "queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0", "!",
        "fdsink", "sync=false",
    ]  # fmt: skip


def _why(said: Sequence[str]) -> str | None:
    """The one line that helps: the first error that is not the echo of another, without the path to the element."""
    found = [f"{m.group(1)}: {m.group('what')}" for line in said if (m := _ERROR.search(line))]
    found += [m.group("what") for line in said if (m := _WRONG.search(line))]
    telling = [error for error in found if not any(echo in error for echo in _ECHOES)]
    return next(iter(telling or found), None)


def _hint(why: str | None) -> str:
    if why and (missing := _NO_ELEMENT.search(why)):
        return f"gst-inspect-1.0 {missing.group('name')} must find it; {_INSTALL}"
    return "try the pipeline by hand: see docs/cameras.md"
