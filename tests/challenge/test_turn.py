"""The judge of one turn: heads pass, planes never do, and whatever is no single unbroken movement begins again."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest

from edge_agent.challenge.turn import Reading, Side, TurnCue
from edge_agent.types import Landmarks
from tests.challenge.following import Follower
from tests.challenge.heads import Stand

FPS = (7.5, 10.0, 15.0)
TILTS_DEG = ((0.0, 0.0), (-18.0, 8.0), (15.0, -12.0))
"""(pitch, roll): the camera stands above or below, the head or the terminal leans."""
NOISE = 0.01
"""Of the landmarks, eye distances."""
FACE, GONE = Stand(), None

PLACES = [*product((350.0, 500.0, 900.0), TILTS_DEG, FPS), (500.0, TILTS_DEG[1], 30.0)]


@pytest.mark.parametrize(("distance_mm", "tilt", "fps"), PLACES)
def test_a_head_that_turns_fourteen_degrees_to_both_sides_passes(distance_mm, tilt, fps) -> None:
    for seed, nose_mm in enumerate((28.0, 32.0, 36.0)):
        head = Stand(nose_mm, distance_mm, tilt[0], tilt[1], noise=NOISE, seed=seed)
        outcome = Follower(head, 14.0, fps, deg_per_s=20.0).run(TurnCue())
        assert outcome.passed, (nose_mm, outcome)


@pytest.mark.parametrize(("distance_mm", "tilt", "fps"), PLACES)
def test_a_plane_passes_in_neither_direction_however_far_it_is_turned(distance_mm, tilt, fps) -> None:
    for angle_deg in (25.0, 55.0):
        picture = Stand(0.0, distance_mm, tilt[0], tilt[1], axis_mm=0.0, noise=NOISE, seed=int(angle_deg))
        outcome = Follower(picture, angle_deg, fps, deg_per_s=80.0, wait_s=0.7).run(TurnCue(0.10))
        assert outcome.neutral and not any(outcome.turned), (angle_deg, outcome)


class Film:
    """Frames shown to a cue one by one."""

    def __init__(self, cue: TurnCue | None = None, *, fps: float = 15.0, stand: Stand = FACE) -> None:
        self.cue, self.step_s, self.stand, self.now_s = cue or TurnCue(), 1 / fps, stand, 50.0

    def add(self, landmarks: Landmarks | None, track_id: int = 1) -> Reading:
        self.now_s += self.step_s
        return self.cue.add(self.now_s, landmarks, track_id)

    def show(self, yaws_deg: Iterable[float], track_id: int = 1) -> list[Reading]:
        return [self.add(self.stand(yaw), track_id) for yaw in yaws_deg]

    def settled(self) -> Film:
        assert self.show([0.0] * 20)[-1].neutral
        return self

    def asked(self, side: Side = Side.LEFT) -> Film:
        self.settled().cue.ask(side)
        return self


TO_THE_LEFT = np.linspace(1.0, 20.0, 12)
HELD = [20.0] * 8


def test_progress_grows_to_one_and_the_turn_stays_made_until_something_else_is_asked() -> None:
    film = Film().asked()
    readings = film.show([*TO_THE_LEFT, *HELD, *TO_THE_LEFT[::-1], 0.0, 0.0, 0.0])
    progress = [r.progress for r in readings[:20]]
    assert progress == sorted(progress) and progress[0] < 0.1 and progress[-1] == 1.0
    assert [r.turned for r in readings] == sorted(r.turned for r in readings) and readings[-1].turned
    film.cue.ask(Side.RIGHT)
    (after,) = film.show([0.0])
    assert (after.progress, after.turned, after.reset, after.inconclusive) == (0.0, False, None, None)


@pytest.mark.parametrize(("side", "mirrored"), list(product(Side, (False, True))))
def test_only_the_side_that_was_asked_counts_and_it_is_the_customers_own(side: Side, mirrored: bool) -> None:
    for turned_to in Side:
        film = Film(TurnCue(mirrored=mirrored), stand=Stand(mirrored=mirrored)).asked(side)
        last = film.show([turned_to.sign * yaw for yaw in (*TO_THE_LEFT, *HELD)])[-1]
        assert last.u is not None and np.sign(last.u) == turned_to.sign
        assert (last.turned, last.progress) == ((True, 1.0) if turned_to is side else (False, 0.0))


def test_a_turn_that_nobody_asked_for_yet_does_not_count() -> None:
    film = Film().settled()
    early = film.show([*TO_THE_LEFT, *HELD])
    assert not any(r.turned or r.progress for r in early)
    assert [r.neutral for r in early[:3]] == [True] * 3 and not early[-1].neutral
    film.cue.ask(Side.LEFT)
    assert not any(r.turned for r in film.show(HELD * 3)), "who is there already has not moved"
    assert film.show([*TO_THE_LEFT[::-1], *TO_THE_LEFT, *HELD])[-1].turned


def test_both_steps_use_one_neutral_pose() -> None:
    film = Film().asked(Side.LEFT)
    film.show([*TO_THE_LEFT, *HELD])
    film.cue.ask(Side.RIGHT)
    assert film.show(np.linspace(20.0, -20.0, 25))[-1].neutral is False
    assert film.show([-20.0] * 8)[-1].turned


BROKEN: dict[str, tuple[list[tuple[float | None, int]], str]] = {
    "the face is away for four frames": ([(None, 0)] * 4, "face_lost"),
    "another track": ([(5.0, 2)], "track_changed"),
    "the nose jumps": ([(25.0, 1)], "jump"),
    "the nose jumps while the face was away": ([(None, 0), (25.0, 1)], "jump"),
}


@pytest.mark.parametrize(("frames", "reason"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_movement_forgets_all_and_says_why_once(frames, reason) -> None:
    film = Film().asked()
    film.show(TO_THE_LEFT[:2])
    readings = [film.add(GONE if yaw is None else FACE(yaw), track) for yaw, track in frames]
    assert [r.reset for r in readings] == [None] * (len(frames) - 1) + [reason]
    track = frames[-1][1] or 1
    after = film.show([*TO_THE_LEFT, *HELD], track)
    assert not any(r.turned or r.progress for r in after), "what was asked is forgotten"
    assert all(r.u is None for r in film.show([20.0], track)[:4]) or after[-1].u is not None


def test_after_a_break_a_new_neutral_pose_is_needed() -> None:
    film = Film().asked()
    assert film.add(FACE(0.0), 2).reset == "track_changed"
    again = film.show([0.0] * 14, track_id=2)
    assert again[3].u is None and not again[3].neutral and again[-1].neutral
    assert not any(r.reset for r in again)


def test_a_face_that_is_away_for_three_frames_is_still_the_same() -> None:
    film = Film().asked()
    film.show(TO_THE_LEFT[:5])
    gone = [film.add(GONE, 0) for _ in range(3)]
    assert not any(r.reset or r.neutral for r in gone) and all(r.u is None for r in gone)
    assert film.show([*TO_THE_LEFT[5:], *HELD])[-1].turned


def test_time_that_stands_still_breaks_the_track() -> None:
    film = Film().asked()
    film.step_s = 0.0
    assert film.add(FACE(0.0)).reset == "track_changed"


def test_two_pictures_shown_one_after_the_other_are_no_turn() -> None:
    """The second shows the head turned; its u is near enough not to be a jump, and nothing lies between."""
    for seed in range(10):
        film = Film(stand=Stand(noise=NOISE / 4, seed=seed)).asked()
        readings = film.show([11.7] * 30)
        assert not any(r.turned or r.reset for r in readings)
        assert readings[-1].progress == 1.0


TOO_LITTLE = {
    "it stops short": [*TO_THE_LEFT[:6], *[TO_THE_LEFT[5]] * 20],
    "it is held for two smoothed frames": [*TO_THE_LEFT[:6], 11.0, 11.0, 9.0, 11.0, 8.0, 6.0, 4.0, 2.0, 0.0],
    "it goes too fast to be followed": [8.0, 17.0, 20.0, *[20.0] * 20],
}


@pytest.mark.parametrize("yaws", TOO_LITTLE.values(), ids=list(TOO_LITTLE))
def test_a_turn_has_to_be_seen_to_go_far_enough_and_to_stay(yaws: list[float]) -> None:
    readings = Film().asked().show(yaws)
    assert not any(r.turned or r.reset for r in readings)
    assert max(r.progress for r in readings) > 0.85


def test_a_frame_without_a_face_begins_the_hold_anew() -> None:
    film = Film().asked()
    film.show(TO_THE_LEFT[:6])
    while film.add(FACE(11.0)).progress < 1.0:
        pass
    assert not film.add(FACE(11.0)).turned, "two of three"
    film.add(GONE)
    assert [film.add(FACE(11.0)).turned for _ in range(3)] == [False, False, True]


ONE_AND_THE_OTHER: dict[str, tuple[Side, list[float]]] = {
    "the second trembles": (Side.LEFT, [11.7, 11.7, 9.9] * 10),
    "the first trembles": (Side.RIGHT, [*[11.7, 9.9] * 5, 11.7, *[0.0] * 3, *[-11.7] * 15]),
    "once it was moved slowly": (Side.LEFT, [*TO_THE_LEFT[:6], 11.0, *TO_THE_LEFT[4::-1], 0.0, 0.0, *[11.7] * 15]),
}


@pytest.mark.parametrize(("side", "yaws"), ONE_AND_THE_OTHER.values(), ids=list(ONE_AND_THE_OTHER))
def test_what_trembles_at_one_end_has_not_been_on_the_way(side: Side, yaws: list[float]) -> None:
    readings = Film().asked(side).show(yaws)
    assert not any(r.turned or r.reset for r in readings)
    assert max(r.progress for r in readings) == 1.0


def test_whoever_turns_further_than_asked_passes_on_the_way() -> None:
    assert Film().asked().show([*np.linspace(1.0, 45.0, 24), *[45.0] * 9])[-1].turned


def test_a_turn_with_the_chin_far_up_is_not_the_asked_one() -> None:
    film = Film().asked()
    chin_up = [Stand(pitch_deg=float(pitch))(0.0) for pitch in np.linspace(2.0, 38.0, 12)]
    then_left = [Stand(pitch_deg=38.0)(float(yaw)) for yaw in (*TO_THE_LEFT[:8], *[13.0] * 10)]
    readings = [film.add(landmarks) for landmarks in (*chin_up, *then_left)]
    assert not any(r.turned or r.reset for r in readings) and readings[-1].progress == 1.0
    assert not readings[11].neutral


NOT_NEUTRAL = {
    "it looks aside": Stand()(18.0),
    "the chin is far up": Stand(pitch_deg=45.0)(0.0),
    "the face is very narrow": np.array([[-2, 0], [2, 0], [0, 4], [-2, 8], [2, 8]], np.float32) * 10,
}


@pytest.mark.parametrize("landmarks", NOT_NEUTRAL.values(), ids=list(NOT_NEUTRAL))
def test_a_head_that_does_not_look_straight_gives_no_neutral_pose(landmarks) -> None:
    film = Film()
    assert not any(film.add(landmarks).neutral for _ in range(40))


def test_a_head_that_does_not_keep_still_gives_no_neutral_pose() -> None:
    yaws = 7.0 * np.sin(np.arange(60) / 15 * 2 * np.pi * 1.2)
    assert not any(r.neutral for r in Film().show(yaws))


@pytest.mark.parametrize(("fps", "reason"), [(6.5, "too_slow"), (7.2, None), (15.0, None)])
def test_frames_that_come_too_seldom_judge_nothing(fps: float, reason: str | None) -> None:
    film = Film(fps=fps)
    film.show([0.0] * 20)
    film.cue.ask(Side.LEFT)
    last = film.show([*TO_THE_LEFT, *HELD])[-1]
    assert (last.inconclusive, last.turned) == (reason, reason is None)


def test_a_stutter_in_the_middle_of_a_turn_only_puts_it_off() -> None:
    film = Film(fps=8.0).asked()
    film.step_s = 0.4
    slow = film.show(TO_THE_LEFT[:6])
    film.step_s = 1 / 15
    assert slow[-1].inconclusive == "too_slow" and not slow[-1].turned
    assert film.show([*TO_THE_LEFT[6:], *HELD * 3])[-1].reset is None


def test_a_small_face_judges_nothing() -> None:
    for distance_mm, reason in ((2100.0, "too_small"), (1700.0, None)):
        film = Film(stand=Stand(distance_mm=distance_mm))
        film.show([0.0] * 20)
        film.cue.ask(Side.LEFT)
        last = film.show([*TO_THE_LEFT[:8], *[13.0] * 8])[-1]
        assert (last.inconclusive, last.turned) == (reason, reason is None)


@pytest.mark.parametrize("threshold", [0.10, 0.15])
def test_the_threshold_is_the_way_to_go(threshold: float) -> None:
    film = Film(TurnCue(threshold)).asked()
    readings = film.show(np.repeat(TO_THE_LEFT, 9))
    first = next(r for r in readings if r.turned)
    assert first.u is not None and threshold <= first.u < threshold + 0.04
