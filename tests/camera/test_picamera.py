"""The Raspberry Pi's camera against a stand-in of picamera2: hangs, deaths, lies and garbage."""

from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.camera.guard import FrameGuard
from edge_agent.camera.picamera import PROGRAM, PicameraCamera, csi_cameras, lores_size
from edge_agent.errors import CameraError
from tests.camera.picamera import Pi
from tests.camera.processes import gone_within
from tests.camera.sources import ManualClock


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def read_on(camera: PicameraCamera, timeout_s: float = 5) -> CameraError:
    for _ in range(100):
        try:
            camera.read(timeout_s)
        except CameraError as exc:
            return exc
    raise AssertionError("every read succeeded")


def error_of(camera: PicameraCamera) -> CameraError:
    """Of opening and reading on; the process is gone afterwards."""
    pid = None
    try:
        camera.open()
        pid = camera.process_id
        return read_on(camera)
    except CameraError as exc:
        return exc
    finally:
        camera.close()
        assert pid is None or gone_within(pid, 2)


def test_the_process_file_imports_nothing_but_the_standard_library() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(Path(PROGRAM[-1]).read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def test_the_process_is_run_isolated_by_the_systems_own_python() -> None:
    assert PROGRAM[:2] == ("/usr/bin/python3", "-I")
    assert Path(PROGRAM[2]).is_file()


def test_what_picamera2_calls_rgb888_is_taken_as_blue_green_red_and_the_rows_padding_is_cut_off(pi: Pi) -> None:
    with pi.camera(size=(150, 120)) as camera:  # 450 bytes a row, 512 with padding
        image = camera.read(5).image
    assert image.shape == (120, 150, 3)
    blue, green, red = (int(v) for v in image[20, 75])
    assert blue == green + 60
    assert green == red
    assert image[20, :, 1].tolist() == [40 + 120 * x // 150 for x in range(150)]


def test_the_time_of_a_picture_is_the_sensors(pi: Pi) -> None:
    clock = ManualClock()
    pi.plan(age_s=0.4)
    with pi.camera(clock=clock) as camera:
        assert clock() - 0.8 < camera.read(5).captured_at_s <= clock() - 0.4


def test_pictures_that_are_old_by_the_sensors_clock_are_never_handed_out(pi: Pi) -> None:
    pi.plan(age_s=1.5)
    with pi.camera(stale_after_s=1.0) as camera:
        with pytest.raises(CameraError) as raised:
            camera.read(0.3)
        assert raised.value.code == "camera_stalled"
        pi.plan()
        assert camera.read(5).image.any()


def test_the_luma_plane_comes_along_and_is_what_tells_a_frozen_camera(pi: Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[np.ndarray] = []
    monkeypatch.setattr(FrameGuard, "see", lambda _self, image, _now_s: compared.append(image))
    with pi.camera(size=(640, 480)) as camera:
        camera.read(5)
    assert compared[0].shape == (240, 320)
    assert compared[0][20].tolist() == [40 + 120 * x // 320 for x in range(320)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1280, 720), (320, 180)), ((640, 480), (320, 240)), ((64, 64), (64, 64)), ((1000, 301), (320, 96))],
)
def test_the_low_resolution_stream_has_the_same_shape_and_even_sides(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert lores_size(size) == expected


@pytest.mark.parametrize(
    ("plan", "code", "message", "hint"),
    [
        ({"import": "missing"}, "camera_unavailable", "picamera2 is not installed", "apt install python3-picamera2"),
        ({"import": "broken"}, "camera_unavailable", "libcamera.so.0.5: cannot open", "--reinstall python3-picamera2"),
        ({"list": "usb only"}, "camera_unavailable", "libcamera lists no CSI camera number 0", "--list-cameras"),
        ({"open": "raise"}, "camera_unavailable", "Camera __init__ sequence did not complete", "fuser"),
        ({"open": "hang"}, "camera_unavailable", "it hung in its driver", "cable"),
        ({"capture": "silent"}, "camera_unavailable", "no frame within 0.3 s", "cable"),
        ({"capture": "hang"}, "camera_unavailable", "it hung in its driver", "cable"),
        ({"capture": "hang", "at": 3}, "camera_unavailable", "it hung in its driver", "cable"),
        ({"capture": "die", "at": 3}, "camera_unavailable", "libcamera: double free detected", "cable"),
        ({"capture": "garbage", "at": 3}, "camera_format", "what came is no message", "docs/cameras.md"),
        ({"capture": "die"}, "camera_unavailable", "libcamera: double free detected", "cable"),
        ({"capture": "raise"}, "camera_unavailable", "RuntimeError: Could not dequeue", "cable"),
        ({"capture": "garbage"}, "camera_format", "what came is no message", "docs/cameras.md"),
        ({"short": True}, "camera_format", "the main stream has", "--list-cameras"),
    ],
)
def test_every_way_to_fail_is_told_with_what_to_try_and_leaves_no_process(
    pi: Pi, plan: dict[str, Any], code: str, message: str, hint: str
) -> None:
    pi.plan(**plan)
    began_s = time.monotonic()
    error = error_of(pi.camera(open_timeout_s=1.0, silence_s=0.3))
    assert (error.code, message in error.message) == (code, True), error.message
    assert hint in str(error.hint)
    assert error.message.startswith("cannot ")
    assert time.monotonic() - began_s < 8


def test_a_wedged_process_is_replaced_when_the_camera_is_opened_again(pi: Pi) -> None:
    pi.plan(capture="hang", at=2)
    camera = pi.camera(silence_s=0.3)
    camera.open()
    wedged = camera.process_id
    assert wedged is not None
    assert "hung" in read_on(camera).message
    assert gone_within(wedged, 2)
    camera.close()
    pi.plan()
    camera.open()
    assert camera.process_id not in {None, wedged}
    assert camera.read(5).index >= 0
    camera.close()


def test_closing_a_process_that_hangs_ends_in_time(pi: Pi) -> None:
    camera = pi.camera()
    camera.open()
    pi.plan(capture="hang")
    time.sleep(0.3)  # several frames' time: it hangs by now
    began_s = time.monotonic()
    camera.close()
    assert time.monotonic() - began_s < 4


def test_slow_frames_come_when_they_come(pi: Pi) -> None:
    pi.plan(frame_s=0.3)
    with pi.camera() as camera:
        first = camera.read(2).index
        assert read_on(camera, 0.05).code == "camera_stalled"
        assert camera.read(2).index > first


_ORPHAN = """
import os
from pathlib import Path
from tests.camera.picamera import Pi
pi = Pi(Path({folder!r}))
pi.plan(capture="silent", at=1)
camera = pi.camera(silence_s=60)
camera.open()
print(camera.process_id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_process_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    agent = subprocess.run(
        [sys.executable, "-c", _ORPHAN.format(folder=str(tmp_path))], capture_output=True, text=True, check=False
    )
    assert agent.returncode == -9, agent.stderr
    assert gone_within(int(agent.stdout), 5)


def test_the_csi_cameras_are_listed_without_those_on_usb(pi: Pi) -> None:
    assert [(c.number, c.model) for c in csi_cameras(program=pi.program)] == [(0, "imx708")]
    pi.plan(list="usb only")
    assert csi_cameras(program=pi.program) == []


@pytest.mark.parametrize(
    ("plan", "message"),
    [({"import": "missing"}, "picamera2 is not installed"), ({"list": "hang"}, "it hung in its driver")],
)
def test_a_list_that_cannot_be_had_is_an_error_in_time(pi: Pi, plan: dict[str, str], message: str) -> None:
    pi.plan(**plan)
    with pytest.raises(CameraError, match=message):
        csi_cameras(program=pi.program, timeout_s=0.5)


HEADER = {
    "kind": "frame",
    "format": "RGB888",
    "width": 8,
    "height": 4,
    "stride": 24,
    "bytes": 96,
    "luma": {"format": "YUV420", "width": 4, "height": 2, "stride": 8, "bytes": 16},
    "sensor_ns": 0,
    "sequence": 0,
}


def stream(header: dict[str, Any] | bytes, pixels: int = 112) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"EDGECAM1" + len(text).to_bytes(4, "little") + text + bytes(range(pixels))


@pytest.fixture
def canned(tmp_path: Path) -> Any:
    """A camera whose process writes these bytes and waits."""
    counter = itertools.count()

    def make(data: bytes) -> PicameraCamera:
        file = tmp_path / f"{next(counter)}.bin"
        file.write_bytes(data)
        body = (
            "import json, os, sys, time; fd = json.loads(sys.argv[1])['fd']; "
            f"os.write(fd, open({str(file)!r}, 'rb').read()); time.sleep(60)"
        )
        return PicameraCamera(
            size=(8, 4), open_timeout_s=2.0, clock=ManualClock(), program=(sys.executable, "-I", "-c", body)
        )

    return make


def test_one_message_is_one_picture(canned: Any) -> None:
    with canned(stream(HEADER)) as camera:
        image = camera.read(2).image
        assert np.array_equal(image, np.arange(96, dtype=np.uint8).reshape(4, 8, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": -4},
        {"width": 20000, "stride": 60000, "bytes": 240000},
        {"stride": 23, "bytes": 92},
        {"bytes": 95},
        {"stride": 10**9, "bytes": 4 * 10**9},
        {"format": "BGR888"},
        {"width": "wide"},
        {"luma": None},
        {"luma": {**HEADER["luma"], "stride": 3}},  # type: ignore[dict-item]
        {"sequence": None},
        {"kind": "cameras", "luma": 7},
    ],
)
def test_a_header_that_cannot_be_true_is_a_wrong_format(canned: Any, change: dict[str, Any]) -> None:
    error = error_of(canned(stream({**HEADER, **change})))
    assert error.code == "camera_format"


@pytest.mark.parametrize(
    "data",
    [
        b"EDGECAM2" + bytes(200),
        b"EDGECAM1" + b"\xff\xff\xff\x7f" + bytes(200),
        stream(b"not json"),
        stream(b"[1, 2]"),
        stream(b"\xff\xfe"),
        os.urandom(500),
    ],
    ids=["magic", "length", "no json", "no object", "no text", "noise"],
)
def test_garbage_on_the_pipe_is_a_wrong_format(canned: Any, data: bytes) -> None:
    assert error_of(canned(data)).code == "camera_format"
