"""The challenge of the demo: its head and its flat picture before the real detector, and the command itself."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edge_agent.challenge.course import Course
from edge_agent.challenge.prompts import News
from edge_agent.config import GateSection, LivenessSection
from edge_agent.demo.challenge import FAR_DEG, PER_TICK_DEG, SIDES, close_up
from edge_agent.demo.head import turned_head, turned_picture
from edge_agent.packs.manifest import load_pack
from edge_agent.screening import Screener
from edge_agent.session import Framing
from edge_agent.types import ChallengeCode, ChallengeOutcome, Face, Frame, Image, Landmarks, LivenessScore, Measurement
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline

FRAME_S = 0.1
"""The made-up clock's: the machine may take as long as it likes."""


class Seeing:
    """The real detector and quality; the models of liveness are not asked."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def measure(self, frame: Frame) -> Measurement:
        return self._pipeline.measure(frame)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del frame, face
        return (LivenessScore("made_up", 0.9, 0.5, 0.0),)


class Stage:
    """What is asked is done, a few degrees a frame, before a camera whose clock is made up."""

    def __init__(self, vision: Seeing, render: Callable[[float], Image], far_deg: float) -> None:
        self.now_s, self._at_deg, self._aim_deg, self._far_deg = 100.0, 0.0, 0.0, far_deg
        self._render, self._noise = render, np.random.default_rng(1)
        terms = LivenessSection(challenge="head_turn", attempts=1, step_timeout_s=2.5)
        self.course = Course(terms, tell=self._told, clock=lambda: self.now_s, can_blink=False)
        self.course._protocol._chance = random.Random(3)
        self._screener = Screener(vision, GateSection())
        self._framing = Framing(liveness_frames=5, window_s=0.5, hint_hold_s=0.5, started_at_s=self.now_s)
        self.captured_deg: float | None = None

    def _told(self, news: News) -> None:
        if news.kind == "prompt":
            self._aim_deg = self._far_deg * SIDES.get(news.data["prompt"], 0)
        if news.kind == "done":
            self._aim_deg = 0.0

    def play(self) -> None:
        for index in range(200):
            self.now_s += FRAME_S
            self._at_deg += max(-PER_TICK_DEG, min(PER_TICK_DEG, self._aim_deg - self._at_deg))
            image = cv2.add(self._render(self._at_deg), self._noise.integers(0, 3, (640, 640, 3), np.uint8))
            assessment = self._screener.screen(Frame(np.asarray(image, np.uint8), self.now_s, index))
            best, _ = self._framing.add(assessment)
            step = self.course.standing()["step"]
            if self.course.judge(assessment, best) is not None:
                self.captured_deg = self._at_deg
                return
            if step is not None:
                self.course.acknowledge(step)
            if self.course.tick() is not None:
                return


@pytest.fixture(scope="module")
def eyes(open_pack_dir: Path) -> Seeing:
    return Seeing(open_pipeline(load_pack("open"), open_pack_dir))


@pytest.fixture(scope="module")
def portrait(eyes: Seeing) -> tuple[Image, Landmarks]:
    image = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR), (973, 973), interpolation=cv2.INTER_CUBIC)
    face = eyes.measure(Frame(np.asarray(image, np.uint8), 0.0, 0)).face
    assert face is not None
    return close_up(np.asarray(image, np.uint8), face.landmarks)


@pytest.mark.packs
def test_the_demos_head_passes_before_the_real_detector(eyes: Seeing, portrait: tuple[Image, Landmarks]) -> None:
    stage = Stage(eyes, lambda yaw_deg: turned_head(*portrait, yaw_deg), FAR_DEG["head"])
    stage.play()
    assert (stage.course.outcome, stage.course.code) == (ChallengeOutcome.HEAD_TURN, None)
    assert stage.captured_deg is not None


@pytest.mark.packs
def test_the_demos_flat_picture_does_not(eyes: Seeing, portrait: tuple[Image, Landmarks]) -> None:
    stage = Stage(eyes, lambda yaw_deg: turned_picture(portrait[0], yaw_deg), FAR_DEG["picture"])
    stage.play()
    assert (stage.course.outcome, stage.course.code) == (None, ChallengeCode.FAILED)


@pytest.mark.packs
def test_the_command_plays_a_challenge(open_pack_dir: Path, tmp_path: Path) -> None:
    """The one that no machine is too slow for: a till that acknowledges nothing."""
    environment = {**os.environ, "EDGE_AGENT_MODELS_DIR": str(open_pack_dir), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "edge_agent", "demo", "--challenge", "--json", "--scenario", "silent"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (result["state"], result["challenge"], result["ok"]) == ("rejected", "unavailable", True)
