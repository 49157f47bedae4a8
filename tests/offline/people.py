"""Made-up people: a picture of a person is noise of one grey, and the scripted embedder tells people by it."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from edge_agent.packs.manifest import Pack, load_pack
from edge_agent.types import Embedding, Face, Frame, Image
from tests.faces import appearance_of
from tests.terminal import Eyes, NoiseCamera

DARKEST, STEP = 40.0, 40.0


@cache
def image_of(person: int, take: int = 0, size: tuple[int, int] = (320, 320)) -> Image:
    """uint8 BGR; ``take`` gives another picture of the same person."""
    rng = np.random.default_rng((person, take))
    grey = DARKEST + STEP * person
    noise: Image = np.clip(rng.normal(grey, 12.0, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    return noise


@cache
def jpeg_of(person: int, take: int = 0) -> bytes:
    return bytes(cv2.imencode(".jpg", image_of(person, take))[1].tobytes())


class FaceEyes(Eyes):
    """Sees a good face everywhere, and knows whose it is."""

    def __init__(self, pack: str = "open") -> None:
        super().__init__()
        self.pack: Pack = load_pack(pack)
        self.embedded = 0

    def embed(self, frame: Frame, face: Face) -> Embedding:
        del face
        self.embedded += 1
        person = round((float(frame.image.mean()) - DARKEST) / STEP)
        vector: Embedding = appearance_of(person)
        return vector


class PersonCamera(NoiseCamera):
    """A camera that somebody stands before."""

    def __init__(self) -> None:
        super().__init__()
        self.person = 1

    def read(self, timeout_s: float) -> Frame:
        frame = super().read(timeout_s)
        return Frame(image_of(self.person, 0, (1280, 720)), frame.captured_at_s, frame.index)
