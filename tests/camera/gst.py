"""The real GStreamer, where it is installed, behind a link that a test can take away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_agent.camera.gstreamer import PROGRAM, GstreamerCamera
from tests.camera.sources import ManualClock

MOVING = "videotestsrc is-live=true horizontal-speed=3"

needs_gstreamer = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason="apt install gstreamer1.0-tools gstreamer1.0-plugins-base"
)


class Gst:
    """``program`` is ours, so that it can be missing."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / PROGRAM
        self.install()

    def install(self) -> None:
        self.program.symlink_to(str(shutil.which(PROGRAM)))

    def uninstall(self) -> None:
        self.program.unlink()

    def camera(self, pipeline: str = MOVING, **more: Any) -> GstreamerCamera:
        more = {"size": (160, 120), "fps": 100.0, "clock": ManualClock(), **more}
        return GstreamerCamera(pipeline, program=str(self.program), **more)
