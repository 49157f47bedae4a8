"""Which of the machine's video devices is a camera.

``/dev/video*`` also holds codecs, image processors, metadata streams and raw sensors; only the kernel's answer to
VIDIOC_QUERYCAP tells (linux/videodev2.h).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import CameraError

_QUERYCAP = 0x80685600
"""_IOR('V', 0, struct v4l2_capability); the struct has 104 bytes."""
_CAPABILITY = struct.Struct("=16s32s32sIII12x")
"""driver, card, bus_info, version, capabilities, device_caps, reserved."""
_HAS_DEVICE_CAPS = 0x80000000
_VIDEO_CAPTURE = 0x00000001
_VIDEO_M2M = 0x00008000
_CSI_DRIVERS = frozenset({"unicam", "rp1-cfe"})
"""The Raspberry Pi's sensor interfaces (before and since the Pi 5): they have devices when a sensor answered."""
_JETSON_DRIVERS = frozenset({"tegra-video"})
"""Jetson's sensor interface, likewise."""
_RAW_DRIVERS = _CSI_DRIVERS | _JETSON_DRIVERS | {"bcm2835-isp", "pispbe"}
"""They capture, but raw: the pictures come through libcamera or Argus."""


@dataclass(frozen=True, slots=True)
class VideoDevice:
    """What the kernel says of one device."""

    driver: str
    card: str
    capabilities: int

    @property
    def captures(self) -> bool:
        """True for a camera whose pictures can be used as they come."""
        return (
            bool(self.capabilities & _VIDEO_CAPTURE)
            and not self.capabilities & _VIDEO_M2M
            and self.driver not in _RAW_DRIVERS
        )

    @property
    def is_pi_sensor(self) -> bool:
        """True for a CSI camera of a Raspberry Pi."""
        return self.driver in _CSI_DRIVERS

    @property
    def is_jetson_sensor(self) -> bool:
        """True for a CSI camera of a Jetson."""
        return self.driver in _JETSON_DRIVERS


def query(path: Path) -> VideoDevice | None:
    """Ask the kernel; None where the device does not answer or may not be opened."""
    answer = bytearray(_CAPABILITY.size)
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _QUERYCAP, answer)
        finally:
            os.close(device)
    except OSError:
        return None
    return parse(bytes(answer))


def parse(answer: bytes) -> VideoDevice:
    """Read a struct v4l2_capability (104 bytes)."""
    driver, card, _bus, _version, capabilities, device_caps = _CAPABILITY.unpack(answer)
    return VideoDevice(
        driver.rstrip(b"\0").decode(errors="replace"),
        card.rstrip(b"\0").decode(errors="replace"),
        device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities,
    )


def video_devices(
    folder: Path = Path("/dev"), *, ask: Callable[[Path], VideoDevice | None] = query
) -> list[tuple[Path, VideoDevice | None]]:
    """``video*`` of the folder, by number, with what the kernel says of each."""
    paths = sorted((d for d in folder.glob("video*") if d.name[5:].isdigit()), key=lambda device: int(device.name[5:]))
    return [(path, ask(path)) for path in paths]


def first_capture_device(folder: Path = Path("/dev"), *, ask: Callable[[Path], VideoDevice | None] = query) -> str:
    """Path of the first camera among ``video*`` of the folder, by number. Raises CameraError camera_unavailable."""
    devices = video_devices(folder, ask=ask)
    for path, answer in devices:
        if answer is not None and answer.captures:
            return str(path)
    seen = f"none of the {len(devices)} video devices captures colour pictures" if devices else "there is none"
    raise CameraError(
        f"cannot find a camera: {seen}",
        hint="plug one in and see v4l2-ctl --list-devices; for a trial set camera.source: replay and camera.path",
    )
