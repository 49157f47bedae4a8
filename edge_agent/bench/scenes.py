"""Frames to screen: a person as a camera sees them, at any resolution, alone, four at once, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_agent.camera.sway import SwayingStill
from edge_agent.errors import InputError
from edge_agent.types import Face, Frame, Image
from edge_agent.vision.capture import crop_box

FPS = 30.0
SURROUNDINGS = 0.75
"""Left around the face box, in its widths and heights."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in front of the camera."""

    width: int
    height: int
    faces: int
    """0, 1 or 4."""


MAIN = Scene(1280, 720, 1)
OTHERS = (
    Scene(640, 480, 1),
    Scene(1280, 720, 0),
    MAIN,
    Scene(1280, 720, 4),
    Scene(1920, 1080, 1),
)


def portrait(picture: Image, find: Callable[[Image], Face | None]) -> Image:
    """The largest face of ``picture`` with its surroundings. Raises InputError ``no_face``."""
    face = find(picture)
    if face is None:
        raise InputError(
            "cannot measure the pipeline: the picture shows no face",
            code="no_face",
            hint="give a portrait with --picture",
        )
    x1, y1, x2, y2 = crop_box(face.box, (picture.shape[1], picture.shape[0]), SURROUNDINGS)
    return np.ascontiguousarray(picture[y1:y2, x1:x2])


def frames(scene: Scene, person: Image) -> Callable[[int], Frame]:
    """Frame number -> frame: ``person`` swaying as somebody who stands there; each number is another picture.

    A picture that is larger than its place is scaled down, never up: faces have the same size at every resolution
    that holds them.
    """
    rows = {0: 0, 1: 1, 4: 2}[scene.faces]
    if rows == 0:
        person, rows = _nobody(), 1
    size = (scene.width // rows, scene.height // rows)
    stills = [SwayingStill(person, size, seed=seed) for seed in range(rows * rows)]

    def frame(number: int) -> Frame:
        tiles = [still.frame(number, number / FPS) for still in stills]
        lines = [np.concatenate(tiles[i : i + rows], axis=1) for i in range(0, len(tiles), rows)]
        return Frame(np.concatenate(lines, axis=0), number / FPS, number)

    return frame


def _nobody() -> Image:
    """A wall that gets brighter to one side."""
    row = np.linspace(60, 180, 320).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (180, 320, 3)))
