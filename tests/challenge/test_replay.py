"""What the cue cannot tell: a video of somebody who turns. So the decision does not rest on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.camera.clip import Clip
from edge_agent.challenge.turn import Side, TurnCue
from edge_agent.picture import read_picture
from edge_agent.types import Assessment, GateCode, Image, Landmarks
from edge_agent.vision.detect import Detector
from edge_agent.vision.pose import head_pose
from tests import faces
from tests.challenge.following import Follower
from tests.challenge.heads import Stand
from tests.challenge.plane import Camera, Print
from tests.challenge.presentations import held_as, shared_detector
from tests.challenge.surfaces import Flat

DISTANCE_MM = 400.0


@pytest.fixture(scope="module")
def detector(assets: Path) -> Detector:
    return shared_detector(assets)


class Screen:
    """A tablet, held still, that plays what its owner wants: a head at any angle between -24 and 24 degrees."""

    def __init__(self, still: Image, detector: Detector) -> None:
        filming = Camera((800, 450))
        head = held_as("head", still, detector, camera=filming)
        mm_per_px = DISTANCE_MM / filming.focal_px
        self._film = [Print(head.picture(float(yaw)), mm_per_px, (399.5, 224.5)) for yaw in range(-24, 25, 3)]
        self._camera, self._detector = Camera((400, 225)), detector

    def __call__(self, yaw_deg: float) -> Landmarks | None:
        shown = self._film[round((yaw_deg + 24) / 3)]
        seen = self._camera.picture(shown, Flat(), np.eye(3), np.array([0.0, 0.0, DISTANCE_MM]))
        found = self._detector.detect(seen)
        return found[0].landmarks if found else None


def test_a_video_of_a_turning_head_on_a_flat_screen_passes(assets: Path, detector: Detector) -> None:
    screen = Screen(read_picture(assets / "images/id_biden_1.jpg"), detector)
    outcome = Follower(screen, 24.0, 15.0, deg_per_s=15.0, stops=True).run(TurnCue())
    assert outcome.turned == (True, True)


def test_who_passes_the_turn_is_still_refused_by_a_model_that_denies() -> None:
    """Both run on the same frames; nothing of the one makes up for the other."""
    scene, head, judged = faces.Scene(fps=15.0), Stand(), list[Assessment]()

    def show(yaw_deg: float) -> Landmarks:
        landmarks = head(yaw_deg)
        shown = faces.measurement((replace(faces.face(), landmarks=landmarks),))
        judged.append(scene.show(shown, faces.scores(0.9, 0.1)))
        return landmarks

    assert Follower(show, 14.0).run(TurnCue()).passed
    assert not any(assessment.accepted for assessment in judged)
    assert {assessment.reasons for assessment in judged} == {(GateCode.SPOOF_SUSPECTED,)}


FILM = "videos/hamilton_white_house.mp4"
SHOT = range(83, 211)
"""One singer, near enough, between two cuts. The only shared clip with somebody who turns; it is about 30 frames/s."""


@pytest.fixture(scope="module")
def singer(assets: Path) -> list[Image]:
    clip = Clip(assets / FILM, default_fps=30.0, loop=False)
    found = [clip.image(number) for number in SHOT]
    clip.close()
    return [image for image in found if image is not None]


def windows(film: list[Landmarks], side: Side, cue: TurnCue, start: int) -> tuple[int, bool, bool] | None:
    """(where the neutral pose was found, the head then turned by 12 degrees or more to ``side``, the cue saw it)."""
    neutral_at, straight_deg, frames_turned, seen = None, 0.0, 0, False
    for number in range(start, len(film)):
        reading, pose = cue.add(number / 29.97, film[number], 1), head_pose(film[number])
        assert reading.reset is None and pose is not None
        if neutral_at is not None:
            frames_turned += side.sign * (pose.yaw_deg - straight_deg) >= 12.0
            seen = seen or reading.turned
        elif reading.neutral:
            neutral_at, straight_deg = number, pose.yaw_deg
            cue.ask(side)
    return None if neutral_at is None else (neutral_at, frames_turned >= 6, seen)


def test_a_person_in_a_clip_who_turns_is_seen_and_to_the_right_side(singer: list[Image], detector: Detector) -> None:
    """A window begins with a neutral pose. He turns to his right; shown as in a mirror, to the left."""
    film = [detector.detect(image)[0].landmarks for image in singer]
    starts = range(0, len(film) - 30, 5)
    found = {w for s in starts if (w := windows(film, Side.RIGHT, TurnCue(), s)) is not None}
    assert len(found) >= 4 and all(turned for _, turned, _ in found)
    assert sum(seen for _, _, seen in found) >= 0.8 * len(found)
    others = {w for s in starts if (w := windows(film, Side.LEFT, TurnCue(), s)) is not None}
    assert not any(turned or seen for _, turned, seen in others)


def test_a_mirrored_source_is_undone_at_the_pixels(singer: list[Image], detector: Detector) -> None:
    film = [detector.detect(np.asarray(cv2.flip(image, 1), np.uint8))[0].landmarks for image in singer[60:]]
    answers = [windows(film, side, TurnCue(mirrored=mirrored), 0) for side in Side for mirrored in (False, True)]
    assert [answer is not None and answer[2] for answer in answers] == [True, False, False, True]
