"""Alignment of a face by its five landmarks: the similarity transform that fits them best to a template.

The 112 px template is ArcFace's (Deng et al. 2019), the 80 px one is that of InsightFace's liveness add-on; both are
parts of those models' input contracts.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError
from edge_agent.types import Image, Landmarks

Matrix = NDArray[np.float64]
"""float64 (2, 3): frame pixels -> template pixels."""

ARCFACE_PX: Final = 112
ARCFACE_TEMPLATE: Final = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
ARCFACE_INTER_EYE_PX: Final = float(np.hypot(*(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0])))

ADDON_PX: Final = 80
ADDON_TEMPLATE: Final = np.array(
    [[32.03, 38.06], [47.89, 37.98], [40.01, 47.08], [33.50, 56.36], [46.63, 56.29]], np.float32
)


def similarity(source: Landmarks, target: Landmarks) -> Matrix:
    """The rotation, scale and shift that carry ``source`` (N, 2) to ``target`` with the least squares.

    In the plane a similarity is z -> a z + b with complex a and b, so Umeyama's least-squares problem (1991) is a
    linear one without reflections. Raises ModelError (``inference_failed``) when the points coincide or are not finite.
    """
    z = source[:, 0].astype(np.float64) + 1j * source[:, 1].astype(np.float64)
    w = target[:, 0].astype(np.float64) + 1j * target[:, 1].astype(np.float64)
    centred = z - z.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not np.isfinite(spread) or spread < 1e-6:
        raise ModelError("cannot align a face: its landmarks coincide or are not finite", code="inference_failed")
    a = np.sum(np.conj(centred) * (w - w.mean())) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def arcface_matrix(landmarks: Landmarks, size_px: int = ARCFACE_PX) -> Matrix:
    """Frame pixels -> the ArcFace template scaled to ``size_px``."""
    return similarity(landmarks, ARCFACE_TEMPLATE * np.float32(size_px / ARCFACE_PX))


def align_arcface(image: Image, landmarks: Landmarks, size_px: int = ARCFACE_PX) -> Image:
    """uint8 (size_px, size_px, 3) BGR; black outside the frame. The same pixels as InsightFace's ``norm_crop``."""
    aligned: Image = cv2.warpAffine(image, arcface_matrix(landmarks, size_px), (size_px, size_px))
    return aligned


def align_addon(image: Image, landmarks: Landmarks) -> tuple[Image, float]:
    """The liveness add-on's crop and the share of it that lies outside the frame.

    Crop: uint8 (80, 80, 3) BGR, edge pixels repeated outside. Share: 0-1, from a mask warped with the same
    interpolation, as the add-on computes it.
    """
    matrix = similarity(landmarks, ADDON_TEMPLATE)
    size = (ADDON_PX, ADDON_PX)
    crop: Image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(image.shape[:2], np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    return crop, float(np.clip(1.0 - inside.mean(), 0.0, 1.0))
