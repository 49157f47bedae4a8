"""Filming one session: frames from the camera's thread, screened in the inference thread, until something is decided.

The outcome is one of three: a capture, a rejection with reasons, or a loss (the device failed the customer; that is
never a rejection).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera.port import Camera
from edge_agent.config import CaptureSection, GateSection, SessionSection
from edge_agent.errors import AgentError, CameraError, ModelError
from edge_agent.screening import Screener, Vision
from edge_agent.session import BestShot, Framing
from edge_agent.types import Assessment, Frame, GateCode
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

READ_S = 0.5
"""A read of the camera is bounded by this, so that the search time is kept."""
LOST_S = 5.0
"""A camera that stays silent or away for so long has failed the session."""
REOPEN_PAUSE_S = 0.5
OVERTIME_S = 60.0
"""A session that lasts so much longer than its search hangs: in the camera's driver, most likely."""
MIN_REPEATS = 3
"""Equal pictures in a row: no sensor delivers so many, the camera is frozen."""
MAX_INFERENCE_ERRORS = 3
"""Consecutive errors of the models after which the session fails."""


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A best shot, and its picture as it will be uploaded."""

    best: BestShot
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The search time ran out; nothing qualified."""

    reasons: tuple[GateCode, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The device failed: no camera, or no inference."""

    code: str
    detail: str


Outcome = Captured | Rejected | Lost


@dataclass(frozen=True, slots=True)
class Listeners:
    """What filming tells on the way; called in the event loop's thread."""

    hint: Callable[[GateCode | None], None]
    camera: Callable[[str, str], None]
    """``(state, detail)``: ``lost`` or ``ok``."""
    frame: Callable[[Assessment], None]


class Filming:
    """One session; use once."""

    def __init__(
        self,
        camera: Camera,
        vision: Vision,
        *,
        camera_worker: Worker,
        inference_worker: Worker,
        session: SessionSection,
        gate: GateSection,
        capture: CaptureSection,
        search_timeout_s: float,
        listeners: Listeners,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera = camera
        self._camera_worker = camera_worker
        self._inference_worker = inference_worker
        self._capture = capture
        self._listeners = listeners
        self._clock = clock
        started_at_s = clock()
        self._search_timeout_s = search_timeout_s
        self._deadline_s = started_at_s + search_timeout_s
        self._screener = Screener(vision, gate)
        self._framing = Framing(
            liveness_frames=session.liveness_frames,
            window_s=session.capture_window_s,
            hint_hold_s=session.hint_hold_s,
            started_at_s=started_at_s,
        )
        self._lost_since_s: float | None = None
        self._inference_errors = 0
        self._digest = b""
        self._changed_at_s = started_at_s
        self._pictures = self._repeats = 0

    async def run(self) -> Outcome:
        """Film until there is an outcome. Cancellation ends it at the next frame."""
        try:
            async with asyncio.timeout(self._search_timeout_s + OVERTIME_S):
                return await self._run()
        except TimeoutError:
            code = "camera_unavailable" if self._camera_worker.busy_s else AgentError.code
            return Lost(code, "filming did not end in time")

    async def _run(self) -> Outcome:
        while self._clock() < self._deadline_s:
            frame = await self._next_frame()
            if frame is None:
                if self._given_up():
                    break
                continue
            outcome = await self._judge(frame)
            if outcome is not None:
                return outcome
        if self._lost_since_s is not None or self._framing.frames == 0:
            return Lost("camera_unavailable", "the camera delivered no usable frame")
        if self._frozen():
            return Lost("camera_unavailable", "the camera repeats its last picture")
        return Rejected(self._framing.reasons())

    def _frozen(self) -> bool:
        """True when the camera has shown one and the same picture, from the beginning or for long."""
        old = self._pictures == 1 or self._clock() - self._changed_at_s >= LOST_S
        return self._repeats >= MIN_REPEATS and old

    def _note_picture(self, digest: bytes) -> None:
        if digest == self._digest:
            self._repeats += 1
            return
        self._digest, self._changed_at_s, self._repeats = digest, self._clock(), 0
        self._pictures += 1

    def _given_up(self) -> bool:
        return self._lost_since_s is not None and self._clock() - self._lost_since_s >= LOST_S

    async def _next_frame(self) -> Frame | None:
        timeout_s = max(0.01, min(READ_S, self._deadline_s - self._clock()))
        try:
            frame = await self._camera_worker.run(self._camera.read, timeout_s)
        except CameraError as exc:
            await self._camera_lost(exc)
            return None
        if self._lost_since_s is not None:
            self._lost_since_s = None
            self._listeners.camera("ok", self._camera.description)
        return frame

    async def _camera_lost(self, error: CameraError) -> None:
        if self._lost_since_s is None:
            self._lost_since_s = self._clock()
            log.warning("camera lost while searching: %s", error.message)
            self._listeners.camera("lost", error.message)
        if error.code != "camera_stalled":
            await self._camera_worker.run(self._camera.close)
            await asyncio.sleep(REOPEN_PAUSE_S)
            try:
                await self._camera_worker.run(self._camera.open)
            except CameraError as exc:
                log.warning("cannot reopen the camera: %s", exc.message)

    async def _judge(self, frame: Frame) -> Outcome | None:
        try:
            whole = self._framing.may_decide(frame.captured_at_s)
            assessment = await self._inference_worker.run(self._screener.screen, frame, whole=whole)
        except ModelError as exc:
            self._inference_errors += 1
            log.warning("cannot judge a frame: %s", exc.message)
            failed = self._inference_errors >= MAX_INFERENCE_ERRORS
            return Lost("inference_failed", exc.message) if failed else None
        self._inference_errors = 0
        self._note_picture(assessment.measurement.digest)
        self._listeners.frame(assessment)
        best, hint = self._framing.add(assessment)
        if hint is not None:
            self._listeners.hint(hint.code)
        return None if best is None else Captured(best, await self._encode(best))

    async def _encode(self, best: BestShot) -> bytes:
        from edge_agent.vision.capture import encode_capture

        face = best.assessment.measurement.face
        if face is None:
            raise ModelError("cannot crop the capture: the best shot has no face", code="inference_failed")
        image = best.assessment.frame.image
        return await self._inference_worker.run(encode_capture, image, face.box, self._capture)
