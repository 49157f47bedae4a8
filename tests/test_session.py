"""The vote, the best shot and the hint: what never qualifies, and what does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config import GateSection
from edge_agent.session import BestShot, BestShotVote, Framing, HintHold, fuse
from edge_agent.types import Assessment, GateCode
from tests.faces import LIMITS, Scene, face, measurement, scores

pytestmark = pytest.mark.arm
K = 5


def vote(*, window_s: float = 0.0, k: int = K, started_at_s: float = 0.0) -> BestShotVote:
    return BestShotVote(liveness_frames=k, window_s=window_s, started_at_s=started_at_s)


def qualifies(votes: BestShotVote, frames: list[Assessment]) -> list[BestShot]:
    return [shot for shot in map(votes.add, frames) if shot is not None]


def test_k_good_frames_of_one_track_qualify() -> None:
    scene, votes = Scene(), vote()
    assert qualifies(votes, [scene.show() for _ in range(K - 1)]) == []
    assert votes.add(scene.show()) is not None


def test_the_best_of_the_window_is_chosen_and_not_the_first() -> None:
    scene, votes = Scene(), vote(window_s=1.0)
    sharpness = [0.4, 0.5, 0.9, 0.6, *[0.5] * 8]
    shots = qualifies(votes, [scene.show(measurement(sharpness=s)) for s in sharpness])
    assert len(shots) == 1
    assert shots[0].assessment.measurement.quality is not None
    assert shots[0].assessment.measurement.quality.sharpness == 0.9


def test_the_window_stays_open_for_its_whole_length() -> None:
    scene, votes = Scene(fps=30), vote(window_s=1.0)
    first = scene.show()
    shots = qualifies(votes, [first, *[scene.show() for _ in range(40)]])
    assert shots
    assert votes.votes > 0
    assert scene.now_s - first.frame.captured_at_s >= 1.0


def test_a_slow_camera_waits_for_k_frames_beyond_the_window() -> None:
    scene, votes = Scene(fps=2), vote(window_s=1.0)
    assert qualifies(votes, [scene.show() for _ in range(K - 1)]) == []
    assert votes.add(scene.show()) is not None


def test_frames_from_before_the_session_do_not_vote() -> None:
    scene = Scene(start_s=100.0)
    votes = vote(started_at_s=100.35)
    assert qualifies(votes, [scene.show() for _ in range(3 + K - 1)]) == []
    assert votes.add(scene.show()) is not None


def test_a_repeated_picture_votes_once() -> None:
    scene, votes = Scene(), vote()
    scene.show()
    assert qualifies(votes, [scene.show(repeat=True) for _ in range(50)]) == []


def test_a_best_frame_that_a_model_refuses_never_qualifies() -> None:
    """The median passes, but no single frame is called live by both models."""
    scene, votes = Scene(), vote()
    frames = [scene.show(live=scores(0.9, 0.4) if i % 2 else scores(0.4, 0.9)) for i in range(30)]
    assert qualifies(votes, frames) == []


def test_one_outlier_is_outvoted() -> None:
    scene, votes = Scene(), vote()
    frames = [scene.show(live=scores(0.1, 0.1) if i == 2 else None) for i in range(K)]
    shots = qualifies(votes, frames)
    assert len(shots) == 1
    assert shots[0].assessment.accepted


@pytest.mark.parametrize(
    ("photo", "live", "qualified"),
    [(7, 8, True), (8, 7, False), (30, 7, False), (30, 8, True)],
    ids=["more live", "more photo", "still more photo", "the oldest are forgotten"],
)
def test_the_latest_fifteen_frames_vote_however_long_the_window(photo: int, live: int, qualified: bool) -> None:
    """``live`` frames after ``photo`` ones: the verdict of the very last of them."""
    for window_s in (0.0, 0.3):
        scene, votes = Scene(), vote(window_s=window_s)
        shown = [scene.show(live=scores(0.1, 0.1)) for _ in range(photo)] + [scene.show() for _ in range(live)]
        assert qualifies(votes, shown[:-1]) == []
        best = votes.add(shown[-1])
        assert (best is not None) is qualified
        assert best is None or best.votes == 15


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.49), (0.49, 1.0)])
def test_any_model_denies_for_all_and_no_score_makes_up_for_another(first: float, second: float) -> None:
    """Every third frame passes by itself, the last too; one model's median is just below, the other's as high as can be."""
    scene, votes = Scene(), vote()
    frames = [scene.show(live=scores(1.0, 1.0) if i % 3 == 2 else scores(first, second)) for i in range(30)]
    assert frames[-1].accepted
    assert qualifies(votes, frames) == []


def test_a_frame_from_before_the_window_votes_and_cannot_be_the_best_shot() -> None:
    scene, votes = Scene(fps=10), vote(window_s=0.55)
    best, *rest = [scene.show(measurement(sharpness=s)) for s in (0.99, *[0.5] * 5)]
    dark = [scene.show(live=scores(0.1, 0.9)) for _ in range(3)]
    last = [scene.show(measurement(sharpness=0.45))]
    shots = qualifies(votes, [best, *rest, *dark, *last])
    assert [shot.votes for shot in shots] == [10]
    assert shots[0].assessment.measurement.digest != best.measurement.digest


def test_the_best_of_a_window_of_many_frames_may_be_older_than_those_that_vote() -> None:
    scene, votes = Scene(fps=30), vote(window_s=1.0)
    shots = qualifies(votes, [scene.show(measurement(sharpness=0.9 if i == 1 else 0.5)) for i in range(32)])
    assert (shots[0].votes, shots[0].assessment.frame.index) == (15, 2)


def test_a_photo_shown_after_a_live_face_does_not_qualify() -> None:
    scene, votes = Scene(), vote()
    live = [scene.show() for _ in range(K - 1)]
    photo = [scene.show(live=scores(0.1, 0.1)) for _ in range(30)]
    assert qualifies(votes, live + photo) == []


def test_quality_failures_do_not_vote_but_keep_the_track() -> None:
    scene, votes = Scene(), vote()
    frames = [scene.show(measurement(sharpness=0.0) if i % 2 else None) for i in range(2 * K - 1)]
    assert len(qualifies(votes, frames)) == 1
    assert scene.script.asked_liveness == K


@pytest.mark.parametrize(
    "interruption",
    [
        pytest.param(lambda s: s.show(measurement(())), id="lost track"),
        pytest.param(lambda s: s.show(measurement((face(), face(x=1000, inter_eye=90)))), id="second face"),
        pytest.param(lambda s: s.show(measurement((face(x=300),))), id="jump"),
        pytest.param(lambda s: s.show(measurement((face(inter_eye=180),))), id="sudden growth"),
        pytest.param(lambda s: s.show(measurement(person=2)), id="another person in the same place"),
        pytest.param(lambda s: s.show(gap_s=LIMITS.max_track_gap_s + 0.1), id="a gap in time"),
        pytest.param(lambda s: s.show(measurement(appearance=None)), id="nothing to compare"),
    ],
)
def test_an_interruption_starts_the_vote_again(interruption) -> None:
    scene, votes = Scene(), vote()
    frames = [scene.show() for _ in range(K - 1)]
    frames.append(interruption(scene))
    frames += [scene.show() for _ in range(K - 2)]
    assert qualifies(votes, frames) == []


Event = st.sampled_from(["good", "other", "photo", "repeat", "lost", "two", "jump", "blurred", "outlier"])


@settings(max_examples=400, deadline=None)
@given(st.lists(Event, max_size=60), st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0]))
def test_whatever_qualifies_is_one_live_person_throughout(events: list[str], k: int, window_s: float) -> None:
    """The last k assessed frames before a best shot are distinct, of one person, without any interruption."""
    scene, votes = Scene(), vote(window_s=window_s, k=k)
    person, place = 1, 640.0
    history: list[tuple[str, int, int]] = []  # (event, person, picture index) since the last interruption
    for event in events:
        if event == "other":
            person += 1
        if event == "jump":
            place = 300.0 if place > 600 else 900.0
        if event in {"other", "jump", "lost", "two"}:
            history.clear()
        faces = {"lost": (), "two": (face(x=place), face(x=place - 300, inter_eye=90))}.get(event, (face(x=place),))
        shown = measurement(faces, person=person)
        if event == "blurred":
            shown = measurement(faces, person=person, sharpness=0.0)
        live = scores(0.1, 0.9) if event in {"photo", "outlier"} else None
        assessment = scene.show(shown, live, repeat=event == "repeat")
        if event not in {"lost", "two", "blurred"}:
            history.append((event, person, scene.index))
        best = votes.add(assessment)
        if best is None:
            continue
        assessed = {index: (kind, who) for kind, who, index in history}
        assert len(assessed) >= k
        assert {who for _, who in assessed.values()} == {person}
        assert event not in {"photo", "outlier", "lost", "two", "blurred"}
        assert best.assessment.accepted
        assert best.votes >= k
        live_votes = sum(kind not in {"photo", "outlier"} for kind, _ in list(assessed.values())[-best.votes :])
        assert live_votes * 2 > best.votes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1, 2]), min_size=1, max_size=60), st.integers(2, 6))
def test_people_who_take_turns_faster_than_k_frames_never_qualify(people: list[int], k: int) -> None:
    longest = max(len(run) for run in "".join(map(str, people)).replace("12", "1 2").replace("21", "2 1").split())
    scene, votes = Scene(), vote(k=k)
    shots = qualifies(votes, [scene.show(measurement(person=p)) for p in people])
    if longest < k:
        assert shots == []


def test_only_one_picture_is_kept_in_memory_while_quality_rises() -> None:
    scene, votes = Scene(), vote(window_s=60.0)
    for i in range(40):
        votes.add(scene.show(measurement(sharpness=0.3 + i / 100)))
    assert sum(v.shot is not None for v in votes._votes) == 1


def test_votes_of_different_models_decide_nothing() -> None:
    assert fuse([scores(0.9, 0.9), scores(0.9)]) == ()


def test_a_missing_score_counts_as_zero() -> None:
    assert fuse([scores(None), scores(0.9), scores(0.8)])[0].score == 0.8
    assert fuse([scores(None), scores(None), scores(0.8)])[0].score == 0.0


def test_a_hint_is_shown_only_after_it_held() -> None:
    hold = HintHold(0.5)
    assert hold.update(GateCode.TOO_FAR, 0.0) is None
    assert hold.update(GateCode.TOO_FAR, 0.4) is None
    shown = hold.update(GateCode.TOO_FAR, 0.5)
    assert shown is not None
    assert shown.code == GateCode.TOO_FAR
    assert hold.update(GateCode.TOO_FAR, 0.6) is None


def test_a_flickering_hint_is_not_shown() -> None:
    hold = HintHold(0.5)
    codes = [GateCode.TOO_FAR, GateCode.TOO_DARK] * 20
    assert [hold.update(code, i * 0.1) for i, code in enumerate(codes)] == [None] * 40


@given(st.lists(st.tuples(st.sampled_from([GateCode.TOO_FAR, GateCode.TOO_DARK, None]), st.floats(0.01, 0.4))))
def test_every_shown_hint_stays_for_at_least_the_hold(steps: list[tuple[GateCode | None, float]]) -> None:
    hold, now, changes = HintHold(0.5), 0.0, []
    for code, step in steps:
        now += step
        shown = hold.update(code, now)
        if shown is not None:
            changes.append(now)
    assert all(b - a >= 0.5 - 1e-9 for a, b in itertools.pairwise(changes))


def framing() -> Framing:
    return Framing(liveness_frames=K, window_s=0.0, hint_hold_s=0.2, started_at_s=0.0)


def test_a_rejection_names_the_most_frequent_most_severe_reasons() -> None:
    scene, session = Scene(), framing()
    for i in range(10):
        session.add(scene.show(measurement(luminance=0.1) if i % 3 else measurement(sharpness=0.0)))
    assert session.reasons() == (GateCode.TOO_DARK, GateCode.TOO_BLURRY)


def test_a_session_that_saw_nothing_says_no_face() -> None:
    assert framing().reasons() == (GateCode.NO_FACE,)


def test_good_frames_that_never_make_a_vote_mean_hold_still() -> None:
    scene, session = Scene(), framing()
    for i in range(10):
        best, _ = session.add(scene.show(measurement((face(x=300.0 + 600.0 * (i % 2)),))))
        assert best is None
    assert session.reasons() == (GateCode.HOLD_STILL,)


def test_the_hint_of_a_session_is_what_the_gate_wants() -> None:
    scene, session = Scene(GateSection(min_inter_eye_px=150)), framing()
    hints = [session.add(scene.show())[1] for _ in range(6)]
    assert session.hint == GateCode.TOO_FAR
    assert [h.code for h in hints if h] == [GateCode.TOO_FAR]


def test_an_inference_error_is_raised_and_never_judged() -> None:
    scene = Scene()

    class Broken(type(scene.script)):  # type: ignore[misc]
        def liveness(self, frame, face):
            raise RuntimeError("inference failed")

    scene.screener._vision = Broken()
    with pytest.raises(RuntimeError, match="inference failed"):
        scene.show()


def test_a_still_is_judged_by_the_single_frame_rules() -> None:
    scene = Scene()
    scene.script.next_measurement = measurement(sharpness=0.0)
    frame = replace(scene.show().frame, image=np.zeros((2, 2, 3), np.uint8))
    scene.script.next_measurement = measurement(sharpness=0.0)
    still = scene.screener.still(frame)
    assert still.reasons == (GateCode.TOO_BLURRY,)
    assert still.liveness
    assert next(c for c in still.checks if c.code == GateCode.HOLD_STILL).passed is None
