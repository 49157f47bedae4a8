"""The picture that is uploaded: a JPEG crop of the best shot, with margins, without metadata."""

from __future__ import annotations

import cv2
import numpy as np

from edge_agent.config import CaptureSection
from edge_agent.types import Box, Image
from edge_agent.vision.annotate import encode_jpeg


def crop_box(box: Box, size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 in whole px: the face box grown by ``margin`` of its width and height on each side,
    cut at the frame's edges. ``size`` is (width, height) of the frame.
    """
    grow_x, grow_y = box.width * margin, box.height * margin
    x1, y1 = int(max(0.0, box.x1 - grow_x)), int(max(0.0, box.y1 - grow_y))
    x2, y2 = int(min(size[0], box.x2 + grow_x + 1)), int(min(size[1], box.y2 + grow_y + 1))
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def encode_capture(image: Image, box: Box, settings: CaptureSection) -> bytes:
    """JPEG bytes of the face with its surroundings, the longer side at most ``settings.max_side_px``."""
    x1, y1, x2, y2 = crop_box(box, (image.shape[1], image.shape[0]), settings.margin)
    crop = image[y1:y2, x1:x2]
    scale = settings.max_side_px / max(crop.shape[:2])
    if scale < 1.0:
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    return encode_jpeg(crop, settings.jpeg_quality)
