"""A stand-in for the module ``picamera2``, of the documented behaviour, for the capture process under test.

The process imports it as ``picamera2`` (see ``program`` in tests/camera/picamera.py). What it does is in the JSON file
that ``SCRIPT`` names, which it reads when it is imported and before each capture: a test plays the hardware with it.
It uses the standard library alone, as the system's Python may have no numpy.
"""

import ctypes
import json
import os
import sys
import time
from concurrent.futures import Future
from pathlib import Path

SCRIPT = globals().get("SCRIPT", "")


def plan():
    return json.loads(Path(SCRIPT).read_text(encoding="utf-8"))


if plan().get("import") == "missing":
    raise ModuleNotFoundError("No module named 'picamera2'", name="picamera2")
if plan().get("import") == "broken":
    raise ImportError("libcamera.so.0.5: cannot open shared object file", name="libcamera")


def hang():
    """As native code does that never comes back: no signal handler of Python's would run."""
    ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock


class Job:
    def __init__(self):
        self.future: Future[None] = Future()


class Request:
    """``stride`` is wider than the picture, as libcamera aligns rows; brighter to the right and to the bottom."""

    released = 0

    def __init__(self, config, number, wanted):
        self.config, self.number, self.wanted = config, number, wanted
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.taken_ns = now - int(wanted.get("age_s", 0) * 1e9)

    def get_metadata(self):
        return {"SensorTimestamp": self.taken_ns, "ExposureTime": 9000, "AnalogueGain": 1.5}

    def make_buffer(self, name):
        stream = self.config[name]
        width, height = stream["size"]
        channels = 3 if name == "main" else 1
        number = 7 if self.wanted.get("frozen") else self.number % self.wanted.get("loop", 1 << 16)
        # B, G, R: the blue channel stands out, so that an exchanged order shows
        ramp = b"".join(
            bytes([level + 60, level, level] if channels == 3 else [level])
            for level in (40 + 120 * x // width for x in range(width))
        )
        pad = bytes([255]) * (stream["stride"] - width * channels)
        upper = ramp + pad
        lower = bytes(min(255, level + 30) for level in ramp) + pad
        # no picture comes again: the mark is of two bytes
        mark = bytes([number % 256, number // 256 % 256]) * 2 * channels
        marked = mark + upper[4 * channels :]
        rows = [marked] * 4 + [upper] * (height // 2 - 4) + [lower] * (height - height // 2)
        if name == "lores":
            rows.append(bytes([128]) * (stream["stride"] * height // 2))  # U and V
        buffer = b"".join(rows)
        return buffer[:-100] if self.wanted.get("short") else buffer

    def release(self):
        Request.released += 1


class Picamera2:
    @staticmethod
    def global_camera_info():
        wanted = plan()
        if wanted.get("list") == "hang":
            hang()
        usb = {"Model": "HD Webcam", "Id": "/base/soc/usb@1/video", "Num": 1}
        csi = {"Model": "imx708", "Id": "/base/soc/i2c0mux/i2c@1/imx708@1a", "Num": 0}
        return [usb] if wanted.get("list") == "usb only" else [csi, usb]

    def __init__(self, camera_num=0):
        wanted = plan()
        if wanted.get("open") == "raise":
            raise RuntimeError("Camera __init__ sequence did not complete.")
        if wanted.get("open") == "hang":
            hang()
        print("this line would break the stream, were standard output the pipe")
        self.number = 0
        self.begun = time.monotonic()

    def create_video_configuration(self, **wanted):
        assert wanted["main"]["format"] == "RGB888"
        assert wanted["lores"]["format"] == "YUV420"
        assert all(side % 2 == 0 for side in (*wanted["main"]["size"], *wanted["lores"]["size"]))
        assert wanted["lores"]["size"][0] <= wanted["main"]["size"][0]
        assert wanted["queue"] is False, "a kept frame would be an old one"
        return wanted

    def configure(self, config):
        self.config = {}
        size = plan().get("size") or config["main"]["size"]
        for name, channels in (("main", 3), ("lores", 1)):
            width, height = size if name == "main" else config[name]["size"]
            stride = -(-width * channels // 64) * 64
            self.config[name] = {"format": config[name]["format"], "size": (width, height), "stride": stride}
        self.frame_s = config["controls"]["FrameDurationLimits"][0] / 1e6

    def camera_configuration(self):
        return self.config

    def start(self):
        self.started = True

    def capture_request(self, wait=None):
        assert wait is False
        assert Request.released == self.number, "a request was not released: the camera is out of buffers"
        return Job()

    def wait(self, job, timeout=None):
        wanted = plan()
        at = wanted.get("at", 0)
        what = wanted.get("capture") if self.number >= at else None
        if what == "silent":
            job.future.result(timeout)
        if what == "hang":
            hang()
        if what == "die":
            os.write(2, b"*** libcamera: double free detected\n")
            os.kill(os.getpid(), 6)
        if what == "raise":
            raise RuntimeError("Could not dequeue")
        if what == "garbage":
            fd = json.loads(sys.argv[-1])["fd"]
            os.write(fd, bytes(range(256)) * 40)
        time.sleep(wanted.get("frame_s") or self.frame_s)
        self.number += 1
        return Request(self.config, self.number - 1, wanted)
