"""How a whole picture looks, face or not: for whoever mounts the camera and the light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2

from edge_agent.types import Image
from edge_agent.vision.quality import BRIGHT_LUMA, DARK_LUMA
from edge_agent.vision.sharpness import sharpness

SCENE_WIDTH_PX: Final = 640
"""Pictures are reduced to this width, so that the sharpness of cameras of different sizes is one scale."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture."""

    luminance: float
    """Mean luma, 0-1."""
    dark_share: float
    """Of the pixels with luma <= 25, 0-1."""
    bright_share: float
    """Of the pixels with luma >= 247, 0-1."""
    sharpness: float | None
    """0-1, see ``sharpness``; None where the picture has no edges to judge."""


def measure_scene(image: Image) -> Scene:
    """``image``: uint8 (H, W, 3) BGR."""
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = luma.shape
    if width > SCENE_WIDTH_PX:
        size = (SCENE_WIDTH_PX, max(1, round(height * SCENE_WIDTH_PX / width)))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    return Scene(
        luminance=float(luma.mean()) / 255.0,
        dark_share=float((luma <= DARK_LUMA).mean()),
        bright_share=float((luma >= BRIGHT_LUMA).mean()),
        sharpness=sharpness(luma),
    )
