"""Cameras: one port (see ``port``), several sources. ``open_camera`` picks the one that the settings name."""

from __future__ import annotations

import time

from edge_agent.camera.port import Camera, Clock, Sleep
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError

__all__ = ["Camera", "open_camera"]


def open_camera(settings: CameraSection, *, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> Camera:
    """Make and open the camera that ``settings`` describe. Blocks: call it in the camera's own thread.

    ``source: auto`` takes ``device``, or the first V4L2 device that captures. A replay runs in real time and loops.
    Raises CameraError (camera_unavailable, camera_stalled, camera_format).
    """
    camera = _camera(settings, clock, sleep)
    camera.open()
    return camera


def _camera(settings: CameraSection, clock: Clock, sleep: Sleep) -> Camera:
    if settings.source == "none":
        raise CameraError(
            "cannot open a camera: camera.source is none", hint="set camera.source to auto, v4l2 or replay"
        )
    if settings.source == "replay":
        return _replay(settings, clock, sleep)
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
