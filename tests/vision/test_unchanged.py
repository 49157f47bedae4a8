"""Looking first where the face was decides nothing otherwise: the same frames through it and through whole looks only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from skimage import data

from edge_agent.camera.clip import Clip
from edge_agent.camera.sway import SwayingStill
from edge_agent.config import GateSection, SessionSection
from edge_agent.packs.manifest import load_pack
from edge_agent.screening import Screener, Vision
from edge_agent.session import BestShot, Framing
from edge_agent.types import Assessment, Face, Frame, Image, LivenessScore, Measurement
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline
from tests.vision.conftest import Picture

FPS = 12.0
PEOPLE = ["id_obama_1.jpg", "single_woman_stock.jpg"]
OTHERS = {"attack_print_minivision_F1.jpg": 6, "multi_obama_biden_1.jpg": 3}
"""How many frames show it: nothing comes of more."""
CLOSE = 1e-2
"""Of scores: a box that is a pixel wider changes a single one by more, as the next frame does."""


class WholeLooks:
    """The same models without ``measure_near``."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def measure(self, frame: Frame) -> Measurement:
        return self._pipeline.measure(frame)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        return self._pipeline.liveness(frame, face)


@dataclass
class Outcome:
    """What a session made of some frames."""

    seen: list[Assessment]
    best: BestShot | None

    @property
    def in_part(self) -> int:
        return sum(not one.measurement.whole for one in self.seen)


def session(vision: Vision, frames: Sequence[Frame]) -> Outcome:
    settings = SessionSection()
    screener = Screener(vision, GateSection())
    framing = Framing(
        liveness_frames=settings.liveness_frames, window_s=settings.capture_window_s, hint_hold_s=0.5, started_at_s=-1.0
    )
    seen = []
    for frame in frames:
        seen.append(screener.screen(frame, whole=framing.may_decide(frame.captured_at_s)))
        best, _ = framing.add(seen[-1])
        if best is not None:
            return Outcome(seen, best)
    return Outcome(seen, None)


def standing(picture: Image, frames: int = 13) -> list[Frame]:
    still = SwayingStill(picture, (1280, 720))
    return [Frame(still.frame(i, i / FPS), i / FPS, i) for i in range(frames)]


def expect_the_same(pipeline: Pipeline, frames: list[Frame]) -> Outcome:
    """The frames through both ways, frame by frame; returns the one with looks at a part."""
    attentive, plain = session(pipeline, frames), session(WholeLooks(pipeline), frames)
    assert (attentive.best is None) is (plain.best is None)
    pairs = list(zip(attentive.seen, plain.seen, strict=True))
    assert [(a.reasons[:1], a.accepted) for a, _ in pairs] == [(b.reasons[:1], b.accepted) for _, b in pairs]
    assert median(abs(a.quality_score - b.quality_score) for a, b in pairs) <= CLOSE
    scores = [(s.score or 0.0, t.score or 0.0) for a, b in pairs for s, t in zip(a.liveness, b.liveness, strict=True)]
    assert median(abs(ours - theirs) for ours, theirs in scores or [(0.0, 0.0)]) <= CLOSE
    if attentive.best is not None and plain.best is not None:
        fused = [[s.score for s in best.liveness] for best in (attentive.best, plain.best)]
        assert fused[0] == pytest.approx(fused[1], abs=CLOSE)
        assert attentive.best.votes == plain.best.votes
        assert attentive.best.assessment.measurement.whole
    return attentive


@pytest.mark.parametrize("pack", ["open", "scrfd-minifas"])
def test_people_and_attacks_are_decided_as_by_whole_looks(models_dir: Path, picture: Picture, pack: str) -> None:
    pipeline = open_pipeline(load_pack(pack), models_dir)
    for name in PEOPLE:
        outcome = expect_the_same(pipeline, standing(picture(name)))
        assert outcome.best is not None
        assert outcome.in_part >= 8
    for name, frames in OTHERS.items():
        assert expect_the_same(pipeline, standing(picture(name), frames)).best is None


def test_a_clip_is_decided_as_by_whole_looks(models_dir: Path, assets: Path) -> None:
    clip = Clip(assets / "videos/sim_live_T1.mp4", default_fps=10.0, loop=False)
    frames = list[Frame]()
    while len(frames) < 25 and (image := clip.image(len(frames))) is not None:
        frames.append(Frame(image, len(frames) / clip.fps, len(frames)))
    clip.close()
    outcome = expect_the_same(open_pipeline(load_pack("scrfd-minifas"), models_dir), frames)
    assert outcome.in_part >= 10


@pytest.mark.packs
def test_the_default_pack_decides_the_same_of_a_person_who_stands_there(open_pack: Pipeline) -> None:
    astronaut = np.ascontiguousarray(data.astronaut()[:, :, ::-1].repeat(2, 0).repeat(2, 1)[:720])
    assert expect_the_same(open_pack, standing(astronaut)).in_part >= 8
