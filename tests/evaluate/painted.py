"""Pictures that say what is to be seen in them, and vision that reads it off: no models, no faces.

Blue is ten times the person, green the variant of the capture, red 250 times the liveness score; the height says how
good the face is. A variant turns the person's embedding by so many degrees.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import load_pack
from edge_agent.types import Embedding, Face, Frame, Image, LivenessScore, Measurement
from tests.faces import measurement, scores

HEIGHTS = {"good": 48, "far": 40, "none": 32, "broken": 24}


def painted(person: int = 1, *, live: float = 0.9, variant: int = 0, kind: str = "good") -> Image:
    """uint8 (H, 48, 3): one of the kinds of HEIGHTS; ``broken`` makes the embedder fail."""
    image = np.empty((HEIGHTS[kind], 48, 3), np.uint8)
    image[:] = (person * 10, variant, round(live * 250))
    return image


def put(path: Path, image: Image) -> Path:
    """Write it as PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


class PaintedEyes:
    """Stands in for ``vision.pipeline.Pipeline``."""

    def __init__(self, pack: str = "open") -> None:
        self.pack = load_pack(pack)

    def measure(self, frame: Frame) -> Measurement:
        height, person = frame.image.shape[0], round(int(frame.image[0, 0, 0]) / 10)
        faces = () if height == HEIGHTS["none"] else None
        distance_px = 20.0 if height == HEIGHTS["far"] else 100.0
        return measurement(faces, person=person, digest=b"%d" % frame.index, inter_eye_px=distance_px)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del face
        score = round(int(frame.image[0, 0, 2]) / 250, 2)
        return scores(score, score)

    def embed(self, frame: Frame, face: Face) -> Embedding:
        """Persons are at right angles to one another, in a plane of their own each."""
        del face
        if frame.image.shape[0] == HEIGHTS["broken"]:
            raise ModelError("cannot run the embedder", code="inference_failed")
        person, angle = round(int(frame.image[0, 0, 0]) / 10), np.deg2rad(int(frame.image[0, 0, 1]))
        vector = np.zeros(64, np.float32)
        vector[2 * person : 2 * person + 2] = np.cos(angle), np.sin(angle)
        return vector
