"""The live picture while a camera is mounted: an admin holds a request open and is sent look after look.

It has the last place at the camera. Whoever else wants it (a verification, an enrolment, a check) ends the live
picture, and has the camera after at most one frame: the daemon films itself, so nobody outside can keep it. A closed
one costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from edge_agent.announcer import Announcer
from edge_agent.camera import Camera
from edge_agent.camerakeeper import Camerakeeper
from edge_agent.errors import AgentError, SessionRefused, report
from edge_agent.looking import Look, Looking
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.store import Store
from edge_agent.parts import Parts
from edge_agent.screening import Vision
from edge_agent.storekeeper import Storekeeper
from edge_agent.verifications import Rooms, Verifications

log = logging.getLogger(__name__)

NOT_READ_S = 10.0
"""A look that nobody takes for so long: the reader is stopped or gone, and nobody is filmed for it."""

Reason = Literal["verification", "enrolment", "check", "time", "left", "not_read", "stopping", "failed"]
"""Why a live picture ended: who needed the camera, its time was over, its reader left or does not read, the agent stops."""


class Aim:
    """One live picture, from its first moment. Its camera is closed when it is over, however it ends."""

    def __init__(
        self, looking: Looking, release: Callable[[], Awaitable[None]], limit_s: float, on_end: Callable[[Reason], None]
    ) -> None:
        self._looking, self._release, self._limit_s, self._on_end = looking, release, limit_s, on_end
        self._slot: asyncio.Queue[Look | None] = asyncio.Queue(1)
        self._closing = asyncio.Lock()
        self.over = False
        """The camera is closed."""
        self.ended: Reason | None = None
        self._task = asyncio.create_task(self._film(), name="aim")

    async def looks(self) -> AsyncIterator[Look]:
        """Every look until it ends; then ``ended`` says why. For one reader."""
        while (look := await self._slot.get()) is not None:
            yield look

    async def end(self, why: Reason) -> None:
        """When this returns the camera is closed."""
        if self.ended is None:
            self._end_with(why)
            self._task.cancel()
        await asyncio.wait({self._task})
        await self._close()  # one that was cancelled before it began did not

    async def _film(self) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                while self.ended is None and await self._taken(await self._looking.next()):
                    pass
            self._end_with("not_read")
        except TimeoutError:
            self._end_with("time")
        except Exception as exc:  # the top of a task: whatever it was, the camera is closed and the reader told
            report(log, exc, "the live picture ended unexpectedly")
            self._end_with("failed")
        finally:
            await self._close()

    async def _taken(self, look: Look) -> bool:
        try:
            async with asyncio.timeout(NOT_READ_S):  # wait_for loses a cancellation that comes with the put
                await self._slot.put(look)
        except TimeoutError:
            return False
        return True

    def _end_with(self, why: Reason) -> None:
        """No look comes after this."""
        if self.ended is None:
            self.ended = why
            while not self._slot.empty():
                self._slot.get_nowait()
            self._slot.put_nowait(None)

    async def _close(self) -> None:
        async with self._closing:
            if not self.over:
                self._looking.end()
                await self._release()
                self.over = True
                self._on_end(self.ended or "failed")


class Aimer:
    """At most one live picture. Used from the event loop's thread only."""

    def __init__(
        self,
        parts: Parts,
        *,
        camera: Camerakeeper,
        verifications: Verifications,
        keeper: Storekeeper,
        announcer: Announcer,
        rooms: Rooms,
        clock: Clock,
    ) -> None:
        self._parts, self._camera, self._verifications = parts, camera, verifications
        self._keeper, self._announcer, self._rooms, self._clock = keeper, announcer, rooms, clock
        self._aim: Aim | None = None
        camera.make_way = self.end

    @property
    def on(self) -> bool:
        """The camera is open for a live picture."""
        return self._aim is not None and not self._aim.over

    async def begin(self, limit_s: float, *, actor: str) -> Aim:
        """Open the camera and look through it for ``limit_s`` at most. ``end`` the Aim when its reader leaves.

        Raises SessionRefused (busy: somebody is filmed or aims already; stopping) and CameraError. Missing models are
        no reason: the picture comes without a judgement.
        """
        async with self._verifications.starts:
            self._verifications.refuse_if_filming("aim")
            if self.on:
                raise SessionRefused("cannot aim: somebody has the live picture already", code="busy")
            vision = await self._vision()
            await self._note(actor)
            camera = await self._opened()
            self._aim = self._looking_through(camera, vision, limit_s)
        log.warning("the live picture is on, for %s", actor)
        self._announcer.aim("on")
        return self._aim

    async def end(self, why: Reason) -> None:
        """When this returns no camera is open for a live picture."""
        if self._aim is not None:
            await self._aim.end(why)

    def _looking_through(self, camera: Camera, vision: Vision | AgentError, limit_s: float) -> Aim:
        looking = Looking(
            camera,
            vision,
            self._parts.config,
            camera_worker=self._rooms.camera,
            inference_worker=self._rooms.inference,
            clock=self._clock.monotonic_s,
        )
        return Aim(looking, lambda: self._camera.release(camera), limit_s, self._ended)

    def _ended(self, why: Reason) -> None:
        self._aim = None
        log.warning("the live picture is off: %s", why)
        self._announcer.aim("off", why)

    async def _vision(self) -> Vision | AgentError:
        try:
            return await self._parts.need_vision()
        except AgentError as exc:
            return exc

    async def _note(self, actor: str) -> None:
        """Who had people filmed is on record, unless there is no store: a terminal is aimed before it is set up."""
        with contextlib.suppress(AgentError):
            await self._keeper.run(Store.note, "aimed", actor=actor)

    async def _opened(self) -> Camera:
        """A client that hangs up meanwhile must not leave the camera open."""
        opening = asyncio.ensure_future(self._camera.open())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(AgentError):
                await self._camera.release(await opening)
            raise
