"""What the models would say of a scene: measurements that the real gate accepts, or refuses for one chosen reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_agent.errors import ModelError
from edge_agent.simulator.card import FACE
from edge_agent.simulator.customer import STRAIGHT, Posture
from edge_agent.types import Box, Face, FaceQuality, Frame, GateCode, HeadPose, LivenessScore, Measurement

MODEL, THRESHOLD = "simulated", 0.5
SWAY_IED = 1.2
"""How far a restless face moves between two frames: too fast for the gate (even at two frames a second), near enough to be the same face.

To and fro about the middle, so that no frame of it follows one at the same place."""
EYES_PX = 120.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands before the camera."""

    wrong: GateCode | None = None
    """What is wrong with it; None = a good view."""
    broken: bool = False
    """The models fail on it."""


GOOD_VIEW = Scene()
BROKEN = Scene(broken=True)


@dataclass(frozen=True, slots=True, eq=False)
class SceneFrame(Frame):
    """A frame that says what is to be seen in it."""

    scene: Scene
    posture: Posture = STRAIGHT


_APPEARANCE = np.sin(np.arange(64, dtype=np.float32))
_APPEARANCE /= np.linalg.norm(_APPEARANCE)
_GOOD = FaceQuality(
    inter_eye_px=EYES_PX,
    face_height_ratio=0.45,
    margin_left_ied=2.0,
    margin_top_ied=1.5,
    margin_right_ied=2.0,
    margin_bottom_ied=1.5,
    pose=HeadPose(0.0, 0.0, 0.0),
    sharpness=0.8,
    luminance=0.5,
    dark_share=0.0,
    bright_share=0.0,
    light_uniformity=0.9,
    dynamic_range_bits=7.0,
    eyes_visible=1.0,
    mouth_visible=1.0,
    appearance=_APPEARANCE,
)
_WRONG: dict[GateCode, dict[str, Any]] = {
    GateCode.TOO_FAR: {"inter_eye_px": 35.0},
    GateCode.TOO_CLOSE: {"face_height_ratio": 0.95},
    GateCode.NOT_CENTERED: {"margin_left_ied": 0.2},
    GateCode.FACE_CUT_OFF: {"margin_left_ied": -0.5},
    GateCode.TURN_LEFT: {"pose": HeadPose(-35.0, 0.0, 0.0)},
    GateCode.TURN_RIGHT: {"pose": HeadPose(35.0, 0.0, 0.0)},
    GateCode.CHIN_UP: {"pose": HeadPose(0.0, -35.0, 0.0)},
    GateCode.CHIN_DOWN: {"pose": HeadPose(0.0, 35.0, 0.0)},
    GateCode.LOOK_STRAIGHT: {"pose": HeadPose(0.0, 0.0, 30.0)},
    GateCode.TOO_BLURRY: {"sharpness": 0.1},
    GateCode.TOO_DARK: {"luminance": 0.1},
    GateCode.TOO_BRIGHT: {"luminance": 0.9},
    GateCode.UNEVEN_LIGHT: {"light_uniformity": 0.1},
    GateCode.LOW_CONTRAST: {"dynamic_range_bits": 2.0},
    GateCode.EYES_HIDDEN: {"eyes_visible": 0.1},
    GateCode.MOUTH_HIDDEN: {"mouth_visible": 0.1},
}
"""What differs from a good view; presence, movement and liveness are no measures of quality and are not here."""


class Eyes:
    """A ``screening.Vision`` without pixels and models. Used in the inference thread only."""

    def __init__(self) -> None:
        self.still = GOOD_VIEW
        """What the next picture shows that comes from no scripted camera (an enrolment)."""

    def measure(self, frame: Frame) -> Measurement:
        """Raises ModelError for a broken scene."""
        scene = self._scene(frame)
        if scene.broken:
            raise ModelError("cannot judge the picture: this is simulated", code="inference_failed")
        height, width = frame.image.shape[:2]
        faces = _faces(scene.wrong, frame)
        quality = replace(_GOOD, **_WRONG.get(scene.wrong, {})) if scene.wrong else _GOOD
        return Measurement(width, height, faces, quality if faces else None, b"%d" % frame.index)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del face
        wrong = self._scene(frame).wrong
        score = 0.05 if wrong is GateCode.SPOOF_SUSPECTED else 0.97
        outside = 0.6 if wrong is GateCode.LIVENESS_INPUT_REJECTED else 0.0
        return (LivenessScore(MODEL, score, THRESHOLD, outside, bounded=True),)

    @property
    def sees_eyes(self) -> bool:
        return True

    def eyes_open(self, frame: Frame, face: Face) -> tuple[float, float]:
        """As challenge.blink.EyeSight."""
        del face
        open_ = _posture(frame).eyes_open
        return open_, open_

    def _scene(self, frame: Frame) -> Scene:
        return frame.scene if isinstance(frame, SceneFrame) else self.still


def _posture(frame: Frame) -> Posture:
    return frame.posture if isinstance(frame, SceneFrame) else STRAIGHT


def _faces(wrong: GateCode | None, frame: Frame) -> tuple[Face, ...]:
    """In the middle of the frame, whatever its size; largest first."""
    if wrong is GateCode.NO_FACE:
        return ()
    unit = frame.image.shape[0] / 720.0
    sway = SWAY_IED * EYES_PX * (frame.index % 2 - 0.5) if wrong is GateCode.HOLD_STILL else 0.0
    x, y = frame.image.shape[1] / 2 + sway * unit, frame.image.shape[0] / 2
    first = _face(x, y, unit, _posture(frame).turn)
    if wrong is GateCode.MULTIPLE_FACES:
        return first, _face(x + 2.5 * EYES_PX * unit, y, 0.8 * unit)
    return (first,)


def _face(x: float, y: float, unit: float, turn: float = 0.0) -> Face:
    half, eyes = FACE.width / 2 * unit, EYES_PX * unit
    points = [(-0.5, -0.3), (0.5, -0.3), (turn, 0.2), (-0.4, 0.7), (0.4, 0.7)]
    landmarks = np.array([(x + dx * eyes, y + dy * eyes) for dx, dy in points], np.float32)
    return Face(Box(x - half, y - half, x + half, y + half), landmarks, 0.95)
