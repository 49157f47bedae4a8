"""Eyes before which a made-up head turns, for tests of a challenge in a whole terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_agent.types import Face, Frame, Measurement
from tests.faces import face, measurement
from tests.terminal import Eyes

PER_FRAME = 0.01
"""How far the nose moves between two frames, in eye distances: a head takes its time."""
FAR = 0.2
"""Farther than any threshold."""


class TurningEyes(Eyes):
    """``to`` is where the head goes: + = the own left. ``person``: who it is. ``open_eyes``: see challenge/blink.py."""

    def __init__(self, *, sees_eyes: bool = False) -> None:
        super().__init__()
        self.to = 0.0
        self.person = 1
        self.flat = False
        """A picture: its nose stays where it is."""
        self.sees_eyes = sees_eyes
        self.open_eyes = 0.95
        self._at = 0.0

    def measure(self, frame: Frame) -> Measurement:
        self._at += float(np.clip(self.to - self._at, -PER_FRAME, PER_FRAME))
        self.sees = measurement((turned(0.0 if self.flat else self._at),), person=self.person)
        return super().measure(frame)

    def eyes_open(self, frame: Frame, face: Face) -> tuple[float, float]:
        del frame, face
        return self.open_eyes, self.open_eyes


def turned(u: float) -> Face:
    """A face whose nose is ``u`` eye distances beside the middle."""
    straight = face()
    landmarks = straight.landmarks.copy()
    landmarks[2, 0] += u * straight.inter_eye_px
    return replace(straight, landmarks=landmarks)
