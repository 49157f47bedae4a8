"""Somebody who turns the head, or a picture that does not: painted pictures whose green level is how far the nose moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge_agent.types import Frame, Image, Measurement
from tests.evaluate.painted import PaintedEyes, painted
from tests.faces import face, measurement

STILL, LEFT, RIGHT = 0.0, 0.17, -0.17
"""How far the nose is from the middle, eye distances: + = the own left."""
_LEVELS = 300.0


class TurningEyes(PaintedEyes):
    """Sees the nose where the picture says; the gate accepts every picture with a face."""

    def measure(self, frame: Frame) -> Measurement:
        found = super().measure(frame)
        if not found.faces:
            return found
        shift_px = (int(frame.image[0, 0, 1]) - 128) / _LEVELS * 100.0
        seen = face()
        landmarks = seen.landmarks + np.array([[0, 0], [0, 0], [shift_px, 0], [0, 0], [0, 0]], np.float32)
        person = round(int(frame.image[0, 0, 0]) / 10)
        return measurement((replace(seen, landmarks=landmarks),), person=person, digest=found.digest)


def turned(nose: float, *, live: float = 0.9, person: int = 1) -> Image:
    return painted(person, live=live, variant=round(128 + nose * _LEVELS))


def movement(*targets: float, way: int = 8, stay: int = 8, begin: int = 24) -> list[float]:
    """Noses frame by frame: straight for a while, then to each target in turn, and there for a moment."""
    noses, at = [STILL] * begin, STILL
    for target in targets:
        noses += [at + (target - at) * (i + 1) / way for i in range(way)] + [target] * stay
        at = target
    return noses


def clip(path: Path, noses: Iterable[float], *, live: float = 0.9, fps: float = 15.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (48, 48))
    for nose in noses:
        writer.write(turned(nose, live=live))
    writer.release()
    return path


def frames(images: Sequence[Image], *, fps: float = 15.0) -> list[Frame]:
    return [Frame(image, i / fps, i) for i, image in enumerate(images)]
