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
from typing import TYPE_CHECKING, cast

from edge_agent.camera.guard import MIN_REPEATS, CameraFrozen, FrameFault, FrameLoop
from edge_agent.camera.port import Camera
from edge_agent.challenge.course import Course
from edge_agent.config import CaptureSection, GateSection, SessionSection
from edge_agent.errors import AgentError, CameraError, ModelError
from edge_agent.screening import Screener, Vision
from edge_agent.session import BestShot, Framing
from edge_agent.types import Assessment, ChallengeCode, ChallengeOutcome, Frame, GateCode
from edge_agent.workers import Worker

if TYPE_CHECKING:
    from edge_agent.challenge.blink import EyeSight

log = logging.getLogger(__name__)

READ_S = 0.5
"""A read of the camera is bounded by this, so that the search time is kept."""
LOST_S = 5.0
"""A camera that stays silent or away for so long has failed the session."""
REOPEN_PAUSE_S = 0.5
OVERTIME_S = 60.0
"""A session that lasts so much longer than its search hangs: in the camera's driver, most likely."""
MAX_INFERENCE_ERRORS = 3
"""Consecutive errors of the models after which the session fails."""


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A best shot, and its picture as it will be uploaded."""

    best: BestShot
    jpeg: bytes
    challenge: ChallengeOutcome | None = None
    """None: none was asked for."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The search time ran out and nothing qualified, or the challenge was not passed."""

    reasons: tuple[GateCode, ...]
    challenge: ChallengeCode | None = None
    """Why, where it is the challenge."""
    why: str | None = None
    """How the challenge came to that, for the audit record."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The device failed: no camera, or no inference."""

    code: str
    """``camera_unavailable``, ``camera_frozen`` or ``frame_loop`` of the camera."""
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
        challenge: Course | None = None,
    ) -> None:
        self._camera = camera
        self._camera_worker = camera_worker
        self._inference_worker = inference_worker
        self._capture = capture
        self._listeners = listeners
        self._clock = clock
        started_at_s = clock()
        self._search_ends_s = started_at_s + search_timeout_s
        self._longest_s = search_timeout_s + (challenge.longest_s if challenge else 0.0) + OVERTIME_S
        self._vision = vision
        self._challenge = challenge
        self._screener = Screener(vision, gate)
        self._framing = Framing(
            liveness_frames=session.liveness_frames,
            window_s=session.capture_window_s,
            hint_hold_s=session.hint_hold_s,
            started_at_s=started_at_s,
        )
        self._lost_since_s: float | None = None
        self._fault: FrameFault | None = None
        """Why it is lost, where its pictures are the reason."""
        self._inference_errors = 0
        self._digest = b""
        self._changed_at_s = started_at_s
        self._pictures = self._repeats = 0

    async def run(self) -> Outcome:
        """Film until there is an outcome. Cancellation ends it at the next frame."""
        try:
            async with asyncio.timeout(self._longest_s):
                return await self._run()
        except TimeoutError:
            code = "camera_unavailable" if self._camera_worker.busy_s else AgentError.code
            return Lost(code, "filming did not end in time")
        finally:
            self._inference_worker.soon(self._screener.forget)

    async def _run(self) -> Outcome:
        while not self._challenge_failed() and self._clock() < self._deadline_s:
            frame = await self._next_frame()
            if frame is None:
                if self._given_up() or isinstance(self._fault, FrameLoop):
                    break
                continue
            outcome = await self._judge(frame)
            if outcome is not None:
                return outcome
        if self._fault is not None:
            return Lost(self._fault.code, self._fault.message)
        if self._lost_since_s is not None or self._framing.frames == 0:
            return Lost("camera_unavailable", "the camera delivered no usable frame")
        if self._frozen():
            return Lost(CameraFrozen.code, "the camera repeats its last picture")
        if self._challenge is None:
            return Rejected(self._framing.reasons())
        return Rejected(self._framing.reasons(), self._challenge.code, self._challenge.why)

    @property
    def _deadline_s(self) -> float:
        """The search's, or the challenge's where that is later."""
        return max(self._search_ends_s, self._challenge.until_s) if self._challenge else self._search_ends_s

    def _challenge_failed(self) -> bool:
        return self._challenge is not None and self._challenge.tick() is not None

    def _frozen(self) -> bool:
        """True when it has shown one and the same picture, from the beginning or for long: black, or of a replay."""
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
            self._lost_since_s = self._fault = None
            self._listeners.camera("ok", self._camera.description)
        return frame

    async def _camera_lost(self, error: CameraError) -> None:
        if isinstance(error, FrameFault):
            self._fault = error
        if self._lost_since_s is None:
            self._lost_since_s = self._clock()
            log.warning("camera lost while searching: %s", error.message)
            self._listeners.camera("lost", error.message)
        if error.code != "camera_stalled" and not isinstance(error, FrameLoop):
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
        best, hint = self._framing.add(assessment, self._excused)
        if self._challenge is not None:
            try:
                eyes = await self._eyes(assessment)
            except ModelError as exc:
                return Lost("inference_failed", exc.message)
            best = self._challenge.judge(assessment, best, eyes)
        if hint is not None:
            self._listeners.hint(hint.code)
        if best is None:
            return None
        outcome = self._challenge.outcome if self._challenge else None
        return Captured(best, await self._encode(best), outcome)

    def _excused(self, code: GateCode | None) -> bool:
        return self._challenge is not None and self._challenge.excuses(code)

    async def _eyes(self, assessment: Assessment) -> tuple[float, float] | None:
        """How open they are, where the challenge asks. Raises ModelError."""
        face = assessment.measurement.face
        if self._challenge is None or not self._challenge.wants_eyes or face is None:
            return None
        sight = cast("EyeSight", self._vision)  # only where it can: verifications.py
        return await self._inference_worker.run(sight.eyes_open, assessment.frame, face)

    async def _encode(self, best: BestShot) -> bytes:
        from edge_agent.vision.capture import encode_capture

        face = best.assessment.measurement.face
        if face is None:
            raise ModelError("cannot crop the capture: the best shot has no face", code="inference_failed")
        image = best.assessment.frame.image
        return await self._inference_worker.run(encode_capture, image, face.box, self._capture)
