"""Open or closed: one eye at a time, out of the five landmarks.

They tell where an eye is and not how wide: an eye is taken to be EYE_WIDTH of the distance between the two (about 25 of
63 mm). On portraits with 55 px and more between the eyes 0.4 read open eyes as open the most often; docs/challenge.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge_agent.types import Image, Landmarks
from edge_agent.vision.runtime import Session, inference_failed, invalid_model

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Eyes as EyesManifest

EYE_WIDTH: Final = 0.4
"""Of the inter-eye distance."""
_FINEST: Final = 2.0
"""Pixels of the picture per pixel of a patch, from which the picture is shrunk first: else the patch is a sieve."""


class EyeModel:
    """The contract of fr_eye: a grey patch of 0-1 about the eye, two classes."""

    def __init__(self, manifest: EyesManifest, session: Session) -> None:
        """Raises ModelError for a network of another input."""
        self._manifest, self._session = manifest, session
        wanted, shape = (1, 1, manifest.input_px, manifest.input_px), session.input.shape
        if len(shape) != 4 or any(have not in {None, want} for have, want in zip(shape, wanted, strict=True)):
            raise invalid_model(session.name, f"the pack says its input is {wanted}, the file says {shape}")

    def open_eyes(self, image: Image, landmarks: Landmarks) -> tuple[float, float]:
        """Probability, 0-1, that the right and the left eye are open. Raises ModelError."""
        return self._open(image, landmarks, 0), self._open(image, landmarks, 1)

    def _open(self, image: Image, landmarks: Landmarks, which: int) -> float:
        patch = eye_patch(image, landmarks, which, size_px=self._manifest.input_px, scale=self._manifest.patch_scale)
        (logits, *_) = self._session.run((patch.astype(np.float32) / np.float32(255.0))[None, None])
        if logits.shape != (1, 2):
            raise inference_failed(self._session.name, f"an eye model answers (1, 2), not {logits.shape}")
        exponents = np.exp(logits[0].astype(np.float64) - logits[0].max())
        return float(exponents[self._manifest.open_class] / exponents.sum())


def eye_patch(image: Image, landmarks: Landmarks, which: int, *, size_px: int, scale: float) -> Image:
    """uint8 (size_px, size_px), grey: the right (0) or left (1) eye, upright, ``scale`` eye widths wide."""
    across = landmarks[1].astype(np.float64) - landmarks[0]
    side_px = max(1.0, scale * EYE_WIDTH * float(np.hypot(*across)))
    centre = landmarks[which].astype(np.float64)
    part, centre = _around(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image, centre, side_px)
    if not part.size:  # beyond the picture's edge
        return np.zeros((size_px, size_px), np.uint8)
    shrink = min(1.0, _FINEST * size_px / side_px)
    if shrink < 1.0:
        part = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    cosine, sine = across / max(1e-6, float(np.hypot(*across))) * (size_px / (side_px * shrink))
    turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0]])
    turn[:, 2] = (size_px - 1) / 2 - turn[:, :2] @ (centre * shrink)
    patch: Image = cv2.warpAffine(part, turn, (size_px, size_px), flags=cv2.INTER_LINEAR)
    return patch


def _around(grey: Image, centre: np.ndarray, side_px: float) -> tuple[Image, np.ndarray]:
    """What of the picture can be in the patch, and where the eye is in it."""
    left, top = (max(0, int(c - side_px)) for c in centre)
    right, bottom = (max(0, int(c + side_px) + 2) for c in centre)
    return grey[top:bottom, left:right], centre - (left, top)
