"""Frames screened as new and as followed ones, the bare models and the stages, by turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.bench.figures import Spread, spread, timed
from edge_agent.bench.scenes import Scene, frames
from edge_agent.bench.watched import WatchedPipeline, run_floor
from edge_agent.config import CaptureSection, GateSection
from edge_agent.errors import InputError
from edge_agent.picture import read_picture
from edge_agent.screening import Screener
from edge_agent.types import Assessment, Frame, Image
from edge_agent.vision.annotate import encode_jpeg
from edge_agent.vision.capture import encode_capture

WARM_UP = 5
CAMERA_QUALITY = 90
"""Of the motion JPEG that a camera sends."""


@dataclass(slots=True)
class Samples:
    """Seconds by kind of work, in the order in which they were measured."""

    of: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.of.setdefault(name, []).append(seconds)

    def spread(self, name: str) -> Spread:
        """Without the first ones, which warm up."""
        return spread(self.of[name][WARM_UP:])

    def named(self, prefix: str) -> dict[str, Spread]:
        return {name.removeprefix(prefix): self.spread(name) for name in self.of if name.startswith(prefix)}


@dataclass(frozen=True, slots=True)
class Cost:
    """Screening a frame of one scene."""

    scene: Scene
    found: int
    """Faces that the detector saw."""
    liveness: bool
    """Whether the liveness models were asked: only where everything before them passed."""
    untracked: Spread
    tracked: Spread


class Turns:
    """One pipeline on the frames of one scene. Number after number, as a camera gives them."""

    def __init__(self, pipeline: WatchedPipeline, frame: Callable[[int], Frame]) -> None:
        self._pipeline = pipeline
        self._frame = frame
        self._following = self._new()
        self._following.screen(frame(0))
        self.samples = Samples()

    def _new(self) -> Screener:
        return Screener(self._pipeline, GateSection())

    def screen(self, number: int) -> Assessment:
        """One frame as the first of a session, and as the next of one that follows the face."""
        frame = self._frame(number)
        self._pipeline.forget_times()
        untracked_s, assessment = timed(lambda: self._new().screen(frame))
        self._note_stages(assessment)
        tracked_s, _ = timed(lambda: self._following.screen(frame))
        self.samples.add("untracked", untracked_s)
        self.samples.add("tracked", tracked_s)
        return assessment

    def _note_stages(self, assessment: Assessment) -> None:
        times = assessment.timings_ms
        for stage in ("detect", "quality", "liveness"):
            self.samples.add(f"stage {stage}", times[stage] / 1000.0)
        other_ms = times["total"] - times["detect"] - times["quality"] - times["liveness"]
        self.samples.add("stage other", max(0.0, other_ms) / 1000.0)
        for name, session in self._pipeline.sessions.items():
            self.samples.add(f"model {name}", session.took_s)

    def note_edges(self, assessment: Assessment) -> None:
        """What lies before and behind the screening: a frame of the camera decoded, the capture encoded."""
        image = assessment.frame.image
        sent = encode_jpeg(image, CAMERA_QUALITY)
        self.samples.add("stage read", timed(lambda: read_picture(sent))[0])
        face = assessment.measurement.face
        if face is not None:
            self.samples.add("stage encode", timed(lambda: encode_capture(image, face.box, CaptureSection()))[0])

    def floors(self, number: int) -> Callable[[], None]:
        """A way to run the bare models on the inputs of this frame, as a new and as a followed one."""
        frame = self._frame(number)
        self._pipeline.keep_inputs(keep=True)
        self._new().screen(frame)
        asked = self._pipeline.keep_inputs(keep=True)
        self._following.screen(frame)
        asked_following = self._pipeline.keep_inputs(keep=False)

        def run() -> None:
            self.samples.add("floor", timed(lambda: run_floor(asked))[0])
            self.samples.add("tracked_floor", timed(lambda: run_floor(asked_following))[0])

        return run


def by_turns(pipeline: WatchedPipeline, scene: Scene, person: Image, count: int) -> Samples:
    """``count`` frames, after some that warm up. Raises InputError when the gate refuses the face."""
    turns = Turns(pipeline, frames(scene, person))
    floors = turns.floors(1)
    for number in range(2, count + WARM_UP + 2):
        assessment = turns.screen(number)
        if not assessment.liveness:
            raise _refused(assessment)
        floors()
        turns.note_edges(assessment)
    return turns.samples


def cost(pipeline: WatchedPipeline, scene: Scene, person: Image, count: int) -> Cost:
    """What a scene costs, whatever the gate says to it."""
    turns = Turns(pipeline, frames(scene, person))
    seen = [turns.screen(number) for number in range(1, count + WARM_UP + 1)][-1]
    found, liveness = len(seen.measurement.faces), bool(seen.liveness)
    return Cost(scene, found, liveness, turns.samples.spread("untracked"), turns.samples.spread("tracked"))


def _refused(assessment: Assessment) -> InputError:
    why = ", ".join(assessment.reasons) or "the liveness models were not asked"
    return InputError(
        f"cannot measure the pipeline: the gate refuses the picture ({why}), so no liveness model would run",
        code="picture_refused",
        hint="give a sharp portrait that edge-agent screen accepts with --picture",
    )
