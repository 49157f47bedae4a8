"""``head_turn``: the judge of one asked turn. Pure; times are given.

It follows one face: learns what ``u`` and ``a`` are while the head looks straight (the neutral pose), then watches for
the asked turn. Where frames are lost, the face jumps or the track changes, all is forgotten: a turn counts only as one
unbroken movement. The reasons of the numbers are in docs/challenge.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import ClassVar, Final

from edge_agent.challenge.geometry import Turn, measure_turn
from edge_agent.challenge.pace import Pace
from edge_agent.types import Landmarks

MAX_JUMP: Final = 0.15
"""The raw u does not change by more between two frames: a head turns, pictures are exchanged."""
MAX_LOST_FRAMES: Final = 3
MIN_INTER_EYE_PX: Final = 30.0
LEAVES_NEUTRAL: Final = 0.3
"""Share of the threshold from which a head is on its way."""
HOLD_FRAMES: Final = 3
ASPECT_KEPT: Final = (0.88, 1.12)
"""a / a0 while the turn is held: a head that turns a little keeps its proportions, a plane that is tilted far does not."""


class Side(StrEnum):
    """Where the customer is asked to turn (wire values): the customer's own side."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def sign(self) -> int:
        """Of u - u0."""
        return 1 if self is Side.LEFT else -1


@dataclass(frozen=True, slots=True)
class Reading:
    """What one frame said."""

    u: float | None
    """Smoothed u - u0, + = the own left, mirroring undone; None before a neutral pose is known and for a frame that
    gave no measurement."""
    neutral: bool
    """A neutral pose is known, and in this frame the head is in it."""
    progress: float
    """0-1 of the way to the threshold on the asked side; 0 while nothing is asked."""
    turned: bool
    """The asked turn has been made, now or before."""
    reset: str | None
    """``face_lost``, ``jump`` or ``track_changed``: all is forgotten, what was asked as well; begin again."""
    inconclusive: str | None
    """``too_slow`` (frames come too seldom) or ``too_small`` (the face is): nothing is judged in this frame."""


class TurnCue:
    """Judges the turns of one face. Not thread-safe."""

    THRESHOLD: ClassVar = 0.12

    def __init__(self, threshold: float = THRESHOLD, *, mirrored: bool = False) -> None:
        """``threshold``: T, eye distances of the template. ``mirrored``: the source shows a mirror image."""
        self._threshold = threshold
        self._mirrored = mirrored
        self._pace = Pace()
        self._begin_again()

    def _begin_again(self) -> None:
        self._track_id: int | None = None
        self._lost_frames = 0
        self._last_u: float | None = None
        self._follower = _Follower()
        self._asked: _Asked | None = None

    def ask(self, side: Side) -> None:
        """From now on a turn to ``side`` is judged, from the beginning; the neutral pose is kept."""
        self._asked = _Asked(side.sign, self._threshold)

    def add(self, at_s: float, landmarks: Landmarks | None, track_id: int) -> Reading:
        """Judge the next frame, captured at monotonic ``at_s``. ``landmarks`` None: no face to follow in it.

        A change of ``track_id`` between frames with a face is a reset, and so is a time that does not increase.
        """
        turn = self._measure(landmarks)
        reset = self._broken(self._pace.add(at_s), turn, track_id)
        if reset is not None:
            self._begin_again()
        if turn is None or landmarks is None:
            self._lost_frames += 1
            return self._unjudged(reset, None)
        self._track_id, self._lost_frames, self._last_u = track_id, 0, turn.u
        inconclusive = self._inconclusive(landmarks)
        if inconclusive is not None:
            return self._unjudged(reset, inconclusive)
        return self._judge(turn, reset)

    def _measure(self, landmarks: Landmarks | None) -> Turn | None:
        turn = None if landmarks is None else measure_turn(landmarks)
        return Turn(-turn.u, turn.a) if turn is not None and self._mirrored else turn

    def _broken(self, in_order: bool, turn: Turn | None, track_id: int) -> str | None:
        """Why this frame does not go on with what was followed, None where it does or nothing was followed."""
        if self._track_id is None:
            return None
        if turn is None:
            return "face_lost" if self._lost_frames >= MAX_LOST_FRAMES else None
        if track_id != self._track_id or not in_order:
            return "track_changed"
        jumped = self._last_u is not None and abs(turn.u - self._last_u) > MAX_JUMP
        return "jump" if jumped else None

    def _inconclusive(self, landmarks: Landmarks) -> str | None:
        dx, dy = landmarks[1] - landmarks[0]
        if dx * dx + dy * dy < MIN_INTER_EYE_PX**2:
            return "too_small"
        return "too_slow" if self._pace.too_slow else None

    def _unjudged(self, reset: str | None, inconclusive: str | None) -> Reading:
        if self._asked is not None:
            self._asked.interrupt()
        return self._reading(None, reset, inconclusive)

    def _judge(self, turn: Turn, reset: str | None) -> Reading:
        pose = self._follower.add(turn, self._pace.window)
        if pose is not None and self._asked is not None:
            self._asked.add(pose, self._pace.least_on_the_way)
        return self._reading(pose, reset, None)

    def _reading(self, pose: _Pose | None, reset: str | None, inconclusive: str | None) -> Reading:
        asked = self._asked
        return Reading(
            u=None if pose is None else pose.u,
            neutral=pose is not None and abs(pose.u) <= LEAVES_NEUTRAL * self._threshold and pose.keeps_aspect,
            progress=0.0 if asked is None else asked.progress,
            turned=asked is not None and asked.passed,
            reset=reset,
            inconclusive=inconclusive,
        )


@dataclass(frozen=True, slots=True)
class _Pose:
    """One frame against the neutral pose."""

    u: float
    """Smoothed u - u0."""
    raw_u: float
    """u - u0 of this frame alone."""
    aspect: float
    """Smoothed a / a0."""

    @property
    def keeps_aspect(self) -> bool:
        return ASPECT_KEPT[0] <= self.aspect <= ASPECT_KEPT[1]


class _Follower:
    """Smooths the measurements and learns the neutral pose."""

    FRAMES: Final = 8
    MAX_U: Final = 0.15
    MAX_RANGE: Final = 0.06
    ASPECT: Final = (0.72, 1.25)

    def __init__(self) -> None:
        self._raw: deque[Turn] = deque(maxlen=Pace.LONGEST_WINDOW)
        self._smoothed: deque[Turn] = deque(maxlen=self.FRAMES)
        self._neutral: Turn | None = None

    def add(self, turn: Turn, window: int) -> _Pose | None:
        """None while too few frames are known, or no neutral pose is."""
        self._raw.append(turn)
        if len(self._raw) < window:
            return None
        now = _medians(list(self._raw)[-window:])
        self._smoothed.append(now)
        neutral = self._neutral = self._neutral or self._found_neutral()
        return None if neutral is None else _Pose(now.u - neutral.u, turn.u - neutral.u, now.a / neutral.a)

    def _found_neutral(self) -> Turn | None:
        us = [turn.u for turn in self._smoothed]
        still = len(us) == self.FRAMES and max(us) - min(us) <= self.MAX_RANGE
        straight = all(abs(t.u) <= self.MAX_U and self.ASPECT[0] <= t.a <= self.ASPECT[1] for t in self._smoothed)
        return _medians(list(self._smoothed)) if still and straight else None


def _medians(turns: list[Turn]) -> Turn:
    return Turn(median(turn.u for turn in turns), median(turn.a for turn in turns))


class _Asked:
    """One asked turn: on the way, held, passed."""

    def __init__(self, sign: int, threshold: float) -> None:
        self._sign, self._threshold = sign, threshold
        self._way = _Way(LEAVES_NEUTRAL * threshold, threshold)
        self._held = 0
        self.passed = False
        self.progress = 0.0

    def add(self, pose: _Pose, least_on_the_way: int) -> None:
        raw, smoothed = self._sign * pose.raw_u, self._sign * pose.u
        self._way.add(raw)
        self._held = self._held + 1 if smoothed >= self._threshold and pose.keeps_aspect else 0
        self.passed = self.passed or (self._held >= HOLD_FRAMES and self._way.samples >= least_on_the_way)
        self.progress = 1.0 if self.passed else min(1.0, max(0.0, smoothed / self._threshold))

    def interrupt(self) -> None:
        """A frame that says nothing ends the hold."""
        self._held = 0


class _Way:
    """Counts the raw samples between the poses, on either side of the neutral one, until the threshold is reached.

    Who turns from one side to the other is fastest in the middle; there the way is twice as long. Nothing is counted
    behind the threshold, nor near the far side: of two pictures shown one after the other either would give samples in
    between by its noise alone.
    """

    def __init__(self, leaves: float, arrives: float) -> None:
        self._leaves, self._arrives = leaves, arrives
        self._arrived = False
        self.samples = 0

    def add(self, raw: float) -> None:
        back = self._arrived and raw < self._leaves
        if back or raw <= -self._arrives:
            self._arrived, self.samples = False, 0
        if raw >= self._arrives:
            self._arrived = True
        elif not self._arrived and self._leaves <= abs(raw) < self._arrives:
            self.samples += 1
