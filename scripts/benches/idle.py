"""The processor's time of a daemon that waits for somebody."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from edge_agent.config import CameraSection
from scripts.benches.daemons import daemon, wait_until_ready
from scripts.benches.goals import Goal
from scripts.benches.stage import Stage

WATCH_FPS = 5.0
SETTLE_S = 2.0
DECODED = 40


def measure(stage: Stage, seconds: float, tell: Callable[[str], None]) -> list[Goal]:
    """With the camera closed, and with it watched where this version can do that. The camera is a clip of 1280x720."""
    found = [_share(stage, "closed", {}, seconds, tell, None)]
    watching = watch_settings()
    if watching is None:
        tell("left out: this version cannot watch its camera between sessions")
        return found
    made_s = picture_cost_s(stage.clip)
    told = f"; decoding its motion JPEG alone is {100.0 * made_s * WATCH_FPS:.1f} %"
    return [*found, _share(stage, f"watched at {WATCH_FPS:g} frames/s", watching, seconds, tell, 3.0, told)]


def watch_settings() -> dict[str, Any] | None:
    """The keys of the section camera for watching; None where it has none."""
    wanted = {"between_sessions": "watch", "watch_fps": WATCH_FPS}
    return wanted if set(wanted) <= set(CameraSection.model_fields) else None


def _share(
    stage: Stage, name: str, camera: dict[str, Any], seconds: float, tell: Callable[[str], None], limit: float | None, more: str = ""
) -> Goal:  # fmt: skip
    tell(f"idle for {seconds:.0f} s, camera {name}")
    with daemon(stage, "open", camera=camera) as running:
        wait_until_ready(running)
        time.sleep(SETTLE_S)
        before_s, began_s = running.cpu_s(), time.monotonic()
        time.sleep(seconds)
        share = 100.0 * (running.cpu_s() - before_s) / (time.monotonic() - began_s)
    return Goal("idle", f"share of one core, camera {name}", share, "%", limit, f"over {seconds:.0f} s{more}")


def picture_cost_s(clip: Path) -> float:
    """Of the processor, for one picture of the clip; a real camera that sends motion JPEG costs the same."""
    reader = cv2.VideoCapture(str(clip))
    try:
        began_s = time.process_time()
        read = sum(reader.read()[0] for _ in range(DECODED))
        return (time.process_time() - began_s) / max(read, 1)
    finally:
        reader.release()
