"""The agent's hold on the camera: its thread, its recovery ladder, and the last step of that, a new process.

Between sessions the camera is closed, or watched at a low rate where the operator wants that (see lookout). One that
was lost is tried again by the ladder until it is back, so that the
terminal is ready again before somebody stands in front of it; one that was never tried is left alone, because nobody
is filmed without a request.

Nothing here waits for the camera's thread without a bound. A driver that hangs in there is no reason for the watchdog:
a restart breaks off whatever the forwarder does, and one that does not help would come again every half minute. It is
a failure of the camera like any other, it climbs the ladder, and its exit comes in order and at most once an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from edge_agent.camera import Camera, CameraRecovery, CameraStatus, camera_recovery, last_exit
from edge_agent.camera.ladder import ALL_STEPS, Step
from edge_agent.config import CameraSection
from edge_agent.errors import CameraError, EnvironmentFault, report
from edge_agent.moments import told
from edge_agent.outbox.clock import Clock
from edge_agent.types import Frame, JsonObject
from edge_agent.workers import Worker

log = logging.getLogger(__name__)
T = TypeVar("T")

Purpose = Literal["verification", "enrolment", "check"]
"""What the camera is opened for."""

PROBE_S = 5.0
"""How often a lost camera is looked after; when it is tried says the ladder."""
HUNG_S = 30.0
"""Every call of a camera ends within 20 s (see its port): one that has not ended by now hangs."""
GLANCE_S = 0.05
"""A glance between sessions takes no longer, so that it delays nobody."""
CLOSE_S = 5.0
NO_CAMERA = CameraStatus("none", Step.NONE, 0, None, "camera.source is none", None)
"""The operator wants it so: nothing is missing and nothing is tried. A verification is refused all the same."""


async def _nobody(_: Purpose) -> None:
    """Nobody has to make way."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How to end the daemon so that it is started again; called in the event loop."""

    hold: Callable[[], bool]
    """True when nobody would notice, and from then on no verification begins."""
    go_on: Callable[[], None]
    """After ``hold``: it does not end after all."""
    end: Callable[[], None]


class Camerakeeper:
    """One per agent; used from the event loop's thread only. ``on_change`` is called in the camera's thread too."""

    def __init__(
        self,
        settings: CameraSection,
        *,
        worker: Worker,
        clock: Clock,
        state_dir: Path,
        spawn: Callable[[Awaitable[None], str], asyncio.Task[None]],
        make: Callable[[], Camera] | None = None,
        on_change: Callable[[CameraStatus], None] = lambda _: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """``make``: another way to a closed camera. Raises nothing: what is wrong shows when it is used."""
        self._worker, self._clock, self._state_dir = worker, clock, state_dir
        self._spawn, self._make = spawn, make
        self._on_change, self._beat = on_change, beat
        self.ending: Ending | None = None
        """None: nobody would start the daemon again."""
        self.make_way: Callable[[Purpose], Awaitable[None]] = _nobody
        """Called before every use: whoever has the camera for something less urgent closes it, and then this returns."""
        self._taken = False
        self._watched: Camera | None = None
        """Open between sessions, until somebody takes the camera."""
        self._probing: asyncio.Task[None] | None = None
        self._probe_failed = False
        self._said_exit = False
        self._said_lost = False
        self.steps_taken: Counter[Step] = Counter()
        """Of the ladder, since the start of this process."""
        self._last_exit = last_exit.read(state_dir)
        self._doubtful = self._last_exit is not None and self._last_exit.boot_id == clock.boot_id()
        """It was lost when it was last seen, though not by this ladder: it has to be looked at."""
        self._recovery = self._made(settings)

    def _made(self, settings: CameraSection) -> CameraRecovery:
        def changed(status: CameraStatus) -> None:
            if recovery is self._recovery and self._wanted:  # the session of an old one may still run
                self._log(status)
                self._on_change(status)

        recovery = camera_recovery(
            settings,
            boot_id=self._clock.boot_id(),
            last_exit=self._last_exit,
            on_change=changed,
            make=self._make,
            clock=self._clock.boottime_s,
        )
        recovery.steps_taken = self.steps_taken
        self._wanted = settings.source != "none"
        return recovery

    def _log(self, status: CameraStatus) -> None:
        """Once when it goes and once when it is back: a camera that is away for a night is no reason for a full journal."""
        if status.state == "lost" and not self._said_lost:
            log.error("the camera is lost: %s", status.detail, extra=told("camera_lost", code=status.code))
        elif status.state == "ok" and self._said_lost:
            log.info("the camera is back: %s", status.detail, extra=told("camera_back"))
        self._said_lost = status.state == "lost"

    def renew(self, settings: CameraSection) -> None:
        """Use another camera from the next session on; the one that is being filmed keeps the old one."""
        self._doubtful = self.status.state == "lost"
        if self._watched is not None:
            self._spawn(self._put_away(self._watched), "close the camera")
        self._watched = None
        self._recovery = self._made(settings)
        self._said_exit = False
        self._on_change(self.status)

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def status(self) -> CameraStatus:
        return self._recovery.status if self._wanted else NO_CAMERA

    @property
    def fault(self) -> CameraError | None:
        """Why there is no camera, or None; one that was not tried yet is no fault, nor is one that nobody wants."""
        status = self.status
        if status.state != "lost":
            return None
        return CameraError(status.detail, code=status.code, hint=status.hint, retryable=True)

    @property
    def watched(self) -> bool:
        """True while the camera is open and nobody is filmed."""
        return self._watched is not None

    @property
    def hangs(self) -> bool:
        """True while a call into the driver does not return."""
        return self._worker.busy_s > HUNG_S

    def describe(self) -> JsonObject:
        """For the status."""
        status = self.status
        return {
            "state": status.state,
            "step": status.step.value,
            "failures": status.failures,
            "code": status.code,
            "detail": status.detail,
            "hint": status.hint,
            "steps_taken": {step.value: self.steps_taken[step] for step in ALL_STEPS},
        }

    # -- for a session ----------------------------------------------------------------------------------------------

    async def open(self, purpose: Purpose = "verification") -> Camera:
        """An open camera, by the step that is due. Raises CameraError; otherwise ``release`` it.

        A probe that is under way is waited for: one that fails was this session's try too, so nobody waits twice.
        """
        await self.make_way(purpose)
        return await self._use(self._recovery.open, keep=True)

    async def examine(self) -> None:
        """Open the camera and close it again. Raises CameraError."""
        await self.make_way("check")
        await self._use(self._recovery.examine, keep=False)

    async def _use(self, act: Callable[[], T], *, keep: bool) -> T:
        if self.hangs and (fault := self.fault) is not None:
            raise fault
        recovery, kept, self._taken, self._watched = self._recovery, False, True, None
        try:
            async with asyncio.timeout(HUNG_S):
                await self._after_probe()
                result = await self._worker.run(act)
            kept = keep
            return result
        except TimeoutError as exc:  # should it open after all, nobody may be filmed
            self._spawn(self._worker.run(recovery.put_away), "close the camera")
            raise CameraError(
                f"cannot open the camera: its driver has not answered for {HUNG_S:g} s",
                hint="check its cable and power; the agent goes on trying",
                retryable=True,
            ) from exc
        finally:
            self._taken = kept

    async def _after_probe(self) -> None:
        if self._probing is not None:
            await asyncio.wait({self._probing})
            if self._probe_failed and (fault := self.fault) is not None:
                raise fault

    async def release(self, camera: Camera) -> None:
        """Close the camera of a session. Never raises, and ends also when the driver hangs."""
        await self._put_away(camera)
        self._taken = False

    async def _put_away(self, camera: Camera) -> None:
        try:
            async with asyncio.timeout(HUNG_S):
                await self._worker.run(camera.close)
        except Exception as exc:  # a driver's whim must not leave the terminal busy for ever
            report(log, exc, "cannot close the camera")

    # -- between sessions -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """For ever: look after a lost camera."""
        while True:
            self._beat()
            await self.turn()
            await asyncio.sleep(PROBE_S)

    async def turn(self) -> None:
        """Look once. Ends within ``PROBE_S``, whatever the camera does; a probe that takes longer goes on."""
        if self.hangs:
            self._recovery.hanging(self._worker.busy_s)
        elif self._probe_due():
            self._probing = self._spawn(self._probe(), "probe the camera")
            await asyncio.wait({self._probing}, timeout=PROBE_S)
        await self._end_if_advised()

    async def glance(self, fps: float) -> Frame | None:
        """The newest picture, if nobody has the camera: it is opened, and stays open until somebody takes it.

        About ``fps`` pictures per second are enough. None: somebody has it, it is lost (and looked after by the
        ladder), nobody wants one, or it has nothing new. Not for two callers at a time.
        """
        if self._taken or not self._wanted or self.status.state == "lost" or self._probing is not None:
            return None
        if self._watched is None:
            self._probing = self._spawn(self._begin_watch(fps), "watch the camera")
            await asyncio.wait({self._probing})
            return None
        watched = self._watched
        try:
            frame = await self._worker.run(watched.read, GLANCE_S)
        except CameraError as exc:
            if exc.code != "camera_stalled":
                await self._end_watch(watched, exc)
            return None
        return frame if watched is self._watched else None

    async def _begin_watch(self, fps: float) -> None:
        """Whoever comes meanwhile waits for it, as for a probe, and finds an open camera."""
        recovery, self._probe_failed = self._recovery, False
        try:
            camera = await self._worker.run(recovery.watch, fps)
        except CameraError as exc:
            self._probe_failed = recovery is self._recovery
            log.info("the camera cannot be watched: %s", exc.message)
            return
        finally:
            self._probing = None
        if recovery is not self._recovery:
            await self._put_away(camera)
        elif not self._taken:
            self._watched = camera

    async def _end_watch(self, watched: Camera, why: CameraError) -> None:
        """The ladder looks after it from here on, unless somebody took it meanwhile and does so himself."""
        log.info("the camera is watched no longer: %s", why.message)
        if watched is self._watched:
            self._watched = None
            await self._put_away(watched)

    async def close(self) -> None:
        """At the end: nobody is filmed or watched any more. Ends also when the driver hangs."""
        self._watched = None
        if self._recovery.source is not None and not self.hangs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._worker.run(self._recovery.put_away)

    def _probe_due(self) -> bool:
        if self._taken or not self._wanted or self._probing is not None:
            return False
        return self._doubtful or self.status.state == "lost"

    async def _probe(self) -> None:
        recovery, before = self._recovery, self._recovery.status
        self._probe_failed = False
        try:
            if self._doubtful:
                self._doubtful = False
                await self._worker.run(recovery.examine)
            else:
                await self._worker.run(recovery.probe)
        except CameraError as exc:
            log.info("the camera is still lost: %s", exc.message)
        finally:
            self._probing = None
        # only what was tried: before its time the ladder refuses, and tells nothing
        tried = recovery is self._recovery and recovery.status is not before
        self._probe_failed = tried and recovery.status.state == "lost"

    async def _end_if_advised(self) -> None:
        if self._taken or not self._recovery.exit_advised(in_session=False):
            self._said_exit &= self.status.state == "lost"
            return
        if self.ending is None:
            if not self._said_exit:
                log.error("only a new process can help the camera, and nobody would start one: restart the agent")
            self._said_exit = True
        elif self.ending.hold():
            await self._end(self.ending)

    async def _end(self, ending: Ending) -> None:
        """Write it down first: what cannot be written down would happen again and again."""
        record = self._last_exit = self._recovery.exit_record()
        try:
            await asyncio.to_thread(last_exit.save, self._state_dir, record)
        except EnvironmentFault as exc:
            log.error("the agent does not start itself again for the camera: %s", exc.message)  # noqa: TRY400
            ending.go_on()
            return
        why = self.status.detail
        log.error("the agent ends and is started again, for its camera: %s", why, extra=told("camera_exit"))
        ending.end()
