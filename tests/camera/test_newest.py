"""The newest picture only, and whether pictures still change."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.camera.newest import ChangeWatch, Newest
from edge_agent.errors import CameraError
from edge_agent.types import Frame
from tests.camera.sources import picture

pytestmark = pytest.mark.arm
SAME, OTHER, BLACK = picture(), picture(seed=2), np.full((240, 320, 3), 16, np.uint8)


def frozen_at(pictures: list[tuple[float, np.ndarray]]) -> float | None:
    """The time at which the watch objects, if it does."""
    watch = ChangeWatch("camera x")
    for now_s, image in pictures:
        try:
            watch.see(image, now_s)
        except CameraError:
            return now_s
    return None


@pytest.mark.parametrize(
    ("what", "pictures", "expected"),
    [
        ("a camera that froze", [(i * 0.1, SAME) for i in range(40)], 2.0),
        ("a slow camera that froze", [(i * 1.0, SAME) for i in range(9)], 3.0),
        ("twice the same, far apart", [(0, SAME), (5, SAME), (10, OTHER), (15, OTHER)], None),
        ("a short hang", [(i * 0.1, SAME) for i in range(19)] + [(1.9, OTHER)], None),
        ("every second picture repeated", [(i * 0.1, SAME if i // 2 % 2 else OTHER) for i in range(99)], None),
        ("a covered lens", [(i * 0.1, BLACK) for i in range(99)], None),
        ("frozen again after a change", [(0, SAME), (1, OTHER)] + [(1 + i * 0.5, OTHER) for i in range(1, 9)], 3.0),
    ],
)
def test_a_camera_is_frozen_when_the_same_picture_came_often_and_long_enough(
    what: str, pictures: list[tuple[float, np.ndarray]], expected: float | None
) -> None:
    assert frozen_at(pictures) == expected, what


def test_a_frozen_camera_is_unavailable_and_may_be_tried_again() -> None:
    watch = ChangeWatch("camera x")
    for now_s in (0.0, 1.0, 1.9):
        watch.see(SAME, now_s)
    with pytest.raises(CameraError, match="camera x: it repeats its last picture") as raised:
        watch.see(SAME, 2.0)
    assert (raised.value.code, raised.value.retryable) == ("camera_unavailable", True)


def test_a_single_changed_sample_is_a_change() -> None:
    other = SAME.copy()
    other[8, 16, 1] += 1
    assert frozen_at([(i * 0.5, other if i % 3 else SAME) for i in range(40)]) is None


def frame(index: int, at_s: float) -> Frame:
    return Frame(SAME, at_s, index)


def test_a_newer_picture_replaces_the_older_one_and_a_failure_both() -> None:
    newest = Newest("camera x")
    assert newest.index == -1
    newest.publish(frame(0, 1.0))
    newest.publish(frame(1, 2.0))
    assert newest.wait(after=-1, not_before_s=0, timeout_s=0).index == newest.index == 1
    newest.fail(CameraError("cannot read: gone"))
    with pytest.raises(CameraError, match="gone"):
        newest.wait(after=-1, not_before_s=0, timeout_s=0)


@pytest.mark.parametrize(("after", "not_before_s"), [(1, 0.0), (-1, 2.1)], ids=["handed out before", "stale"])
def test_what_was_handed_out_or_is_stale_is_waited_over(after: int, not_before_s: float) -> None:
    newest = Newest("camera x")
    newest.publish(frame(1, 2.0))
    with pytest.raises(CameraError, match=r"camera x: no fresh frame within 0\.01 s") as raised:
        newest.wait(after=after, not_before_s=not_before_s, timeout_s=0.01)
    assert raised.value.code == "camera_stalled"
