"""Which camera the settings mean."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edge_agent.camera import open_camera
from edge_agent.camera.discovery import VideoDevice, first_capture_device, parse, query
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError
from tests.camera.sources import ManualClock, picture, write_picture

CAPTURE, OUTPUT, M2M, META, DEVICE_CAPS = 0x1, 0x2, 0x8000, 0x00800000, 0x80000000


def test_a_replay_takes_size_rate_rotation_and_clock_from_the_settings(tmp_path: Path) -> None:
    clock = ManualClock()
    settings = CameraSection(
        source="replay", path=write_picture(tmp_path / "a.png", picture()), size=(400, 300), fps=4, rotate=90
    )
    with open_camera(settings, clock=clock, sleep=clock.sleep) as camera:
        frames = [camera.read(1) for _ in range(3)]
    assert [f.captured_at_s for f in frames] == [1000.0, 1000.25, 1000.5]
    assert frames[0].image.shape == (400, 300, 3)


@pytest.mark.parametrize("source", ["v4l2", "auto"])
def test_a_named_device_is_taken(source: Literal["v4l2", "auto"], tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no such device") as raised:
        open_camera(CameraSection(source=source, device=str(tmp_path / "video7")))
    assert "video7" in raised.value.message


def test_none_is_refused_with_a_hint() -> None:
    with pytest.raises(CameraError, match="none") as raised:
        open_camera(CameraSection(source="none"))
    assert raised.value.hint


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({"video0": VideoDevice("uvcvideo", "HD Webcam", CAPTURE)}, "video0"),
        ({"video1": VideoDevice("uvcvideo", "b", CAPTURE), "video0": VideoDevice("uvcvideo", "a", META)}, "video1"),
        ({"video10": VideoDevice("bcm2835-codec", "x", CAPTURE | OUTPUT | M2M), "video0": None}, None),
        ({"video10": VideoDevice("uvcvideo", "x", CAPTURE), "video9": VideoDevice("uvcvideo", "y", CAPTURE)}, "video9"),
        ({"video0": VideoDevice("unicam", "raw sensor", CAPTURE)}, None),
        ({"video-cam": VideoDevice("uvcvideo", "a link", CAPTURE)}, None),
        ({}, None),
    ],
)
def test_the_first_device_that_captures_colour_is_found(
    tmp_path: Path, devices: dict[str, VideoDevice | None], expected: str | None
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    if expected is not None:
        assert first_capture_device(tmp_path, ask=lambda p: devices[p.name]) == str(tmp_path / expected)
        return
    with pytest.raises(CameraError) as raised:
        first_capture_device(tmp_path, ask=lambda p: devices[p.name])
    assert raised.value.code == "camera_unavailable"
    assert "replay" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("capabilities", "device_caps", "captures"),
    [
        (
            CAPTURE | META | DEVICE_CAPS,
            META,
            False,
        ),  # the metadata node of a webcam: the driver captures, this node not
        (CAPTURE | META | DEVICE_CAPS, CAPTURE, True),
        (CAPTURE, 0, True),  # an old driver without device_caps
    ],
)
def test_the_kernels_answer_is_read(capabilities: int, device_caps: int, captures: bool) -> None:
    answer = struct.pack("=16s32s32sIII12x", b"uvcvideo", b"HD Webcam", b"usb-1", 0x60000, capabilities, device_caps)
    assert len(answer) == 104
    found = parse(answer)
    assert (found.driver, found.card, found.captures) == ("uvcvideo", "HD Webcam", captures)


def test_what_is_no_video_device_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(np.zeros(4, np.uint8).tobytes())
    assert query(tmp_path / "video0") is None
    assert query(tmp_path / "video1") is None
