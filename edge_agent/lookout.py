"""Between sessions: the camera is watched at a low rate, where the operator wants that (camera.between_sessions).

A session that begins finds an open camera, and one that died or froze is known, and looked after, before somebody stands
in front of it. All that is made of the pictures is whether something moves. No face is looked for, nothing is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge_agent.camera.motion import STILL_AFTER_S, Motion
from edge_agent.camerakeeper import Camerakeeper
from edge_agent.config import CameraSection
from edge_agent.outbox.clock import Clock
from edge_agent.types import JsonObject

IDLE_S = 1.0
"""How often it is looked whether there is something to watch."""


class Lookout:
    """One per agent; used from the event loop's thread. ``on_change`` hears when something begins to move, and when all is still."""

    def __init__(
        self,
        camera: Camerakeeper,
        settings: Callable[[], CameraSection],
        *,
        clock: Clock,
        on_change: Callable[[bool], None] = lambda _moving: None,
    ) -> None:
        """``settings``: those of this moment."""
        self._camera, self._settings, self._clock, self._on_change = camera, settings, clock, on_change
        self._motion = Motion()
        self._moving: bool | None = None

    @property
    def still_s(self) -> float | None:
        """For how long nothing has moved before a camera that is watched; None where none is, or nothing is known yet."""
        return self._motion.still_s(self._clock.monotonic_s()) if self._camera.watched else None

    def describe(self) -> JsonObject:
        """For the status."""
        still_s = self.still_s
        return {"watched": self._camera.watched, "still_s": still_s if still_s is None else round(still_s, 1)}

    async def run(self) -> None:
        """For ever."""
        while True:
            pause_s = await self.look()
            await asyncio.sleep(pause_s)

    async def look(self) -> float:
        """Once; returns in how many seconds again."""
        settings = self._settings()
        if settings.between_sessions == "closed":
            return IDLE_S
        frame = await self._camera.glance(settings.watch_fps)
        if frame is not None:
            self._motion.see(frame.image, frame.captured_at_s)
            self._tell(self._motion.still_s(frame.captured_at_s))
        elif not self._camera.watched:
            self._forget()
            return min(IDLE_S, 1 / settings.watch_fps)
        return 1 / settings.watch_fps

    def _tell(self, still_s: float | None) -> None:
        moving = still_s is not None and still_s < STILL_AFTER_S
        if self._moving is not None and moving is not self._moving:
            self._on_change(moving)
        self._moving = moving

    def _forget(self) -> None:
        """A session has the camera, or it is lost: what comes after does not follow what was before."""
        self._motion.forget()
        self._moving = None
