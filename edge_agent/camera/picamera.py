"""A Raspberry Pi's CSI camera, by picamera2 in a process of its own (``picamera_process.py``, which see).

The pictures are picamera2's RGB888, which lies in memory as B, G, R. Their time is the sensor's: SensorTimestamp is in
nanoseconds of CLOCK_BOOTTIME; its age now is taken off the monotonic clock, so a picture that waited somewhere is as old
as it is. The low-resolution luma plane that comes with each one is what tells a frozen camera.
"""

from __future__ import annotations

import json
import signal
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.camera.child import Child
from edge_agent.camera.pipe import Pipe, PipeEnded, PipeSilent
from edge_agent.camera.piped import SILENCE_S, Picture, PipedCamera
from edge_agent.camera.port import Clock, Rotation
from edge_agent.errors import CameraError
from edge_agent.types import Image

MAGIC = b"EDGECAM1"
HEADER_BYTES_MAX = 4096
SIDE_MAX_PX = 16384
PICTURE_BYTES_MAX = 256 << 20
LORES_WIDTH_PX = 320
START_S = 8.0
"""For libcamera to start, which takes one to two seconds on a Pi; the first picture has the time of any other."""
PROGRAM = ("/usr/bin/python3", "-I", str(Path(__file__).with_name("picamera_process.py")))
_INSTALL = "sudo apt install python3-picamera2"
_LOOK = "rpicam-hello --list-cameras shows what libcamera finds; check the ribbon cable, and dtoverlay in config.txt"
_FAULTS = {
    "missing": ("picamera2 is not installed", _INSTALL),
    "broken": (None, "sudo apt install --reinstall python3-picamera2"),
    "no_camera": (None, _LOOK),
    "refused": (None, "another program may use it (fuser /dev/media*); " + _LOOK),
    "silent": (None, _LOOK),
}
"""What to say of a fault's code (None: what the process said), and what to try."""


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class PicameraCamera(PipedCamera):
    """CSI camera ``number`` in picamera2's order. ``program`` is for tests."""

    def __init__(
        self,
        number: int = 0,
        *,
        size: tuple[int, int] = (1280, 720),
        fps: float = 15.0,
        rotate: Rotation = 0,
        stale_after_s: float = 1.0,
        open_timeout_s: float = START_S,
        silence_s: float = SILENCE_S,
        clock: Clock = time.monotonic,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        capture_s = max(silence_s, 3 / fps)
        wanted = {
            "camera": number,
            "size": list(size),
            "lores": list(lores_size(size)),
            "fps": fps,
            "open_s": open_timeout_s,
            "capture_s": capture_s,
        }
        super().__init__(
            _PicameraFeed(number, wanted, program),
            size=size,
            fps=fps,
            rotate=rotate,
            stale_after_s=stale_after_s,
            # the process's own limits come first: they say more
            open_timeout_s=open_timeout_s + capture_s + 2,
            silence_s=capture_s + 2,
            clock=clock,
        )


def lores_size(size: tuple[int, int]) -> tuple[int, int]:
    """The low-resolution stream's: the same shape, at most 320 px wide, even sides as YUV420 needs."""
    scale = min(1.0, LORES_WIDTH_PX / size[0])
    width, height = (max(2, int(side * scale) // 2 * 2) for side in size)
    return width, height


@dataclass(frozen=True, slots=True)
class CsiCamera:
    """One that libcamera lists."""

    number: int
    id: str
    model: str


def csi_cameras(*, program: Sequence[str] = PROGRAM, timeout_s: float = START_S) -> list[CsiCamera]:
    """What libcamera lists, without those on USB. Raises CameraError where picamera2 is missing or does not answer."""
    feed = _PicameraFeed(0, {"list": True, "open_s": timeout_s}, program)
    child = Child(feed.command, name="list of the CSI cameras", hint=feed.install_hint)
    try:
        pipe = Pipe(child.read_fd, threading.Event())
        pipe.begin(timeout_s + 1)
        found = _message(pipe, "the CSI cameras").get("cameras", [])
        return [CsiCamera(int(c["number"]), str(c["id"]), str(c["model"])) for c in found]
    except PipeEnded as ended:
        raise feed.ended(child.end(1.0), tuple(child.said), partial=ended.partial) from ended
    except PipeSilent as silent:
        raise CameraError("cannot list the CSI cameras: picamera2 does not answer", hint=_LOOK) from silent
    except (KeyError, TypeError, ValueError) as exc:
        raise _garbage("the CSI cameras", f"{exc!r}") from exc
    finally:
        child.end()
        child.release()


class _PicameraFeed:
    """Messages of ``picamera_process.py``."""

    install_hint = "the system's own Python runs picamera2: sudo apt install python3 python3-picamera2"

    def __init__(
        self,
        number: int,
        wanted: Mapping[str, object],
        program: Sequence[str],
        now_ns: Callable[[], int] = _boottime_ns,
    ) -> None:
        self._number, self._wanted, self._program, self._now_ns = number, wanted, program, now_ns
        self._hung = f"it hung in its driver, longer than {wanted.get('capture_s', wanted['open_s'])} s"

    @property
    def description(self) -> str:
        return f"CSI camera {self._number}"

    def command(self, fd: int) -> Sequence[str]:
        return [*self._program, json.dumps({**self._wanted, "fd": fd})]

    def picture(self, pipe: Pipe) -> Picture:
        header = _message(pipe, self.description)
        try:
            main, luma = _Plane.of(header, 3, "RGB888"), _Plane.of(header["luma"], 1, "YUV420")
            sensor_ns, sequence = int(header["sensor_ns"]), int(header["sequence"])
        except (KeyError, TypeError, ValueError) as exc:
            raise _garbage(self.description, f"{exc}") from exc
        image, small = main.read(pipe), luma.read(pipe)
        age_s = max(0.0, (self._now_ns() - sensor_ns) / 1e9) if sensor_ns else 0.0
        return Picture(image, age_s, sequence, small)

    def ended(self, status: int, said: Sequence[str], *, partial: bool) -> CameraError:
        last = said[-1] if said else f"exit status {status}"
        why = self._hung if status == -signal.SIGALRM else f"its capture process ended ({last})"
        amid = " amid a picture" if partial else ""
        return CameraError(f"cannot read from {self.description}: {why}{amid}", hint=_LOOK, retryable=True)


@dataclass(frozen=True, slots=True)
class _Plane:
    """How one plane lies in the pipe."""

    width: int
    height: int
    stride: int
    channels: int

    @classmethod
    def of(cls, header: Mapping[str, Any], channels: int, pixel_format: str) -> _Plane:
        """Raises KeyError, TypeError and ValueError for what cannot be true."""
        plane = cls(int(header["width"]), int(header["height"]), int(header["stride"]), channels)
        if header["format"] != pixel_format:
            raise ValueError(f"its format is {header['format']!r}, not {pixel_format}")
        if not (0 < plane.width <= SIDE_MAX_PX and 0 < plane.height <= SIDE_MAX_PX):
            raise ValueError(f"its size is {plane.width}x{plane.height}")
        size = plane.stride * plane.height
        if plane.stride < plane.width * channels or size > PICTURE_BYTES_MAX or header["bytes"] != size:
            raise ValueError(f"{header['bytes']} bytes are no {plane.width}x{plane.height} of stride {plane.stride}")
        return plane

    def read(self, pipe: Pipe) -> Image:
        """uint8 (H, W, 3), or (H, W) of one channel, without the padding of the rows."""
        rows: Image = np.empty((self.height, self.stride), np.uint8)
        pipe.read_into(rows.data)
        shape = (self.height, self.width, self.channels) if self.channels > 1 else (self.height, self.width)
        return np.ascontiguousarray(rows[:, : self.width * self.channels]).reshape(shape)


def _message(pipe: Pipe, source: str) -> dict[str, Any]:
    """The next header. Raises CameraError for garbage, and for what the process reports."""
    start = bytearray(len(MAGIC) + 4)
    pipe.read_into(start)
    (length,) = struct.unpack_from("<I", start, len(MAGIC))
    if not start.startswith(MAGIC) or length > HEADER_BYTES_MAX:
        raise _garbage(source, "what came is no message")
    text = bytearray(length)
    pipe.read_into(text)
    header: Any = None
    with suppress(ValueError):
        header = json.loads(text)
    if not isinstance(header, dict):
        raise _garbage(source, "a header is not JSON")
    if header.get("kind") == "error":
        raise _fault(source, str(header.get("code")), str(header.get("detail")))
    return header


def _fault(source: str, code: str, detail: str) -> CameraError:
    why, hint = _FAULTS.get(code, (None, _LOOK))
    return CameraError(
        f"cannot use {source}: {why or detail}",
        code="camera_format" if code == "size" else "camera_unavailable",
        hint=hint,
        retryable=code not in {"missing", "broken"},
    )


def _garbage(source: str, why: str) -> CameraError:
    return CameraError(
        f"cannot use the pictures of {source}: {why}",
        code="camera_format",
        hint="the capture process and edge-agent must be of one version; see docs/cameras.md",
        retryable=True,
    )
