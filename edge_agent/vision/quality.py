"""What is measured of the primary face; docs/gate.md defines every quantity with its unit, scale and source.

Light and sharpness are measured on one aligned luma patch of the *inner* face, so hair, headscarves, clothes and the
background do not count, and the size of the face does not matter. Nothing here decides: limits belong to the gate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Face, FaceQuality, Image, Landmarks
from edge_agent.vision.align import ARCFACE_INTER_EYE_PX, ARCFACE_PX, Matrix, arcface_matrix
from edge_agent.vision.pose import head_pose
from edge_agent.vision.sharpness import sharpness

PATCH_INTER_EYE_PX: Final = 64.0
"""Larger faces are scaled down to this, smaller ones are measured as they are (enlarging would look like blur)."""
MIN_PATCH_INTER_EYE_PX: Final = 16.0

DARK_LUMA: Final = 25
BRIGHT_LUMA: Final = 247
UNIFORMITY_BINS: Final = 32
APPEARANCE_PX: Final = 32

FACE_CENTRE: Final = (56.0, 70.0)
FACE_HALF_AXES: Final = (26.0, 36.0)
"""The inner face in the 112 px ArcFace template: from the lower forehead to above the chin, between the cheeks."""
MOUTH_CENTRE: Final = (56.0, 92.0)
MOUTH_HALF_AXES: Final = (18.0, 10.0)
"""Left out of the inner face: an open mouth, teeth and a moustache say nothing about the light."""
EDGE_WINDOW: Final = (18, 25, 94, 108)
"""x1, y1, x2, y2 in the 112 px template: where edges are looked for."""

Luma = NDArray[np.uint8]


def measure_face(image: Image, face: Face) -> FaceQuality:
    """Everything of FaceQuality for one face. Raises ModelError when the landmarks are degenerate."""
    height, width = image.shape[:2]
    inter_eye = max(face.inter_eye_px, 1e-3)
    patch = luma_patch(image, face.landmarks)
    light = face_pixels(patch)
    return FaceQuality(
        inter_eye_px=face.inter_eye_px,
        face_height_ratio=face.box.height / height,
        margin_left_ied=face.box.x1 / inter_eye,
        margin_top_ied=face.box.y1 / inter_eye,
        margin_right_ied=(width - face.box.x2) / inter_eye,
        margin_bottom_ied=(height - face.box.y2) / inter_eye,
        pose=head_pose(face.landmarks),
        sharpness=sharpness(_edge_window(patch)),
        luminance=float(light.mean()) / 255.0,
        dark_share=float((light <= DARK_LUMA).mean()),
        bright_share=float((light >= BRIGHT_LUMA).mean()),
        light_uniformity=light_uniformity(patch),
        dynamic_range_bits=entropy_bits(light),
        appearance=appearance(patch),
    )


def luma_patch(image: Image, landmarks: Landmarks) -> Luma:
    """The aligned face as luma (BT.601), uint8 (S, S) in the ArcFace template's frame.

    S puts min(64, its own) px between the eyes. A larger face is first reduced by averaging, so that fine detail does
    not alias. Outside the frame the edge pixels repeat.
    """
    inter_eye = float(np.hypot(*(landmarks[1] - landmarks[0])))
    reduction = max(1, int(inter_eye / PATCH_INTER_EYE_PX))
    wanted = float(np.clip(inter_eye, MIN_PATCH_INTER_EYE_PX, PATCH_INTER_EYE_PX))
    size = round(ARCFACE_PX * wanted / ARCFACE_INTER_EYE_PX)
    if reduction > 1:
        luma, points = _reduced(image, landmarks, reduction)
        matrix = arcface_matrix(points, size)
    else:
        matrix = arcface_matrix(landmarks, size)
        luma, matrix = _shown(image, matrix, size)
    patch: Luma = cv2.warpAffine(luma, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return patch


def _shown(image: Image, matrix: Matrix, size: int) -> tuple[Luma, Matrix]:
    """The luma of what a patch shows of ``image``, and the matrix from there to the patch.

    One pixel at least, also where the patch lies beside the frame: the edge is repeated then.
    """
    back = cv2.invertAffineTransform(matrix)
    corners = back[:, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + back[:, 2:]
    (x1, x2), (y1, y2) = (
        (min(max(int(low) - 2, 0), limit - 1), min(max(int(high) + 3, 1), limit))
        for low, high, limit in zip(corners.min(axis=1), corners.max(axis=1), image.shape[1::-1], strict=True)
    )
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ (x1, y1)
    return np.asarray(cv2.cvtColor(image[y1:y2, x1:x2], cv2.COLOR_BGR2GRAY), np.uint8), moved


def _reduced(image: Image, landmarks: Landmarks, reduction: int) -> tuple[Luma, Landmarks]:
    """The luma of the face's neighbourhood, averaged down by ``reduction``, and the landmarks in it."""
    height, width = image.shape[:2]
    reach = 2.0 * float(np.ptp(landmarks, axis=0).max())
    low = np.clip(np.floor(landmarks.min(axis=0) - reach), 0, (width - reduction, height - reduction)).astype(int)
    high = np.clip(np.ceil(landmarks.max(axis=0) + reach), low + reduction, (width, height)).astype(int)
    columns, rows = (int(v) for v in (high - low) // reduction)
    x, y = (int(v) for v in low)
    part = cv2.cvtColor(image[y : y + rows * reduction, x : x + columns * reduction], cv2.COLOR_BGR2GRAY)
    reduced: Luma = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return reduced, ((landmarks - low + 0.5) / reduction - 0.5).astype(np.float32)


@lru_cache(maxsize=64)
def face_mask(size: int) -> NDArray[np.bool_]:
    """Bool (size, size): the inner face in an aligned patch."""
    return _ellipse(size, FACE_CENTRE, FACE_HALF_AXES) & ~_ellipse(size, MOUTH_CENTRE, MOUTH_HALF_AXES)


def _ellipse(size: int, centre: tuple[float, float], half_axes: tuple[float, float]) -> NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size] * (ARCFACE_PX / size)
    inside: NDArray[np.bool_] = ((x - centre[0]) / half_axes[0]) ** 2 + ((y - centre[1]) / half_axes[1]) ** 2 <= 1.0
    return inside


def face_pixels(patch: Luma) -> Luma:
    """The luma values (N,) of the inner face."""
    return patch[face_mask(patch.shape[0])]


def light_uniformity(patch: Luma) -> float:
    """Overlap, 0-1, of the luma histograms of the left and the right half of the inner face.

    After the illumination uniformity of ISO/IEC 29794-5 (histogram intersection); 32 bins, because a small face has
    too few pixels for 256.
    """
    mask = face_mask(patch.shape[0])
    middle = round(patch.shape[0] * FACE_CENTRE[0] / ARCFACE_PX)
    halves = (patch[:, :middle][mask[:, :middle]], patch[:, middle:][mask[:, middle:]])
    step = 256 // UNIFORMITY_BINS
    left, right = (np.bincount(half // step, minlength=UNIFORMITY_BINS) / half.size for half in halves)
    return float(np.minimum(left, right).sum())


def entropy_bits(values: Luma) -> float:
    """Shannon entropy of the 256-bin luma histogram, 0-8 bits (the dynamic range of ISO/IEC 29794-5)."""
    shares = np.bincount(values, minlength=256) / values.size
    present = shares[shares > 0]
    return float(max(0.0, -(present * np.log2(present)).sum()))


def appearance(patch: Luma) -> NDArray[np.float32]:
    """float32 (1024,): the aligned face in 32 x 32, zero mean, unit length (all zero for a flat picture)."""
    small = cv2.resize(patch, (APPEARANCE_PX, APPEARANCE_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    coarse: NDArray[np.float32] = small / np.float32(length) if length > 0 else small
    return coarse


def _edge_window(patch: Luma) -> Luma:
    x1, y1, x2, y2 = (int(v * patch.shape[0] / ARCFACE_PX) for v in EDGE_WINDOW)
    return patch[y1:y2, x1:x2]
