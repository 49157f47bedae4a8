"""A whole picture: how light it is, and how sharp, whoever is in it or nobody."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_agent.types import Image
from edge_agent.vision.scene import measure_scene


def room(width: int = 1280) -> Image:
    """Dark and light rectangles of many sizes."""
    rng = np.random.default_rng(4)
    picture = np.full((720, 1280, 3), 90, np.uint8)
    for x, y, w, h, level in rng.integers((0, 0, 40, 40, 30), (1200, 650, 300, 250, 230), (60, 5)):
        picture[y : y + h, x : x + w] = level
    scaled: Image = cv2.resize(picture, (width, 720 * width // 1280), interpolation=cv2.INTER_AREA)
    return scaled


def blurred(picture: Image, sigma_px: float) -> Image:
    image: Image = cv2.GaussianBlur(picture, (0, 0), sigma_px)
    return image


def test_the_more_it_is_blurred_the_less_sharp_it_is() -> None:
    values = [measure_scene(room() if sigma == 0 else blurred(room(), sigma)).sharpness for sigma in (0, 2, 4, 8, 16)]
    assert None not in values
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert values[0] > 0.8 > 0.3 > values[3]  # type: ignore[operator]


def test_the_same_scene_is_about_as_sharp_for_cameras_of_different_sizes() -> None:
    small, large = (measure_scene(blurred(room(width), width / 200)).sharpness for width in (640, 1920))
    assert small == pytest.approx(large, abs=0.05)


@pytest.mark.parametrize(("level", "dark", "bright"), [(0, 1.0, 0.0), (128, 0.0, 0.0), (255, 0.0, 1.0)])
def test_a_picture_of_one_grey_has_its_luminance_and_no_sharpness(level: int, dark: float, bright: float) -> None:
    scene = measure_scene(np.full((480, 640, 3), level, np.uint8))
    assert scene.luminance == pytest.approx(level / 255)
    assert (scene.dark_share, scene.bright_share, scene.sharpness) == (dark, bright, None)
