"""``camera.source: auto``: what this machine has, in this order, and in words what was looked at when there is nothing.

1. ``camera.device``, where it is set: that V4L2 device, and nothing else.
2. A Raspberry Pi's CSI camera, when the kernel has a sensor interface for one: through picamera2.
3. A Jetson's CSI camera, likewise: through GStreamer's ``nvarguscamerasrc``.
4. The first V4L2 device that captures colour pictures (a USB camera).

A CSI camera that is connected but cannot be used, for want of a package, does not hide a USB camera: that one is taken,
and the log says what is missing for the other.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.camera.discovery import VideoDevice, video_devices
from edge_agent.camera.picamera import CsiCamera, csi_cameras
from edge_agent.errors import CameraError

log = logging.getLogger(__name__)

_ARGUS = "nvarguscamerasrc"
_INSPECT_S = 20
"""GStreamer reads every plug-in anew when it has no registry yet."""
_ADVICE = (
    "plug one in and see v4l2-ctl --list-devices (USB) or rpicam-hello --list-cameras (CSI); "
    "for a trial set camera.source: replay and camera.path"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A camera that was found."""

    source: Literal["picamera", "v4l2", "gstreamer"]
    device: str | None = None
    """V4L2: the path; picamera: the number."""
    pipeline: str | None = None


def has_element(name: str) -> bool:
    """True when GStreamer is installed and knows the element."""
    program = shutil.which("gst-inspect-1.0")
    if program is None:
        return False
    try:
        return not subprocess.run([program, "--exists", name], check=False, timeout=_INSPECT_S).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be asked of the machine; tests have one of their own."""

    devices: Callable[[], list[tuple[str, VideoDevice | None]]] = field(
        default=lambda: [(str(path), answer) for path, answer in video_devices()]
    )
    csi: Callable[[], list[CsiCamera]] = csi_cameras
    element: Callable[[str], bool] = has_element


def choose(device: str | None, size: tuple[int, int], fps: float, machine: Machine | None = None) -> Choice:
    """The camera to use. Blocks for some seconds at most. Raises CameraError camera_unavailable."""
    if device is not None:
        return Choice("v4l2", device)
    machine = machine or Machine()
    devices = machine.devices()
    tried: list[str] = []
    for look in (_raspberry_pi, _jetson, _video):
        found = look(devices, machine, (size, fps), tried)
        if found is not None:
            if tried:
                log.warning("camera: taking %s (%s)", found.device or found.source, "; ".join(tried))
            return found
    raise CameraError(f"cannot find a camera: {'; '.join(tried)}", hint=_ADVICE)


_Devices = list[tuple[str, VideoDevice | None]]
_Wanted = tuple[tuple[int, int], float]


def _raspberry_pi(devices: _Devices, machine: Machine, _wanted: _Wanted, tried: list[str]) -> Choice | None:
    if not any(answer is not None and answer.is_pi_sensor for _path, answer in devices):
        return None
    try:
        cameras = machine.csi()
    except CameraError as exc:
        tried.append(f"a CSI camera is connected, but {exc.message.removeprefix('cannot ')} ({exc.hint})")
        return None
    if not cameras:
        tried.append("a CSI interface is there, but libcamera lists no camera on it")
        return None
    return Choice("picamera", str(cameras[0].number))


def _jetson(devices: _Devices, machine: Machine, wanted: _Wanted, tried: list[str]) -> Choice | None:
    if not any(answer is not None and answer.is_jetson_sensor for _path, answer in devices):
        return None
    if not machine.element(_ARGUS):
        tried.append(f"a CSI camera is connected, but GStreamer has no {_ARGUS} (nvidia-l4t-gstreamer)")
        return None
    (width, height), fps = wanted
    memory = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={round(fps)}/1"
    return Choice("gstreamer", pipeline=f"{_ARGUS} ! '{memory}' ! nvvidconv ! video/x-raw,format=BGRx")


def _video(devices: _Devices, _machine: Machine, _wanted: _Wanted, tried: list[str]) -> Choice | None:
    for path, answer in devices:
        if answer is not None and answer.captures:
            return Choice("v4l2", path)
    mute = sum(answer is None for _path, answer in devices)
    seen = (
        f"none of the {len(devices)} video devices captures colour pictures" if devices else "no /dev/video* is there"
    )
    tried.append(seen + (f" ({mute} could not be asked: is the user in the group video?)" if mute else ""))
    return None
