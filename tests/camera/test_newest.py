"""The newest picture only."""

from __future__ import annotations

import pytest

from edge_agent.camera.newest import Newest
from edge_agent.errors import CameraError
from edge_agent.types import Frame
from tests.camera.sources import picture

pytestmark = pytest.mark.arm
SAME = picture()


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
