"""Which camera the settings mean."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edge_agent.camera import make_camera, open_camera
from edge_agent.camera.auto import Machine, has_element
from edge_agent.camera.discovery import VideoDevice, first_capture_device, parse, query
from edge_agent.camera.picamera import CsiCamera
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError
from tests.camera.gst import needs_gstreamer
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


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        (CameraSection(source="picamera"), "CSI camera 0"),
        (CameraSection(source="picamera", device="1"), "CSI camera 1"),
        (CameraSection(source="gstreamer", pipeline="videotestsrc is-live=true"), "gstreamer source videotestsrc"),
        (CameraSection(source="v4l2", device="/dev/video3"), "camera /dev/video3"),
    ],
)
def test_a_named_source_is_taken_with_size_and_rotation(settings: CameraSection, description: str) -> None:
    camera = make_camera(settings.model_copy(update={"size": (640, 480), "rotate": 90}))
    assert (camera.description, camera.size) == (description, (480, 640))


Found = tuple[str, VideoDevice | None]
WEBCAM = VideoDevice("uvcvideo", "HD Webcam", CAPTURE)
PI: list[Found] = [
    ("/dev/video0", VideoDevice("unicam", "unicam", CAPTURE)),
    ("/dev/video10", VideoDevice("codec", "x", M2M)),
]
PI5: list[Found] = [("/dev/video0", VideoDevice("rp1-cfe", "rp1-cfe", CAPTURE))]
JETSON: list[Found] = [("/dev/video0", VideoDevice("tegra-video", "vi-output, imx219", CAPTURE))]
USB: list[Found] = [("/dev/video2", WEBCAM)]
IMX708 = CsiCamera(0, "/base/imx708", "imx708")


def no_picamera2() -> list[CsiCamera]:
    raise CameraError("cannot use the CSI cameras: picamera2 is not installed", hint="sudo apt install it")


def machine(devices: list[Found], *, csi: list[CsiCamera] | None = None, argus: bool = False) -> Machine:
    return Machine(
        devices=lambda: devices,
        csi=no_picamera2 if csi is None else lambda: csi,
        element=lambda name: argus and name == "nvarguscamerasrc",
    )


@pytest.mark.parametrize(
    ("what", "has", "description"),
    [
        ("a Pi with a camera", machine(PI, csi=[IMX708]), "CSI camera 0"),
        ("a Pi 5", machine(PI5, csi=[IMX708]), "CSI camera 0"),
        ("a Pi with both", machine([*PI, *USB], csi=[IMX708]), "CSI camera 0"),
        ("a Pi with both, but without picamera2", machine([*PI, *USB]), "camera /dev/video2"),
        ("a Pi whose ribbon is loose, and a webcam", machine([*PI, *USB], csi=[]), "camera /dev/video2"),
        ("a Jetson", machine(JETSON, argus=True), "gstreamer source nvarguscamerasrc"),
        ("a Jetson without its GStreamer, and a webcam", machine([*JETSON, *USB]), "camera /dev/video2"),
        ("a PC", machine([("/dev/video0", None), *USB]), "camera /dev/video2"),
    ],
)
def test_auto_takes_what_the_machine_has(what: str, has: Machine, description: str) -> None:
    assert make_camera(CameraSection(), machine=has).description == description, what


@pytest.mark.parametrize(
    ("has", "words"),
    [
        (machine([]), ["no /dev/video* is there"]),
        (
            machine(PI),
            ["a CSI camera is connected, but", "picamera2 is not installed", "sudo apt install", "none of the 2"],
        ),
        (machine(PI5, csi=[]), ["a CSI interface is there, but libcamera lists no camera on it"]),
        (machine(JETSON), ["GStreamer has no nvarguscamerasrc", "nvidia-l4t-gstreamer"]),
        (machine([("/dev/video0", None)]), ["none of the 1", "1 could not be asked", "group video"]),
    ],
)
def test_where_there_is_no_camera_everything_that_was_tried_is_told(has: Machine, words: list[str]) -> None:
    with pytest.raises(CameraError, match="cannot find a camera: ") as raised:
        make_camera(CameraSection(), machine=has)
    assert [word for word in words if word not in raised.value.message] == []
    assert "--list-cameras" in str(raised.value.hint)


def test_a_named_device_is_not_looked_for() -> None:
    camera = make_camera(CameraSection(device="/dev/video9"), machine=machine(PI, csi=[IMX708]))
    assert camera.description == "camera /dev/video9"


@needs_gstreamer
def test_gstreamer_is_asked_for_its_elements() -> None:
    assert has_element("videotestsrc")
    assert not has_element("nosuchsrc")


def test_without_gstreamer_there_is_no_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not has_element("videotestsrc")


def test_this_machine_is_looked_at_without_harm() -> None:
    assert isinstance(Machine().devices(), list)
