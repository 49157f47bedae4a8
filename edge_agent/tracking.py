"""Is the face in this frame the one of the frame before? Pure; one tracker per session.

A track is unbroken while every frame shows exactly one customer, the face moves and grows only as far as a person
can between two frames, no long gap lies between them, and the aligned faces look alike. Anything else starts a new
track, and with it a new vote (see session.py): that is what stops a swap between two people or a photo slipped in.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, inf

from edge_agent.config import GateSection
from edge_agent.gate import second_face_ratio
from edge_agent.types import Face, Measurement

MAX_SCALE_STEP = 1.4
"""A face does not grow or shrink by more between two frames of one track."""
WHOLE_EVERY_S = 0.3
"""Somebody who steps in beside the face that is followed is seen by the first frame this long after the last whole look."""


@dataclass(frozen=True, slots=True)
class TrackStep:
    """What the tracker says of one frame."""

    track_id: int
    """Counts up from 1; 0 while there is no single face to follow."""
    motion_ied_per_s: float | None
    """Movement since the frame before, inter-eye distances per second; None for the first of a track."""


class Attention:
    """Where to look first in the next frame: at the face that is followed, with a look at the whole often enough.

    Not thread-safe; one per session.
    """

    def __init__(self) -> None:
        self._face: Face | None = None
        self._whole_at_s = -inf

    def near(self, at_s: float) -> Face | None:
        """The face whose surroundings are enough for a frame taken at monotonic ``at_s``; None: look at the whole."""
        return self._face if 0 <= at_s - self._whole_at_s < WHOLE_EVERY_S else None

    def note(self, measurement: Measurement, step: TrackStep, at_s: float) -> None:
        """What came of the look at a frame."""
        self._face = measurement.face if step.track_id > 0 else None
        if measurement.whole:
            self._whole_at_s = at_s


@dataclass(frozen=True, slots=True)
class _Last:
    face: Face
    measurement: Measurement
    at_s: float


class Tracker:
    """Follows the largest face. Not thread-safe."""

    def __init__(self, limits: GateSection) -> None:
        self._limits = limits
        self._track_id = 0
        self._last: _Last | None = None

    def update(self, measurement: Measurement, at_s: float) -> TrackStep:
        """Feed the next frame's measurement, taken at monotonic ``at_s``."""
        face = self._single_face(measurement)
        if face is None:
            self._last = None
            return TrackStep(0, None)
        motion = self._continues(face, measurement, at_s)
        if motion is None:
            self._track_id += 1
        self._last = _Last(face, measurement, at_s)
        return TrackStep(self._track_id, motion)

    def _single_face(self, measurement: Measurement) -> Face | None:
        face = measurement.face
        if face is None or face.score < self._limits.min_face_score or face.inter_eye_px <= 0:
            return None
        if second_face_ratio(measurement, self._limits) >= self._limits.max_second_face_ratio:
            return None
        return face

    def _continues(self, face: Face, measurement: Measurement, at_s: float) -> float | None:
        """Movement per second when ``face`` continues the track, None when it starts another."""
        last = self._last
        if last is None:
            return None
        elapsed_s = at_s - last.at_s
        if elapsed_s <= 0 or elapsed_s > self._limits.max_track_gap_s:
            return None
        unit = min(face.inter_eye_px, last.face.inter_eye_px)
        scale = max(face.inter_eye_px, last.face.inter_eye_px) / unit
        jump_ied = _eye_distance_moved(face, last.face) / unit
        if jump_ied > self._limits.max_track_jump_ied or scale > MAX_SCALE_STEP:
            return None
        if not self._looks_alike(measurement, last.measurement):
            return None
        return jump_ied / elapsed_s

    def _looks_alike(self, now: Measurement, before: Measurement) -> bool:
        """False also where the appearance is missing: what cannot be compared is not the same person."""
        if now.quality is None or before.quality is None:
            return False
        a, b = now.quality.appearance, before.quality.appearance
        if a is None or b is None or a.shape != b.shape:
            return False
        return float(a @ b) >= self._limits.min_track_similarity


def _eye_distance_moved(a: Face, b: Face) -> float:
    """Distance between the eye midpoints of two faces, px."""
    ax, ay = a.landmarks[:2].mean(axis=0)
    bx, by = b.landmarks[:2].mean(axis=0)
    return hypot(float(ax) - float(bx), float(ay) - float(by))
