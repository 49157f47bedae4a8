"""Whether pictures come from a living sensor: what freezes, what loops, and what does neither."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.camera.clip import CLIP_SUFFIXES, Clip
from edge_agent.camera.guard import LOOP_WITHIN_S, FrameFault, FrameGuard, mark_of
from edge_agent.types import Image
from tests.camera.sources import picture

pytestmark = pytest.mark.arm
SAME, OTHER = picture(), picture(seed=2)
BLACK, WHITE = np.full((240, 320, 3), 16, np.uint8), np.full((240, 320, 3), 255, np.uint8)


def fault_at(pictures: Iterable[tuple[float, Image]]) -> tuple[str, float] | None:
    """Code and time of the first objection."""
    guard = FrameGuard("camera x")
    for now_s, image in pictures:
        try:
            guard.see(image, now_s)
        except FrameFault as exc:
            return exc.code, now_s
    return None


def stamped(number: int, image: Image = SAME) -> Image:
    """Another picture for another number."""
    marked = image.copy()
    marked[0, :4, 0] = [number >> shift & 0xFF for shift in (0, 8, 16, 24)]
    return marked


@pytest.mark.parametrize(
    ("what", "pictures", "expected"),
    [
        ("a camera that froze", [(i * 0.1, SAME) for i in range(40)], 2.0),
        ("a slow camera that froze", [(i * 1.0, SAME) for i in range(9)], 2.0),
        ("twice the same, far apart", [(0, SAME), (5, SAME), (15, OTHER), (25, OTHER)], None),
        ("a short hang", [(i * 0.1, SAME) for i in range(19)] + [(1.9, OTHER)], None),
        ("every picture twice", [(i * 0.1, stamped(i // 2)) for i in range(99)], None),
        ("every picture for a while", [(i * 0.1, stamped(i // 15)) for i in range(99)], None),
        ("a covered lens", [(i * 0.1, BLACK) for i in range(99)], None),
        ("a lens in the sun", [(i * 0.1, WHITE) for i in range(99)], None),
        ("frozen again after a change", [(0, SAME)] + [(1 + i * 0.5, OTHER) for i in range(9)], 3.0),
    ],
)
def test_a_camera_is_frozen_when_three_pictures_or_more_are_the_same_for_two_seconds(
    what: str, pictures: list[tuple[float, Image]], expected: float | None
) -> None:
    assert fault_at(pictures) == (expected and ("camera_frozen", expected)), what


@pytest.mark.parametrize(
    ("what", "pictures", "expected"),
    [
        ("there and back", [(0, SAME), (0.1, OTHER), (0.2, SAME)], 0.2),
        ("after a freeze", [(0, SAME), (0.1, SAME), (0.2, OTHER), (0.3, OTHER), (0.4, SAME)], 0.4),
        ("at the end of the time", [(0, SAME), (0.1, OTHER), (LOOP_WITHIN_S, SAME)], LOOP_WITHIN_S),
        ("after the time", [(0, SAME), (0.1, OTHER), (LOOP_WITHIN_S + 0.1, SAME)], None),
        ("counted from when it was there last", [(0, SAME), (3, SAME), (4, OTHER), (12, SAME)], 12),
        ("an eye on the lens", [(i * 0.1, BLACK if i % 2 else stamped(i)) for i in range(60)], None),
        ("too bright and back", [(i * 0.1, WHITE if i % 3 else stamped(i)) for i in range(60)], None),
    ],
)
def test_a_picture_that_comes_again_within_ten_seconds_and_not_at_once_is_a_loop(
    what: str, pictures: list[tuple[float, Image]], expected: float | None
) -> None:
    assert fault_at(pictures) == (expected and ("frame_loop", expected)), what


@pytest.mark.parametrize("fps", [7.5, 15.0])
def test_every_loop_of_two_to_ten_seconds_is_found_at_its_first_repeated_picture(fps: float) -> None:
    small = picture(32, 24)
    for length in range(round(2 * fps), round(10 * fps) + 1):
        shown = [stamped(i, small) for i in range(length)]
        looped = ((i / fps, image) for i, image in enumerate(islice(cycle(shown), length + 1)))
        assert fault_at(looped) == ("frame_loop", length / fps)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=80), st.sampled_from([0.05, 0.1, 0.3, 1.0]))
def test_a_fault_is_told_exactly_when_a_picture_came_before_and_never_later(numbers: list[int], step_s: float) -> None:
    """Against the words of the rule, read literally."""
    small, expected = picture(64, 48), None
    for i, number in enumerate(numbers):
        run = next((j for j in range(i, -1, -1) if numbers[j] != number), -1)
        again = [j for j in range(run + 1) if numbers[j] == number and (i - j) * step_s <= LOOP_WITHIN_S]
        if i - run >= 3 and (i - run - 1) * step_s >= 2.0:
            expected = ("camera_frozen", i)
        elif again and run == i - 1:
            expected = ("frame_loop", i)
        if expected:
            break
    times_s = [i * step_s for i in range(len(numbers))]
    found = fault_at([(at_s, stamped(n, small)) for at_s, n in zip(times_s, numbers, strict=True)])
    assert found == (expected and (expected[0], times_s[expected[1]]))


def test_a_still_scene_with_the_noise_of_a_sensor_gives_no_alarm() -> None:
    """One grey level of noise in one pixel of a hundred: less than any sensor has."""
    rng = np.random.default_rng(1)

    def noisy() -> Image:
        image = SAME.copy()
        image[rng.random(image.shape[:2]) < 0.01] += 1
        return image

    assert fault_at([(i / 15, noisy()) for i in range(160)]) is None


def test_one_sample_that_differs_makes_another_picture() -> None:
    for image in (picture(1280, 720), picture(), picture(320, 180)[..., 0]):
        other = image.copy()
        other[8, 16] += 1
        assert mark_of(other).digest != mark_of(image).digest
        assert mark_of(image.copy()).digest == mark_of(image).digest


@pytest.mark.assets
def test_no_clip_that_is_played_once_is_objected_to_and_each_played_again_is(assets: Path) -> None:
    for path in sorted(assets.glob("videos/*")):
        if path.suffix not in CLIP_SUFFIXES:
            continue
        frames = list(clip_frames(path))
        assert fault_at(frames) is None, path.name
        again = [(frames[-1][0] + 0.1 + at_s, image) for at_s, image in frames]
        if again[0][0] <= LOOP_WITHIN_S:
            assert fault_at(frames + again) is not None, path.name


def clip_frames(path: Path) -> Iterable[tuple[float, Image]]:
    clip = Clip(path, default_fps=10.0, loop=False)
    number = 0
    while (image := clip.image(number)) is not None:
        yield number / clip.fps, image
        number += 1
    clip.close()
