"""Made-up measurements for tests of the gate and the vote: no pixels, no models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_agent.config import GateSection
from edge_agent.screening import Screener
from edge_agent.types import Assessment, Box, Face, FaceQuality, Frame, HeadPose, LivenessScore, Measurement

LIMITS = GateSection()
THRESHOLD = 0.5
MODELS = ("first", "second")


def appearance_of(person: int) -> np.ndarray:
    """A unit vector per person: different people are uncorrelated, the same person equal."""
    rng = np.random.default_rng(person)
    vector = rng.standard_normal(256)
    vector -= vector.mean()
    return (vector / np.linalg.norm(vector)).astype(np.float32)


GOOD = FaceQuality(
    inter_eye_px=100.0,
    face_height_ratio=0.4,
    margin_left_ied=2.0,
    margin_top_ied=1.0,
    margin_right_ied=2.0,
    margin_bottom_ied=1.0,
    pose=HeadPose(0.0, 0.0, 0.0),
    sharpness=0.8,
    luminance=0.5,
    dark_share=0.0,
    bright_share=0.0,
    light_uniformity=0.9,
    dynamic_range_bits=7.0,
    appearance=appearance_of(1),
)


def face(x: float = 640.0, y: float = 360.0, inter_eye: float = 100.0, score: float = 0.9) -> Face:
    half = inter_eye / 2
    landmarks = np.array(
        [
            [x - half, y],
            [x + half, y],
            [x, y + half],
            [x - half * 0.8, y + inter_eye],
            [x + half * 0.8, y + inter_eye],
        ],
        np.float32,
    )
    box = Box(x - inter_eye, y - inter_eye, x + inter_eye, y + 1.6 * inter_eye)
    return Face(box, landmarks, score)


def measurement(
    faces: tuple[Face, ...] | None = None, *, person: int = 1, digest: bytes = b"", **changes: object
) -> Measurement:
    """One good frame, with whatever is to be different."""
    found = (face(),) if faces is None else faces
    quality = replace(GOOD, **{"appearance": appearance_of(person), **changes}) if found else None  # type: ignore[arg-type]
    return Measurement(1280, 720, found, quality, digest)


def scores(*values: float | None) -> tuple[LivenessScore, ...]:
    return tuple(LivenessScore(m, v, THRESHOLD, 0.0) for m, v in zip(MODELS, values, strict=False))


class Script:
    """Vision that plays prepared measurements and scores instead of looking at pixels."""

    def __init__(self) -> None:
        self.next_measurement = measurement()
        self.next_scores = scores(0.9, 0.9)
        self.asked_liveness = 0

    def measure(self, frame: Frame) -> Measurement:
        del frame
        return self.next_measurement

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del frame, face
        self.asked_liveness += 1
        return self.next_scores


class Scene:
    """A camera scene: each call shows one more frame to a screener and returns its assessment."""

    def __init__(self, limits: GateSection = LIMITS, *, fps: float = 10.0, start_s: float = 100.0) -> None:
        self.script = Script()
        self.screener = Screener(self.script, limits)
        self.step_s = 1.0 / fps
        self.now_s = start_s
        self.index = 0

    def show(
        self,
        m: Measurement | None = None,
        live: tuple[LivenessScore, ...] | None = None,
        *,
        repeat: bool = False,
        gap_s: float | None = None,
    ) -> Assessment:
        self.now_s += self.step_s if gap_s is None else gap_s
        if not repeat or self.index == 0:
            self.index += 1
        shown = m if m is not None else measurement()
        self.script.next_measurement = replace(shown, digest=b"%d" % self.index)
        self.script.next_scores = live if live is not None else scores(0.9, 0.9)
        pixels = np.zeros((2, 2, 3), np.uint8)
        return self.screener.screen(Frame(pixels, self.now_s, self.index))
