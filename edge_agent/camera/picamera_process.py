"""The capture process of a Raspberry Pi's CSI camera: frames from picamera2 into a pipe.

This file stands alone: the standard library and picamera2, run by the system's own Python (``/usr/bin/python3 -I``),
never imported by edge-agent. picamera2 comes from apt together with the libcamera it fits, and apt's packages and ours
(numpy) do not mix in one process.

    picamera_process.py '{"fd": 5, "camera": 0, "size": [1280, 720], "lores": [320, 180], "fps": 15, ...}'
    picamera_process.py '{"fd": 5, "list": true, ...}'

What goes into the pipe is a row of messages, each

    8 bytes   "EDGECAM1"
    4 bytes   length of the header, little-endian
    header    JSON: {"kind": "frame", ...} | {"kind": "cameras", ...} | {"kind": "error", "code": ..., "detail": ...}
    pixels    after a frame: header["bytes"] of the main picture, then header["luma"]["bytes"] of the luma plane

A frame's header: ``format`` (picamera2's name), ``width``, ``height``, ``stride`` (bytes per row), ``bytes``
(= stride * height); ``luma``: the same of the low-resolution stream's Y plane, 8 bits per pixel; ``sequence`` counts the
frames captured from 0; ``sensor_ns``: SensorTimestamp, nanoseconds of CLOCK_BOOTTIME when the first row was exposed
(libcamera's control_ids), 0 where the camera gives none; ``exposure_us``, ``gain``: numbers or null.

Facts of picamera2 that this rests on (its manual, appendix A, and its capture_request):

- the format it calls RGB888 lies in memory as B, G, R: what OpenCV calls BGR;
- YUV420 begins with ``height`` rows of Y, each ``stride`` bytes long; on a Pi 4 the lores stream has to be YUV;
- with ``queue=False`` a capture waits for the next frame instead of handing out the last one kept;
- ``capture_request(wait=False)`` gives a job, and ``wait(job, timeout=…)`` bounds waiting for it; the request has to be
  released, or the camera runs out of buffers.

Every call into picamera2 has a deadline. It is the kernel's alarm clock with its default action, the end of the
process: a hang inside native code that holds the interpreter cannot be ended from within in any other way. And the
process ends when its standard input does, that is, when the agent is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAGIC = b"EDGECAM1"
MAIN_FORMAT = "RGB888"
LORES_FORMAT = "YUV420"


class Fault(Exception):
    """What the agent is to hear: a code and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """The process dies of SIGALRM when the body takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def send(fd: int, header: dict[str, Any], *parts: memoryview) -> None:
    """Write one message. The agent always reads; without it, this raises BrokenPipeError."""
    text = json.dumps(header).encode()
    for part in (memoryview(MAGIC + struct.pack("<I", len(text)) + text), *parts):
        left = part
        while left:
            left = left[os.write(fd, left) :]


def end_with_the_agent() -> None:
    """Standard input is a pipe that nothing is written to: its end is the agent's end."""

    def watch() -> None:
        while os.read(0, 64):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def picamera_class() -> Any:
    try:
        return importlib.import_module("picamera2").Picamera2
    except ImportError as exc:
        if exc.name == "picamera2":
            raise Fault("missing", "picamera2 is not installed for " + sys.executable) from exc
        raise Fault("broken", "picamera2 cannot be imported: " + str(exc)) from exc


def cameras(found: Any) -> list[dict[str, Any]]:
    """The CSI cameras, in picamera2's order; those on USB are V4L2's business."""
    return [
        {"number": number, "id": str(camera.get("Id", "")), "model": str(camera.get("Model", ""))}
        for number, camera in enumerate(found.global_camera_info())
        if "/usb" not in str(camera.get("Id", ""))
    ]


def opened(wanted: dict[str, Any]) -> Any:
    """A started camera. Raises Fault."""
    found = picamera_class()
    number = wanted["camera"]
    if number not in [camera["number"] for camera in cameras(found)]:
        raise Fault("no_camera", f"libcamera lists no CSI camera number {number}")
    try:
        camera = found(number)
        frame_us = round(1_000_000 / wanted["fps"])
        camera.configure(
            camera.create_video_configuration(
                main={"size": tuple(wanted["size"]), "format": MAIN_FORMAT},
                lores={"size": tuple(wanted["lores"]), "format": LORES_FORMAT},
                controls={"FrameDurationLimits": (frame_us, frame_us)},
                buffer_count=4,
                queue=False,
                display=None,
                encode=None,
            )
        )
        camera.start()
    except Exception as exc:  # whatever libcamera makes of it
        raise Fault("refused", f"picamera2 cannot open the camera: {type(exc).__name__}: {exc}") from exc
    return camera


def plane(request: Any, camera: Any, stream: str) -> tuple[dict[str, Any], memoryview]:
    """Header and bytes of a stream's first plane: all of RGB888, the Y rows of YUV420. Raises Fault."""
    config = camera.camera_configuration()[stream]
    width, height = config["size"]
    stride = config["stride"]
    pixels = memoryview(request.make_buffer(stream)).cast("B")
    size = stride * height
    if len(pixels) < size:
        raise Fault("size", f"the {stream} stream has {len(pixels)} bytes, not the {size} it names")
    header = {"format": config["format"], "width": width, "height": height, "stride": stride, "bytes": size}
    return header, pixels[:size]


def number_or_none(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def capture(camera: Any, limit_s: float) -> tuple[dict[str, Any], memoryview, memoryview]:
    """One frame: header and the two planes. Raises Fault."""
    job = camera.capture_request(wait=False)
    try:
        request = camera.wait(job, timeout=limit_s)
    except TimeoutError as exc:
        raise Fault("silent", f"no frame within {limit_s:g} s") from exc
    try:
        metadata = request.get_metadata()
        header, main = plane(request, camera, "main")
        luma_header, luma = plane(request, camera, "lores")
    finally:
        request.release()
    header.update(
        kind="frame",
        luma=luma_header,
        sensor_ns=int(metadata.get("SensorTimestamp") or 0),
        exposure_us=number_or_none(metadata.get("ExposureTime")),
        gain=number_or_none(metadata.get("AnalogueGain")),
    )
    return header, main, luma


def film(fd: int, wanted: dict[str, Any]) -> None:
    """Frames for ever. Raises Fault, BrokenPipeError."""
    with deadline(wanted["open_s"]):
        camera = opened(wanted)
    sequence = 0
    while True:
        with deadline(wanted["capture_s"] + 1):  # the softer limit within it says more
            header, main, luma = capture(camera, wanted["capture_s"])
        header["sequence"] = sequence
        sequence += 1
        send(fd, header, main, luma)


def main() -> None:
    wanted = json.loads(sys.argv[1])
    fd = wanted["fd"]
    os.dup2(2, 1)  # what a library prints is no picture
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_the_agent()
    try:
        if wanted.get("list"):
            with deadline(wanted["open_s"]):
                found = cameras(picamera_class())
            send(fd, {"kind": "cameras", "cameras": found})
            return
        film(fd, wanted)
    except Fault as fault:
        send(fd, {"kind": "error", "code": fault.code, "detail": fault.detail})
    except BrokenPipeError:
        pass
    except Exception as exc:  # the agent is to hear of everything
        send(fd, {"kind": "error", "code": "failed", "detail": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stderr.flush()
        os._exit(0)  # libcamera's own clean-up at exit may hang; the kernel frees the device
