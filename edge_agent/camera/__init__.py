"""Cameras: one port (see ``port``), several sources. ``open_camera`` picks the one that the settings name, and
``camera_recovery`` keeps one for a daemon's life.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.camera.ladder import ALL_STEPS, ExitRecord, Ladder, Step
from edge_agent.camera.port import Camera, Clock, Sleep
from edge_agent.camera.recovery import BootClock, CameraRecovery, CameraStatus, boottime_s
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError

if TYPE_CHECKING:
    from edge_agent.camera.auto import Machine

__all__ = ["Camera", "CameraRecovery", "CameraStatus", "ExitRecord", "camera_recovery", "make_camera", "open_camera"]


def open_camera(settings: CameraSection, *, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> Camera:
    """Make and open the camera that ``settings`` describe. Blocks: call it in the camera's own thread.

    ``source: auto`` takes what ``auto.choose`` finds. A replay runs in real time and loops.
    Raises CameraError (camera_unavailable, camera_stalled, camera_format).
    """
    camera = make_camera(settings, clock=clock, sleep=sleep)
    camera.open()
    return camera


def camera_recovery(
    settings: CameraSection,
    *,
    boot_id: str,
    last_exit: ExitRecord | None = None,
    on_change: Callable[[CameraStatus], None] = lambda _status: None,
    make: Callable[[], Camera] | None = None,
    clock: BootClock = boottime_s,
) -> CameraRecovery:
    """The camera for a daemon's life, with its recovery ladder. ``last_exit``: what was stored the last time, if any.

    ``make``: another way to a closed camera. A new daemon does not help a replay, so its ladder has no exit.
    """
    steps = (Step.REOPEN,) if settings.source in {"replay", "none"} else ALL_STEPS
    ladder = Ladder(boot_id=boot_id, last_exit=last_exit, steps=steps)
    return CameraRecovery(make or (lambda: make_camera(settings)), ladder, on_change=on_change, clock=clock)


def make_camera(
    settings: CameraSection,
    *,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
    machine: Machine | None = None,
) -> Camera:
    """A closed camera. With ``source: auto`` the machine is looked at now. Raises CameraError."""
    if settings.source == "none":
        raise CameraError(
            "cannot open a camera: camera.source is none",
            hint="set camera.source to auto, picamera, v4l2, gstreamer or replay",
        )
    if settings.source == "replay":
        return _replay(settings, clock, sleep)
    if settings.source == "auto":
        from edge_agent.camera.auto import choose

        choice = choose(settings.device, settings.size, settings.fps, machine)
        settings = settings.model_copy(
            update={"source": choice.source, "device": choice.device, "pipeline": choice.pipeline}
        )
    return _MAKERS[settings.source](settings, clock)


def _v4l2(settings: CameraSection, clock: Clock) -> Camera:
    from edge_agent.camera.discovery import first_capture_device
    from edge_agent.camera.v4l2 import V4l2Camera

    return V4l2Camera(
        settings.device or first_capture_device(),
        size=settings.size,
        fps=settings.fps,
        rotate=settings.rotate,
        stale_after_s=settings.stale_after_s,
        clock=clock,
    )


def _picamera(settings: CameraSection, clock: Clock) -> Camera:
    from edge_agent.camera.picamera import PicameraCamera

    return PicameraCamera(
        int(settings.device or 0),
        size=settings.size,
        fps=settings.fps,
        rotate=settings.rotate,
        stale_after_s=settings.stale_after_s,
        clock=clock,
    )


def _gstreamer(settings: CameraSection, clock: Clock) -> Camera:
    from edge_agent.camera.gstreamer import GstreamerCamera

    return GstreamerCamera(
        settings.pipeline or "",
        size=settings.size,
        fps=settings.fps,
        rotate=settings.rotate,
        stale_after_s=settings.stale_after_s,
        clock=clock,
    )


_MAKERS: dict[str, Callable[[CameraSection, Clock], Camera]] = {
    "v4l2": _v4l2,
    "picamera": _picamera,
    "gstreamer": _gstreamer,
}


def _replay(settings: CameraSection, clock: Clock, sleep: Sleep) -> Camera:
    from edge_agent.camera.replay import ReplayCamera

    if settings.path is None:
        raise CameraError("cannot open the replay: camera.path is not set", hint="set it to a picture, folder or clip")
    return ReplayCamera(
        settings.path,
        size=settings.size,
        fps=settings.fps,
        rotate=settings.rotate,
        stale_after_s=settings.stale_after_s,
        clock=clock,
        sleep=sleep,
    )
