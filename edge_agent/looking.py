"""What somebody who mounts a camera is shown: picture after picture, and what the gate makes of each. Nothing is kept."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.camera.port import Camera
from edge_agent.config import Config
from edge_agent.errors import AgentError, CameraError, ModelError
from edge_agent.report import assessment_json, rounded
from edge_agent.screening import Screener, Vision
from edge_agent.session import HintHold
from edge_agent.texts import hint_text
from edge_agent.types import Assessment, Frame, JsonObject
from edge_agent.workers import Worker

READ_S = 0.5
"""A read of the camera is bounded by this, so that whoever needs the camera has it soon."""
REOPEN_PAUSE_S = 0.5
LEAST_S = 0.1
"""Between two looks: more than ten a second help nobody, and the processor has other work."""
RATE_S = 3.0
"""The frame rate is counted over this time."""
MAX_SIDE_PX = 960
JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One picture and its judgement; or, without a picture, what is wrong with the camera."""

    jpeg: bytes
    """Empty where there is no picture."""
    frame: Frame | None
    fps: float | None
    """What the camera delivers, frames per second, those included that nobody read."""
    assessment: Assessment | None
    hint: JsonObject | None
    """``code`` (null: all is well) and ``text`` that a customer would be shown; None before the first."""
    scene_sharpness: float | None
    """0 and up, of the middle of the picture at its full resolution; see vision/sharpness.py."""
    problem: AgentError | None

    def as_json(self) -> JsonObject:
        """The judgement by the contract of ``edge-agent screen``, and what is here beside it."""
        height, width = self.frame.image.shape[:2] if self.frame is not None else (None, None)
        problem = self.problem
        return {
            "jpeg": base64.b64encode(self.jpeg).decode() if self.jpeg else None,
            "size": [width, height] if width else None,
            "index": self.frame.index if self.frame is not None else None,
            "fps": rounded(self.fps, 1),
            "judged": assessment_json(self.assessment) if self.assessment is not None else None,
            "hint": self.hint,
            "scene_sharpness": rounded(self.scene_sharpness, 3),
            "problem": problem and {"code": problem.code, "detail": problem.message, "hint": problem.hint},
        }


class Looking:
    """Looks through one open camera, one look at a time; used from the event loop's thread."""

    def __init__(
        self,
        camera: Camera,
        vision: Vision | AgentError,
        config: Config,
        *,
        camera_worker: Worker,
        inference_worker: Worker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``vision``: the models, or why there are none; then there are pictures without a judgement."""
        self._camera, self._clock = camera, clock
        self._camera_worker, self._inference_worker = camera_worker, inference_worker
        self._no_vision = vision if isinstance(vision, AgentError) else None
        self._screener = None if isinstance(vision, AgentError) else Screener(vision, config.gate)
        self._hints = HintHold(config.session.hint_hold_s)
        self._rate: deque[tuple[int, float]] = deque()
        self._began_s = -LEAST_S

    async def next(self) -> Look:
        """The next look. What goes wrong is a look too. Cancelling it ends at the next frame.

        Raises nothing but what is no error of ours.
        """
        await asyncio.sleep(max(0.0, self._began_s + LEAST_S - self._clock()))
        self._began_s = self._clock()
        try:
            frame = await self._camera_worker.run(self._camera.read, READ_S)
        except CameraError as exc:
            await self._mend(exc)
            return Look(b"", None, None, None, None, None, exc)
        return await self._inference_worker.run(self._look, frame)

    def end(self) -> None:
        """Nobody looks any more."""
        if self._screener is not None:
            self._inference_worker.soon(self._screener.forget)

    async def _mend(self, error: CameraError) -> None:
        """Open the camera again, unless it is only slow."""
        if error.code == "camera_stalled":
            return
        await self._camera_worker.run(self._camera.close)
        await asyncio.sleep(REOPEN_PAUSE_S)
        try:
            await self._camera_worker.run(self._camera.open)
        except CameraError as exc:
            error.hint = exc.hint or error.hint  # the next read says it again, and so does the page

    def _look(self, frame: Frame) -> Look:
        from edge_agent.vision.annotate import shown_jpeg
        from edge_agent.vision.sharpness import scene_sharpness

        assessment, problem = self._judge(frame)
        return Look(
            jpeg=shown_jpeg(frame.image, max_side_px=MAX_SIDE_PX, quality=JPEG_QUALITY),
            frame=frame,
            fps=self._fps(frame),
            assessment=assessment,
            hint=self._hint(assessment),
            scene_sharpness=scene_sharpness(frame.image),
            problem=problem,
        )

    def _judge(self, frame: Frame) -> tuple[Assessment | None, AgentError | None]:
        if self._screener is None:
            return None, self._no_vision
        try:
            return self._screener.screen(frame, whole=True), None  # nothing of the picture may go unassessed here
        except ModelError as exc:
            return None, exc

    def _hint(self, assessment: Assessment | None) -> JsonObject | None:
        if assessment is None:
            return None
        reasons = assessment.reasons
        self._hints.update(reasons[0] if reasons else None, assessment.frame.captured_at_s)
        shown = self._hints.shown
        if shown is None:
            return None
        return {"code": shown.code.value if shown.code else None, "text": hint_text(shown.code)}

    def _fps(self, frame: Frame) -> float | None:
        seen, now_s = self._rate, frame.captured_at_s
        if seen and frame.index <= seen[-1][0]:  # it was opened again
            seen.clear()
        seen.append((frame.index, now_s))
        while now_s - seen[0][1] > RATE_S:
            seen.popleft()
        first, since_s = seen[0]
        return (frame.index - first) / (now_s - since_s) if now_s > since_s else None
