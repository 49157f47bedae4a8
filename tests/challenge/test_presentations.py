"""Pictures of faces held before a camera, rendered and looked at by the real detector: no flat one passes.

The whole table of species and angles, which is no test, prints ``scripts/evaluate-challenge``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edge_agent.challenge.turn import TurnCue
from edge_agent.packs.manifest import load_pack
from edge_agent.packs.verify import require_model
from edge_agent.picture import read_picture
from edge_agent.types import Image
from edge_agent.vision.detect import Detector
from edge_agent.vision.runtime import load_session
from tests.challenge.following import Follower, Outcome, Show
from tests.challenge.plane import Camera
from tests.challenge.presentations import held_as, portraits_of, presented, shared_detector

ANGLES_DEG = (15.0, 25.0, 35.0, 45.0, 55.0)
FPS = 7.5
"""The fewest frames that are judged: time is short in a test."""


@pytest.fixture(scope="module")
def detector(assets: Path) -> Detector:
    return shared_detector(assets)


@pytest.fixture(scope="module")
def camera() -> Camera:
    """Small, for the sake of time: the detector makes a small picture of any."""
    return Camera((400, 225))


def test_no_flat_picture_of_thirty_makes_a_turn_at_any_angle(assets: Path, detector: Detector, camera: Camera) -> None:
    stills = portraits_of(assets)[:30]
    outcomes = [
        presented(still, detector, "flat", ANGLES_DEG[n % 5], fps=FPS, seed=n, camera=camera, wait_s=0.5)
        for n, still in enumerate(stills)
    ]
    assert len(outcomes) == 30
    assert sum(o.neutral for o in outcomes) >= 26, "the pictures are seen, and seen looking straight"
    assert [stills[n].name for n, o in enumerate(outcomes) if any(o.turned)] == []


def turned_slowly(show: Show) -> Outcome:
    """Up to 24 degrees to both sides, no further than it takes."""
    return Follower(show, 24.0, 15.0, deg_per_s=15.0, stops=True, gives_up=True).run(TurnCue())


def test_the_same_picture_on_the_shape_of_a_head_passes(assets: Path, detector: Detector, camera: Camera) -> None:
    """Otherwise that the flat ones do not would show nothing."""
    still = read_picture(assets / "images/id_biden_1.jpg")
    assert turned_slowly(held_as("head", still, detector, camera=camera)).turned == (True, True)


@pytest.fixture(scope="module")
def open_detector(open_pack_dir: Path) -> Detector:
    """CenterFace, which everybody can fetch."""
    pack = load_pack("open")
    name = pack.detector.file
    model = require_model(open_pack_dir, name, pack.files[name], pack=pack.name)
    return Detector(pack.detector, load_session(model, name=name, providers="cpu", threads=1))


@pytest.fixture(scope="module")
def astronaut() -> Image:
    image = cv2.resize(data.astronaut()[:, :, ::-1], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    return np.asarray(image, np.uint8)


@pytest.mark.packs
@pytest.mark.parametrize(("species", "turned"), [("flat", (False, False)), ("head", (True, True))])
def test_with_the_default_pack_a_flat_astronaut_does_not_pass_and_a_rounded_one_does(
    open_detector: Detector, astronaut: Image, camera: Camera, species: str, turned: tuple[bool, bool]
) -> None:
    outcome = turned_slowly(held_as(species, astronaut, open_detector, camera=camera))
    assert outcome.neutral and outcome.turned == turned
