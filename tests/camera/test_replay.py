"""Replaying pictures, folders and clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.camera.replay import ReplayCamera
from edge_agent.errors import CameraError
from tests.camera.sources import ManualClock, picture, write_clip, write_picture


def replay(path: Path, clock: ManualClock | None = None, **more: Any) -> ReplayCamera:
    clock = clock or ManualClock()
    more = {"size": (320, 240), "fps": 10.0, **more}
    return ReplayCamera(path, clock=clock, sleep=clock.sleep, **more)


def grey(path: Path, level: int) -> Path:
    return write_picture(path, np.full((240, 320, 3), level, np.uint8))


def level(image: np.ndarray) -> int:
    return round(float(image.mean()))


def test_real_time_frames_come_at_the_rate(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(grey(tmp_path / "a.png", 90), clock) as camera:
        times = [camera.read(1).captured_at_s - 1000 for _ in range(5)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_as_fast_as_possible_takes_no_time(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(grey(tmp_path / "a.png", 90), clock, pace="fast") as camera:
        assert [camera.read(1).index for _ in range(5)] == [0, 1, 2, 3, 4]
    assert clock() == 1000.0


def test_a_frame_that_is_due_after_the_timeout_is_a_stall_and_comes_later(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(grey(tmp_path / "a.png", 90), clock, fps=0.5) as camera:
        camera.read(1)
        with pytest.raises(CameraError) as raised:
            camera.read(0.5)
        assert raised.value.code == "camera_stalled"
        assert clock() == 1000.5
        assert camera.read(2).captured_at_s == 1002.0


def test_at_a_very_low_rate_a_frame_that_grew_stale_is_not_handed_out(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(grey(tmp_path / "a.png", 90), clock, fps=0.5, stale_after_s=1.0) as camera:
        clock.sleep(1.5)
        assert camera.read(2).captured_at_s == 1002.0


def test_the_same_seed_gives_the_same_frames_and_another_seed_others(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.png", picture())
    runs = []
    for seed in (1, 1, 2):
        with replay(file, seed=seed) as camera:
            runs.append(np.stack([camera.read(1).image for _ in range(4)]))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_folder_shows_each_picture_in_turn_for_its_time_and_starts_again(tmp_path: Path) -> None:
    for name, value in (("b.png", 120), ("a.jpg", 60), ("c.bmp", 200)):
        grey(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not a picture")
    with replay(tmp_path, hold_s=0.2) as camera:
        levels = [level(camera.read(1).image) for _ in range(8)]
    assert levels == pytest.approx([60, 60, 120, 120, 200, 200, 60, 60], abs=6)


@pytest.mark.parametrize("pace", ["fast", "real_time"])
def test_a_finite_folder_ends_and_stays_ended_until_it_is_opened_again(tmp_path: Path, pace: str) -> None:
    for name, value in (("a.png", 60), ("b.png", 120)):
        grey(tmp_path / name, value)
    with replay(tmp_path, hold_s=0.1, loop=False, pace=pace) as camera:
        assert [level(camera.read(1).image) for _ in range(2)] == pytest.approx([60, 120], abs=4)
        for _ in range(2):
            with pytest.raises(CameraError) as raised:
                camera.read(1)
            assert raised.value.code == "end_of_source"
        camera.close()
        camera.open()
        assert camera.read(1).index == 0


def test_a_finite_clip_gives_every_frame_once_and_ends(tmp_path: Path) -> None:
    with replay(write_clip(tmp_path / "clip.avi", 6), pace="fast", loop=False) as camera:
        levels = [level(camera.read(1).image) for _ in range(6)]
        with pytest.raises(CameraError) as raised:
            camera.read(1)
    assert levels == pytest.approx([20, 28, 36, 44, 52, 60], abs=3)
    assert raised.value.code == "end_of_source"


def test_a_clip_plays_at_its_own_rate_skips_for_a_late_reader_and_loops(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(write_clip(tmp_path / "clip.avi", 8, fps=5.0), clock, fps=30.0) as camera:
        assert camera.read(1).captured_at_s == 1000.0
        assert camera.read(1).captured_at_s == pytest.approx(1000.2)
        clock.sleep(0.6)
        late = camera.read(1)
        assert late.index == 4
        assert level(late.image) == pytest.approx(52, abs=3)
        assert [level(camera.read(1).image) for _ in range(5)] == pytest.approx([60, 68, 76, 20, 28], abs=3)


def test_a_replay_pauses_while_nobody_reads_so_that_skipping_stays_quick(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(write_clip(tmp_path / "clip.avi", 25, fps=5.0), clock) as camera:
        camera.read(1)
        clock.sleep(3600)
        frame = camera.read(1)
    assert frame.index == 6
    assert level(frame.image) == pytest.approx(68, abs=3)
    assert clock() - frame.captured_at_s <= 0.2


def test_at_ease_a_clip_goes_on_only_while_it_is_read(tmp_path: Path) -> None:
    clock = ManualClock()
    with replay(write_clip(tmp_path / "clip.avi", 25, fps=25.0), clock) as camera:
        camera.ease(5.0)
        frames = []
        for _ in range(4):
            frames.append(camera.read(1))
            clock.sleep(0.2)
        assert [level(frame.image) for frame in frames] == pytest.approx([20, 28, 36, 44], abs=3)
        assert clock() - frames[-1].captured_at_s <= 0.2 + 1 / 25 + 1e-6
        camera.ease(None)
        clock.sleep(0.2)
        assert camera.read(1).index > frames[-1].index + 4


def test_a_picture_that_is_exchanged_while_it_plays_is_shown_next(tmp_path: Path) -> None:
    file = grey(tmp_path / "face.png", 60)
    with replay(file) as camera:
        first = camera.read(1)
        grey(file, 180)
        second = camera.read(1)
    assert level(first.image) == pytest.approx(60, abs=3)
    assert level(second.image) == pytest.approx(180, abs=5)
    assert second.index > first.index
    assert second.captured_at_s >= first.captured_at_s


def test_a_folder_or_clip_that_is_exchanged_while_it_plays_is_shown_next(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    grey(folder / "a.png", 60)
    with replay(folder) as camera:
        camera.read(1)
        (folder / "a.png").unlink()
        grey(folder / "b.png", 180)
        assert level(camera.read(1).image) == pytest.approx(180, abs=5)
    clip = write_clip(tmp_path / "clip.avi", 3)
    with replay(clip) as camera:
        camera.read(1)
        write_clip(tmp_path / "other.avi", 3, size=(160, 120)).rename(clip)
        assert camera.read(1).image.shape == (120, 160, 3)
        assert camera.size == (160, 120)


def test_a_damaged_exchange_is_an_error_and_the_next_good_one_heals_it(tmp_path: Path) -> None:
    file = grey(tmp_path / "face.png", 60)
    with replay(file) as camera:
        camera.read(1)
        file.write_bytes(b"not a picture")
        for _ in range(2):
            with pytest.raises(CameraError) as raised:
                camera.read(1)
            assert raised.value.code == "camera_format"
        grey(file, 180)
        assert level(camera.read(1).image) == pytest.approx(180, abs=5)


@pytest.mark.parametrize(
    ("name", "content", "code", "word"),
    [
        ("clip.mp4", b"", "camera_format", "empty"),
        ("clip.mp4", b"\0" * 1000, "camera_format", "decoded"),
        ("clip.gif", b"GIF89a", "camera_format", "decoded"),
        ("face.jpg", b"", "camera_format", "not a picture"),
        ("face.jpg", b"\xff\xd8\xff\xe0 cut", "camera_format", "cut off"),
        ("face.txt", b"hello", "camera_format", "not a picture"),
        ("missing.jpg", None, "camera_unavailable", "No such file"),
        ("missing.mp4", None, "camera_unavailable", "No such file"),
    ],
)
def test_what_cannot_be_played_is_refused_with_a_reason_and_a_hint(
    tmp_path: Path, name: str, content: bytes | None, code: str, word: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CameraError) as raised:
        replay(file).open()
    assert raised.value.code == code
    assert word in raised.value.message
    assert str(file) in raised.value.message
    assert raised.value.hint


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CameraError, match="no picture in it"):
        replay(tmp_path).open()


def test_a_clip_whose_name_looks_like_a_numbered_series_is_played_all_the_same(tmp_path: Path) -> None:
    with replay(write_clip(tmp_path / "img_%02d.avi", 3)) as camera:
        assert camera.read(1).image.shape == (240, 320, 3)


@pytest.mark.assets
def test_real_clips_and_animations_play(assets: Path) -> None:
    for name, size in (("sim_live_T1.mp4", (640, 480)), ("intel_walking_in.gif", (480, 270))):
        with replay(assets / "videos" / name, pace="fast") as camera:
            assert camera.size == size
            assert camera.read(1).image.shape == (size[1], size[0], 3)
