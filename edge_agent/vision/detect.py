"""Face detection: three detector families behind one interface, each with five landmarks.

All families share the frame -> canvas step (``canvas``), the suppression of overlapping boxes and the order of
the result; what differs (``Family``) is how pixels become a tensor and how outputs become candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Box, Face, Image
from edge_agent.vision.canvas import Canvas, fit
from edge_agent.vision.families import FAMILIES, Candidates
from edge_agent.vision.region import MULTIPLE_PX, Region, is_well_inside, surroundings
from edge_agent.vision.runtime import Session, invalid_model, on_cpu

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Detector as DetectorManifest


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look found."""

    faces: tuple[Face, ...]
    """The largest box first; boxes may reach outside the frame."""
    whole: bool
    """The whole frame was looked at, and not only the surroundings of a face."""


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
        # an accelerator tunes itself for every new shape, which takes longer than many whole looks
        self._has_regions = fixed is None and on_cpu(session)
        self._canvas: Canvas | None = None
        self._frame_px = (0, 0)

    @property
    def providers(self) -> tuple[str, ...]:
        return self._session.providers

    def detect(self, image: Image) -> tuple[Face, ...]:
        """The faces in ``image`` (uint8 (H, W, 3) BGR), the largest box first; empty when there is none.

        Boxes may reach outside the frame. Raises ModelError when the model cannot be run.
        """
        return self._find(self._drawn(image), None)

    def detect_near(self, image: Image, near: Face) -> Sighting:
        """As ``detect``, looking first where ``near`` was in a frame of the same size shortly before.

        The surroundings are enough where they show exactly one face, and that well inside. Otherwise, and with models
        of a fixed size or on an accelerator, the whole frame is looked at.
        """
        canvas = self._drawn(image)
        scale, size = canvas.fit.scale, canvas.fit.canvas
        region = surroundings(_scaled(near.box, scale), size) if self._has_regions else None
        if region is not None:
            found = self._find(canvas, region)
            if len(found) == 1 and is_well_inside(_scaled(found[0].box, scale), region, size):
                return Sighting(found, whole=False)
        return Sighting(self._find(canvas, None), whole=True)

    def forget(self) -> None:
        """Keep no pixel of the last frame."""
        self._canvas = None

    def _drawn(self, image: Image) -> Canvas:
        """The canvas of this frame; another size of frames, which is rare, gets another canvas."""
        size = (image.shape[1], image.shape[0])
        if self._canvas is None or self._frame_px != size:
            self._canvas = Canvas(fit(size, self.input_px, trim=self._trim), self.family.levels)
            self._frame_px = size
        self._canvas.draw(image)
        return self._canvas

    def _find(self, canvas: Canvas, region: Region | None) -> tuple[Face, ...]:
        outputs = self._session.run(canvas.tensor(region))
        size = canvas.fit.canvas if region is None else (region.width, region.height)
        found = self.family.decode(self._session, outputs, size, self._score_threshold)
        return _faces(found if region is None else _moved(found, region), canvas.fit.scale, self._nms_threshold)


def _scaled(box: Box, scale: float) -> Box:
    return Box(box.x1 * scale, box.y1 * scale, box.x2 * scale, box.y2 * scale)


def _moved(found: Candidates, region: Region) -> Candidates:
    """From the region's pixels to the canvas's."""
    corner = np.array([region.x, region.y], np.float32)
    return Candidates(found.boxes + np.tile(corner, 2), found.landmarks + corner, found.scores)


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
