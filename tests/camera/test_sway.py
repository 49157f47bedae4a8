"""A still shown as a standing person."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_agent.camera.sway import LIGHT, SCALE, SHIFT_PX, SwayingStill, on_canvas
from tests.camera.sources import picture

SIZE = (640, 480)


def dots() -> np.ndarray:
    """Four bright dots on grey, to see where the picture went."""
    image = np.full((300, 400, 3), 100, np.uint8)
    for x in (60, 340):
        for y in (60, 240):
            cv2.circle(image, (x, y), 8, (220, 220, 220), -1)
    return image


def centres(frame: np.ndarray) -> np.ndarray:
    """Centres of the four dots, float (4, 2), in the order of ``cv2.connectedComponents``."""
    mask = (frame[..., 0] > 160).astype(np.uint8)
    count, _labels, _stats, found = cv2.connectedComponentsWithStats(mask)
    assert count == 5
    dots_found: np.ndarray = found[1:]
    return dots_found


def test_position_scale_and_light_stay_within_their_limits_and_move_slowly() -> None:
    still = SwayingStill(dots(), SIZE, seed=3)
    rest = centres(on_canvas(dots(), SIZE))
    frames = [still.frame(n, n / 15) for n in range(0, 300, 3)]
    found = np.stack([centres(frame) for frame in frames])
    shift = (found - rest).mean(axis=1)
    spread = np.ptp(found[:, :, 0], axis=1) / np.ptp(rest[:, 0])
    light = [float(frame[:50].mean()) / 100 for frame in frames]
    assert np.abs(shift).max() <= SHIFT_PX + 0.5
    assert np.ptp(shift, axis=0).min() > 1.0
    assert np.abs(spread - 1).max() <= SCALE + 0.005
    assert np.ptp(light) > 0.01
    assert max(abs(v - 1) for v in light) <= LIGHT + 0.005
    step_px = np.linalg.norm(np.diff(shift, axis=0), axis=1).max()
    assert step_px / 0.2 < 15  # px per second: a body's sway, not a shaking camera


def test_a_picture_that_fits_keeps_its_pixels_and_one_that_does_not_is_scaled_down() -> None:
    small = picture(200, 100)
    canvas = on_canvas(small, SIZE)
    assert canvas.shape == (480, 640, 3)
    assert np.array_equal(canvas[190:290, 220:420], small)
    large = on_canvas(picture(1280, 480), SIZE)
    assert large.shape == (480, 640, 3)
    reference = cv2.resize(picture(1280, 480), (640, 240), interpolation=cv2.INTER_AREA)
    assert np.array_equal(large[120:360], reference)


@pytest.mark.parametrize("shape", [(1, 1), (4000, 10), (10, 4000), (481, 641), (480, 640)])
def test_pictures_of_any_shape_fill_the_canvas(shape: tuple[int, int]) -> None:
    frame = SwayingStill(np.full((*shape, 3), 77, np.uint8), SIZE).frame(0, 0.0)
    assert frame.shape == (480, 640, 3)
    assert abs(float(frame.mean()) - 77) < 3


def test_the_background_goes_on_in_the_colours_of_the_picture_without_an_edge() -> None:
    canvas = on_canvas(picture(200, 200), SIZE).astype(int)
    across_the_edge = np.abs(canvas[140:340, 220] - canvas[140:340, 219])
    assert across_the_edge.mean() < 6


def test_the_noise_is_small_and_never_the_same_twice() -> None:
    still = SwayingStill(np.full((120, 160, 3), 100, np.uint8), (160, 120))
    frames = [still.frame(number, 0.0).astype(int) for number in range(200)]
    assert 0.3 < float(frames[0].std()) < 1.2
    assert len({frame.tobytes() for frame in frames}) == 200
