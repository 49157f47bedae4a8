"""The processor's time of a daemon that waits for somebody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_agent.bench.figures import timed
from edge_agent.camera.sway import SwayingStill
from edge_agent.config import CameraSection
from edge_agent.picture import read_picture
from scripts.benches.capture import CAMERA
from scripts.benches.daemons import daemon, wait_until_ready
from scripts.benches.goals import Goal
from scripts.benches.stage import PICTURE, SIZE, Stage

WATCH_FPS = 5.0
SETTLE_S = 2.0


def measure(stage: Stage, seconds: float, tell: Callable[[str], None]) -> list[Goal]:
    """With the camera closed, and with it watched where this version can do that."""
    found = [_share(stage, "closed", {}, seconds, tell, None)]
    watching = watch_settings()
    if watching is None:
        tell("left out: this version cannot watch its camera between sessions")
        return found
    made = picture_cost_s()
    told = f"; of it the made-up camera draws for {100.0 * made * WATCH_FPS:.1f} %"
    return [*found, _share(stage, f"watched at {WATCH_FPS:g} frames/s", watching, seconds, tell, 3.0, told)]


def watch_settings() -> dict[str, Any] | None:
    """The keys of the section camera for watching; None where it has none."""
    wanted = {"between_sessions": "watch", "watch_fps": WATCH_FPS}
    return wanted if set(wanted) <= set(CameraSection.model_fields) else None


def _share(
    stage: Stage, name: str, camera: dict[str, Any], seconds: float, tell: Callable[[str], None], limit: float | None, more: str = ""
) -> Goal:  # fmt: skip
    tell(f"idle for {seconds:.0f} s, camera {name}")
    with daemon(stage, "open", camera={**CAMERA, **camera}) as running:
        wait_until_ready(running)
        time.sleep(SETTLE_S)
        before_s, began_s = running.cpu_s(), time.monotonic()
        time.sleep(seconds)
        share = 100.0 * (running.cpu_s() - before_s) / (time.monotonic() - began_s)
    return Goal("idle", f"share of one core, camera {name}", share, "%", limit, f"over {seconds:.0f} s{more}")


def picture_cost_s() -> float:
    """Of one picture of the replay: a real camera's costs elsewhere."""
    still = SwayingStill(read_picture(PICTURE), SIZE)
    return min(timed(lambda n=n: still.frame(n, n / WATCH_FPS))[0] for n in range(10))  # type: ignore[misc]
