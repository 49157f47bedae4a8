"""Nothing grows: many frames through the screening, many sessions through a whole agent."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edge_agent.bench import drain, service
from scripts.benches.contenders import contender
from scripts.benches.goals import Goal
from scripts.benches.stage import ROOT, Stage
from scripts.benches.thousand import USERS

CONTROL_EVERY = 10
"""Frames between two runs of the bare models, which tell how fast the machine itself is at that moment."""
MEMORY_MB = 5.0
TIMES = 1.05
SAMPLES = 200


def measure(stage: Stage, frames: int, sessions: int, tell: Callable[[str], None]) -> list[Goal]:
    """Both, each in a process of its own; times are the processor's, which others at work do not change."""
    tell(f"growth: {frames} frames")
    found = [*goals("frames (scrfd-minifas)", *_frames(stage, frames))]
    tell(f"growth: {sessions} sessions")
    return [*found, *goals("sessions on a made-up clock", *_sessions(stage, sessions))]


def _frames(stage: Stage, count: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of every frame, memory, and seconds of the bare models in between."""
    terms: dict[str, Any] = {"pack": "scrfd-minifas", "models": str(stage.models), "floor": True, "cpu": True}
    memory_mb = []
    with contender(stage, "frames", "ours", one_thread=False, **terms) as child:
        for number in range(1, count + 1):
            child.do("tracked", number)
            if number % CONTROL_EVERY == 0:
                child.do("tracked_floor", number)
            if number % max(1, count // SAMPLES) == 0:
                memory_mb.append(child.memory_mb()[0])
        return child.seconds["tracked"], memory_mb, child.seconds["tracked_floor"]


def _sessions(stage: Stage, count: int) -> tuple[list[float], list[float]]:
    folder = stage.folder / "thousand"
    folder.mkdir()
    with service.running(folder) as sandbox:
        asyncio.run(drain.enrol(sandbox.settings(folder), list(USERS)))
        command = [sys.executable, "-m", "scripts.benches.thousand", str(folder), str(count)]
        child = subprocess.run(
            [*command, sandbox.base_url, sandbox.api_key],
            cwd=ROOT,
            env=stage.environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    found = json.loads(child.stdout.splitlines()[-1])
    return found["cpu_s"], found["memory_mb"]


def goals(
    what: str, seconds: Sequence[float], memory_mb: Sequence[float], control: Sequence[float] = (1.0,)
) -> Iterator[Goal]:
    """The last decile against the second: the first fills caches. Times are told apart from the machine's own by ``control``."""
    first, last = _deciles(seconds)
    slower = _deciles(control)[1] / _deciles(control)[0]
    was, now = _deciles(memory_mb)
    name = f"{len(seconds)} {what}"
    detail = f"{was:.1f} to {now:.1f} MB, medians of the second and the last decile"
    yield Goal("growth", f"memory after {name}", now - was, "MB", MEMORY_MB, detail)
    detail = f"{first * 1000:.2f} to {last * 1000:.2f} ms of the processor, medians of the same"
    if len(control) > 1:
        detail += f"; the bare models in between {slower:.2f}x"
    yield Goal("growth", f"time after {name}", last / first / slower, "x", TIMES, detail)


def _deciles(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the second and the last tenth; of a single value it itself."""
    tenth = max(1, len(values) // 10)
    return statistics.median(values[tenth : 2 * tenth] or values), statistics.median(values[-tenth:])
