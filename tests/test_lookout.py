"""Between sessions: whether something moves before a camera that is watched, and nothing but that."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from edge_agent.camera.motion import STILL_AFTER_S, Motion, blocks_of, differ
from edge_agent.config import CameraSection
from edge_agent.lookout import IDLE_S, Lookout
from edge_agent.types import Frame, Image
from tests.outbox.fakes import FakeClock

pytestmark = pytest.mark.arm
ROOM = np.random.default_rng(3).integers(40, 200, (18, 32, 3), np.uint8).repeat(20, 0).repeat(20, 1)


def noisy(image: Image, seed: int, levels: float = 4.0) -> Image:
    """The same scene by another frame of a sensor."""
    most = round(levels * 1.7)  # of even noise, whose deviation is 0.58 times that
    noise = np.random.default_rng(seed).integers(0, 2 * most + 1, image.shape, np.uint8)
    picture: Image = image + noise - np.uint8(most)
    return picture


def with_head(x: int) -> Image:
    """Somebody of a tenth of the width."""
    image = ROOM.copy()
    image[100:250, x : x + 65] = 120
    return image


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        pytest.param(ROOM, noisy(ROOM, 1, 6.0), False, id="noise"),
        pytest.param(ROOM, (ROOM * 0.98).astype(np.uint8), False, id="exposure adapts"),
        pytest.param(ROOM, with_head(200), True, id="somebody comes"),
        pytest.param(with_head(200), with_head(220), True, id="somebody moves"),
        pytest.param(ROOM, (ROOM * 0.5).astype(np.uint8), True, id="the light goes out"),
        pytest.param(ROOM, ROOM[:180], True, id="another size"),
    ],
)
def test_what_is_a_movement(before: Image, after: Image, moved: bool) -> None:
    assert differ(blocks_of(before), blocks_of(after)) is moved


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (24, 32), (8, 8), (1, 1), (300, 7)])
def test_a_picture_of_any_size_has_blocks_in_which_nobody_can_be_made_out(size: tuple[int, int]) -> None:
    blocks = blocks_of(np.full((*size, 3), 90, np.uint8))
    assert blocks.size <= 600
    assert blocks == pytest.approx(90)


def test_stillness_is_counted_from_the_last_movement() -> None:
    motion = Motion()
    assert motion.still_s(10.0) is None
    for second in range(10):
        motion.see(noisy(ROOM, second), float(second))
    assert motion.still_s(9.5) == 9.5
    motion.see(with_head(100), 10.0)
    assert motion.still_s(10.5) == 0.5
    motion.forget()
    assert motion.still_s(11.0) is None


class Keeper:
    """A camera that shows ``scene``; None: somebody else has it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.scene, self.glances = clock, ROOM.copy(), 0
        self.watched = True

    async def glance(self, fps: float) -> Frame | None:
        assert fps == 5.0
        self.glances += 1
        return Frame(noisy(self.scene, self.glances), self.clock.monotonic_s(), 0) if self.watched else None


class Post:
    """A lookout whose seconds pass in no time."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.keeper, self.told = Keeper(self.clock), list[bool]()
        self.settings = CameraSection(between_sessions="watch", **settings)
        self.lookout = Lookout(
            self.keeper,  # type: ignore[arg-type]
            lambda: self.settings,
            clock=self.clock,
            on_change=self.told.append,
        )

    def wait(self, seconds: float) -> None:
        async def turns() -> None:
            end_s = self.clock.monotonic_s() + seconds
            while self.clock.monotonic_s() < end_s:
                self.clock.advance(await self.lookout.look())

        asyncio.run(turns())


def test_it_tells_when_something_begins_to_move_and_when_all_is_still_again() -> None:
    post = Post()
    post.wait(STILL_AFTER_S + 1)
    assert post.told == [False]
    post.keeper.scene = with_head(300)
    post.wait(2)
    assert post.told == [False, True]
    post.wait(STILL_AFTER_S)
    assert post.told == [False, True, False]
    assert post.lookout.describe() == {"watched": True, "still_s": pytest.approx(7, abs=0.5)}


def test_it_looks_at_the_rate_that_is_set_and_not_at_all_where_the_camera_is_closed() -> None:
    post = Post()
    post.wait(10)
    assert post.keeper.glances == pytest.approx(50, abs=1)
    post.settings = CameraSection()
    post.wait(10 * IDLE_S)
    assert post.keeper.glances == pytest.approx(50, abs=1)


def test_what_was_before_a_session_says_nothing_of_what_is_after_it() -> None:
    post = Post()
    post.wait(STILL_AFTER_S + 1)
    post.keeper.watched = False
    post.wait(1)
    assert post.lookout.describe() == {"watched": False, "still_s": None}
    post.keeper.watched, post.keeper.scene = True, with_head(300)
    post.wait(1)
    assert post.told == [False], "somebody who left is no news"
    post.wait(STILL_AFTER_S)
    assert post.told == [False, False]
