"""Plays a Raspberry Pi's camera to the capture process: the stand-in module, and the plan that it follows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edge_agent.camera.picamera import PROGRAM, PicameraCamera
from tests.camera.sources import ManualClock

STANDIN = Path(__file__).with_name("picamera2_standin.py")
SYSTEM_PYTHON = PROGRAM[0] if Path(PROGRAM[0]).exists() else sys.executable
"""The very interpreter of a terminal, so that the file is known to run without our environment."""

_START = """
import importlib.util, runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "picamera2":
            return None
        spec = importlib.util.spec_from_file_location(name, {standin!r})
        execute = spec.loader.exec_module
        def exec_module(module):
            module.SCRIPT = {script!r}
            execute(module)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
runpy.run_path({process!r}, run_name="__main__")
"""


class Pi:
    """A Raspberry Pi whose camera does what ``plan`` was told last."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "plan.json"
        self.plan()

    def plan(self, **what: Any) -> None:
        beside = self.script.with_suffix(".new")
        beside.write_text(json.dumps(what))
        beside.rename(self.script)

    @property
    def program(self) -> tuple[str, ...]:
        start = _START.format(standin=str(STANDIN), script=str(self.script), process=PROGRAM[-1])
        return (SYSTEM_PYTHON, "-I", "-c", start)

    def camera(self, **more: Any) -> PicameraCamera:
        more = {"size": (160, 120), "fps": 50.0, "clock": ManualClock(), **more}
        return PicameraCamera(program=self.program, **more)
