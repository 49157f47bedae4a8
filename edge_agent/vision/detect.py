"""Face detection: three detector families behind one interface, each with five landmarks.

All families share the frame -> canvas step (``letterbox``), the suppression of overlapping boxes and the order of
the result; what differs (``Family``) is how pixels become a tensor and how outputs become candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Box, Face, Image
from edge_agent.vision.families import FAMILIES, Candidates
from edge_agent.vision.runtime import Session, invalid_model

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Detector as DetectorManifest

MULTIPLE_PX = 32
"""Input sides are multiples of the coarsest stride."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The frame in the top left corner of a black canvas; frame pixels = canvas pixels / scale."""

    canvas: Image
    scale: float


def letterbox(image: Image, size_px: tuple[int, int], *, trim: bool) -> Letterbox:
    """Fit ``image`` into ``size_px`` (width, height), keeping its aspect ratio.

    ``trim`` cuts the black rest down to the next multiple of 32: less to compute, nothing lost. The side that
    limits is exact, the other is rounded down, and one scale (of the height) serves both axes, which is
    what InsightFace does.
    """
    height, width = image.shape[:2]
    canvas_width, canvas_height = size_px
    if height / width > canvas_height / canvas_width:
        inner_height, inner_width = canvas_height, max(1, int(canvas_height / (height / width)))
    else:
        inner_width, inner_height = canvas_width, max(1, int(canvas_width * (height / width)))
    if trim:
        canvas_width, canvas_height = _round_up(inner_width), _round_up(inner_height)
    canvas = np.zeros((canvas_height, canvas_width, 3), dtype=np.uint8)
    canvas[:inner_height, :inner_width] = cv2.resize(image, (inner_width, inner_height))
    return Letterbox(canvas, inner_height / height)


def _round_up(side_px: int) -> int:
    return -(-side_px // MULTIPLE_PX) * MULTIPLE_PX


class Detector:
    """Finds faces in a frame."""

    def __init__(self, manifest: DetectorManifest, session: Session, *, trim: bool | None = None) -> None:
        """``trim``: None = as the family likes it. Raises ModelError for a network of another shape."""
        self.family = FAMILIES[manifest.family]
        self._session = session
        self._score_threshold = manifest.score_threshold
        self._nms_threshold = manifest.nms_threshold
        fixed = _fixed_size(session)
        self.input_px: tuple[int, int] = fixed or manifest.input_px
        if any(side % MULTIPLE_PX for side in self.input_px):
            raise invalid_model(session.name, f"the input {self.input_px} must have sides that are multiples of 32")
        self._trim = False if fixed else self.family.trim if trim is None else trim

    @property
    def providers(self) -> tuple[str, ...]:
        return self._session.providers

    def detect(self, image: Image) -> tuple[Face, ...]:
        """The faces in ``image`` (uint8 (H, W, 3) BGR), the largest box first; empty when there is none.

        Boxes may reach outside the frame. Raises ModelError when the model cannot be run.
        """
        boxed = letterbox(image, self.input_px, trim=self._trim)
        outputs = self._session.run(self.family.prepare(boxed.canvas))
        height, width = boxed.canvas.shape[:2]
        found = self.family.decode(self._session, outputs, (width, height), self._score_threshold)
        return _faces(found, boxed.scale, self._nms_threshold)


def _fixed_size(session: Session) -> tuple[int, int] | None:
    """(width, height) when the model's own input is fixed."""
    shape = session.input.shape
    if len(shape) != 4 or shape[1] not in {3, None}:
        raise invalid_model(session.name, f"a detector takes (1, 3, H, W), not {shape}")
    height, width = shape[2], shape[3]
    return None if height is None or width is None else (width, height)


def _faces(found: Candidates, scale: float, nms_threshold: float) -> tuple[Face, ...]:
    order = np.argsort(-found.scores, kind="stable")
    boxes = (found.boxes[order] / scale).astype(np.float32)
    landmarks = (found.landmarks[order] / scale).astype(np.float32)
    scores = found.scores[order]
    faces = [
        Face(Box(*(float(v) for v in boxes[i])), landmarks[i], min(1.0, float(scores[i])))
        for i in suppress_overlaps(boxes, nms_threshold)
    ]
    return tuple(sorted(faces, key=lambda face: face.box.area, reverse=True))


def suppress_overlaps(boxes: NDArray[np.float32], threshold: float) -> list[int]:
    """Indices to keep of ``boxes`` (N, 4; x1, y1, x2, y2; best score first): greedy non-maximum suppression.

    Sides count inclusively (x2 - x1 + 1), as in InsightFace and in Girshick's original.
    """
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    alive = np.arange(len(boxes))
    keep: list[int] = []
    while alive.size:
        best, rest = alive[0], alive[1:]
        keep.append(int(best))
        overlap_x = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        overlap_y = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        shared = np.maximum(0.0, overlap_x) * np.maximum(0.0, overlap_y)
        alive = rest[shared / (areas[best] + areas[rest] - shared) <= threshold]
    return keep
