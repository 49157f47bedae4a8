"""Enrolment from the camera: one person is filmed as for a verification, at the stricter limits, and nothing is stored.

The camera is the same one, so an enrolment and a verification exclude each other. Whoever asked holds the request open:
a client that hangs up ends the filming.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from edge_agent.announcer import Announcer
from edge_agent.camera import Camera
from edge_agent.config import Config
from edge_agent.enrolment import PictureRefused, Source, failed_checks
from edge_agent.errors import AgentError, CameraError, ModelError, SessionRefused
from edge_agent.filming import Captured, Filming, Listeners, Lost, Outcome, Rejected
from edge_agent.screening import Vision
from edge_agent.types import Assessment, GateCode
from edge_agent.workers import Worker


@dataclass(frozen=True, slots=True)
class Studio:
    """What filming needs of the terminal."""

    open_camera: Callable[[], Awaitable[Camera]]
    """Raises CameraError."""
    close_camera: Callable[[Camera], Awaitable[None]]
    """Never raises, and ends also when the driver hangs."""
    camera_worker: Worker
    inference_worker: Worker
    announcer: Announcer
    on_frame: Callable[[Assessment], None]
    clock: Callable[[], float]
    """Monotonic seconds."""


class Sitting:
    """One person before the camera, to be enrolled; ``film`` once."""

    def __init__(self, user_id: str, camera: Camera, filming: Callable[[Listeners], Filming], studio: Studio) -> None:
        self.user_id = user_id
        self._camera = camera
        self._studio = studio
        self._filming = filming(Listeners(self._hint, self._camera_state, self._frame))
        self._last: Assessment | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._ended: AgentError | None = None
        self._over = asyncio.Event()

    async def film(self) -> Source:
        """The picture to upload. Raises PictureRefused, CameraError, ModelError, and what ``end`` was given."""
        self._task = asyncio.create_task(self._filming.run(), name="film an enrolment")
        try:
            await asyncio.wait({self._task})
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._close()
        if self._ended is not None:
            raise self._ended
        return self._source(self._task.result())

    async def end(self, why: AgentError) -> None:
        """Stop filming; when this returns the camera is closed. ``film`` raises ``why``."""
        self._ended = why
        if self._task is not None:
            self._task.cancel()
        await self._over.wait()

    @property
    def over(self) -> bool:
        """True once the camera is closed."""
        return self._over.is_set()

    async def _close(self) -> None:
        await self._studio.close_camera(self._camera)
        self._over.set()

    def _source(self, outcome: Outcome) -> Source:
        match outcome:
            case Captured(best=best, jpeg=jpeg):
                facts = {"liveness": {s.model: s.score for s in best.liveness}, "votes": best.votes}
                return Source(jpeg, "camera", {"quality_score": best.assessment.quality_score, **facts})
            case Rejected(reasons=reasons):
                raise PictureRefused(reasons, failed_checks(self._last))
            case Lost(code="camera_unavailable" | "camera_frozen" | "frame_loop" as code, detail=detail):
                raise CameraError(f"cannot enrol: {detail}", code=code)
            case Lost(code=code, detail=detail):
                raise ModelError(f"cannot enrol: {detail}", code=code)

    def _hint(self, code: GateCode | None) -> None:
        self._studio.announcer.hint(None, code)

    def _camera_state(self, state: str, detail: str) -> None:
        self._studio.announcer.camera(None, state, detail)

    def _frame(self, assessment: Assessment) -> None:
        self._last = assessment
        self._studio.on_frame(assessment)


@dataclass(slots=True, eq=False)
class UnderWay:
    """An enrolment, from the request until its picture is sent."""

    user_id: str
    ended: AgentError | None = None

    def go_on(self) -> None:
        """Before a step that cannot be taken back: raises what it was ended with."""
        if self.ended is not None:
            raise self.ended


class Enroller:
    """At most one sitting at a time. Used from the event loop's thread only."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._sitting: Sitting | None = None
        self._under_way: set[UnderWay] = set()

    @contextlib.contextmanager
    def under_way(self, user_id: str) -> Iterator[UnderWay]:
        """An enrolment that ``end`` knows of, also while nobody is filmed for it."""
        enrolment = UnderWay(user_id)
        self._under_way.add(enrolment)
        try:
            yield enrolment
        finally:
            self._under_way.discard(enrolment)

    @property
    def sitting(self) -> Sitting | None:
        """Who is being filmed now."""
        return self._sitting if self._sitting is not None and not self._sitting.over else None

    def refuse_if_filming(self) -> None:
        """Raises SessionRefused ``busy``: the camera is in use."""
        if self.sitting is not None:
            raise SessionRefused("cannot start: somebody is being enrolled", code="busy")

    async def begin(self, user_id: str, vision: Vision, config: Config, search_timeout_s: float) -> Sitting:
        """Open the camera for one user. The caller holds off every other start meanwhile. Raises CameraError, busy."""
        self.refuse_if_filming()
        camera = await self._opened()

        def filming(listeners: Listeners) -> Filming:
            return Filming(
                camera,
                vision,
                camera_worker=self._studio.camera_worker,
                inference_worker=self._studio.inference_worker,
                session=config.session,
                gate=config.enrolment.stricter(config.gate),
                capture=config.capture,
                search_timeout_s=search_timeout_s,
                listeners=listeners,
                clock=self._studio.clock,
            )

        self._sitting = Sitting(user_id, camera, filming, self._studio)
        return self._sitting

    async def end(self, why: AgentError, *, user_id: str | None = None) -> bool:
        """End what is under way, of this user only where one is given; True when there was a sitting.

        Nobody is filmed then and no upload begins. One that has begun goes on: its picture may have arrived already.
        """
        for enrolment in self._under_way:
            if user_id in {None, enrolment.user_id}:
                enrolment.ended = why
        sitting = self.sitting
        if sitting is None or user_id not in {None, sitting.user_id}:
            return False
        await sitting.end(why)
        return True

    async def _opened(self) -> Camera:
        """A client that hangs up meanwhile must not leave the camera open."""
        opening = asyncio.ensure_future(self._studio.open_camera())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(AgentError):
                await self._studio.close_camera(await opening)
            raise
