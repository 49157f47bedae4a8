"""Screening one frame: measure, check, and only where everything passed ask the liveness models."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

from edge_agent.config import GateSection
from edge_agent.gate import check_frame, check_liveness, quality_score
from edge_agent.tracking import Attention, Tracker
from edge_agent.types import Assessment, Check, Face, Frame, LivenessScore, Measurement


class Vision(Protocol):
    """What screening needs of vision/pipeline.py."""

    def measure(self, frame: Frame) -> Measurement: ...

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]: ...


@runtime_checkable
class AttentiveVision(Vision, Protocol):
    """Vision that is faster where it knows where to look."""

    def measure_near(self, frame: Frame, face: Face) -> Measurement: ...


@runtime_checkable
class RememberingVision(Vision, Protocol):
    """Vision that keeps memory from frame to frame."""

    def forget(self) -> None: ...


class Screener:
    """Screens the frames of one session, or stills. Not thread-safe; an inference error is raised, never judged."""

    def __init__(self, vision: Vision, limits: GateSection) -> None:
        self._vision = vision
        self._attentive = vision if isinstance(vision, AttentiveVision) else None
        self._limits = limits
        self._tracker = Tracker(limits)
        self._attention = Attention()

    def screen(self, frame: Frame, *, whole: bool = False) -> Assessment:
        """Judge the next frame of a sequence: with tracking, motion, and liveness only where the rest passed.

        ``whole``: look at the whole frame, also where the surroundings of the face that is followed would do.
        """
        began = time.perf_counter()
        measurement = self._look(frame, whole=whole)
        step = self._tracker.update(measurement, frame.captured_at_s)
        self._attention.note(measurement, step, frame.captured_at_s)
        checks = check_frame(measurement, self._limits, motion_ied_per_s=step.motion_ied_per_s)
        passed = step.track_id > 0 and all(c.passed is not False for c in checks)
        return self._finish(frame, measurement, checks, began, liveness=passed, track_id=step.track_id)

    def _look(self, frame: Frame, *, whole: bool) -> Measurement:
        near = None if whole else self._attention.near(frame.captured_at_s)
        if near is None or self._attentive is None:
            return self._vision.measure(frame)
        return self._attentive.measure_near(frame, near)

    def still(self, frame: Frame) -> Assessment:
        """Judge a single picture: no tracking, motion not assessed, liveness of any face for the report."""
        began = time.perf_counter()
        measurement = self._vision.measure(frame)
        checks = check_frame(measurement, self._limits)
        return self._finish(frame, measurement, checks, began, liveness=measurement.face is not None, track_id=0)

    def forget(self) -> None:
        """The session is over: nothing of its pictures is kept in memory that is used again."""
        if isinstance(self._vision, RememberingVision):
            self._vision.forget()

    def _finish(
        self,
        frame: Frame,
        measurement: Measurement,
        checks: tuple[Check, ...],
        began: float,
        *,
        liveness: bool,
        track_id: int,
    ) -> Assessment:
        measured = time.perf_counter()
        scores = self._vision.liveness(frame, measurement.face) if liveness and measurement.face else ()
        done = time.perf_counter()
        return Assessment(
            frame=frame,
            measurement=measurement,
            checks=checks + check_liveness(scores, self._limits),
            liveness=scores,
            quality_score=quality_score(measurement.quality, self._limits) if measurement.quality else 0.0,
            track_id=track_id,
            timings_ms={
                **measurement.timings_ms,
                "measure": (measured - began) * 1000.0,
                "liveness": (done - measured) * 1000.0,
                "total": (done - began) * 1000.0,
            },
        )
