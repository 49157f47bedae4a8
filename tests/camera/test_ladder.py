"""The recovery ladder: which step, when, and never too often."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.camera.ladder import ALL_STEPS, Advice, ExitRecord, Ladder, Pace, Step

pytestmark = pytest.mark.arm
PACE = Pace()
NOW_S = 10_000.0
LAST_TRY = PACE.reopen_tries + PACE.respawn_tries


def failing(times: int, ladder: Ladder | None = None, *, since_s: float = NOW_S) -> Ladder:
    """Failed so often, all at once."""
    ladder = ladder or Ladder(boot_id="a")
    for _ in range(times):
        ladder.failed(since_s)
    return ladder


@pytest.mark.parametrize(
    ("failures", "step", "pause_s"),
    [
        (1, Step.REOPEN, 0.5),
        (2, Step.REOPEN, 1.0),
        (3, Step.REOPEN, 2.0),
        (4, Step.RESPAWN, 2.0),
        (5, Step.RESPAWN, 4.0),
        (8, Step.RESPAWN, 32.0),
        (9, Step.RESPAWN, 60.0),
        (1000, Step.RESPAWN, 60.0),
    ],
)
def test_each_failure_climbs_and_the_pauses_double_up_to_a_minute(failures: int, step: Step, pause_s: float) -> None:
    assert failing(failures).advice(NOW_S) == Advice(step, NOW_S + pause_s)


def test_a_camera_that_never_failed_needs_nothing() -> None:
    ladder = Ladder(boot_id="a")
    assert ladder.advice(NOW_S).step is Step.NONE
    ladder.succeeded(NOW_S)
    assert ladder.advice(NOW_S).step is Step.NONE


@pytest.mark.parametrize(
    ("why", "failures", "failing_s", "in_session", "expected"),
    [
        ("all was tried, for minutes", LAST_TRY + 1, PACE.exit_after_s, False, Step.EXIT),
        ("not all was tried", LAST_TRY, PACE.exit_after_s, False, Step.RESPAWN),
        ("not for long enough", LAST_TRY + 1, PACE.exit_after_s - 1, False, Step.RESPAWN),
        ("a session runs", LAST_TRY + 1, PACE.exit_after_s, True, Step.RESPAWN),
    ],
)
def test_the_daemon_ends_last_of_all_and_never_during_a_session(
    why: str, failures: int, failing_s: float, in_session: bool, expected: Step
) -> None:
    assert failing(failures).advice(NOW_S + failing_s, in_session=in_session).step is expected, why


@pytest.mark.parametrize(
    ("why", "record", "uptime_s", "expected"),
    [
        ("never before", None, 1000, Step.EXIT),
        ("an hour ago", ExitRecord("a", 400), 4000, Step.EXIT),
        ("less than an hour ago", ExitRecord("a", 401), 4000, Step.RESPAWN),
        ("before the reboot, which was long ago", ExitRecord("b", 9e9), 3600, Step.EXIT),
        ("before the reboot, which was not", ExitRecord("b", 5), 3599, Step.RESPAWN),
    ],
)
def test_it_ends_once_an_hour_also_across_restarts(
    why: str, record: ExitRecord | None, uptime_s: float, expected: Step
) -> None:
    ladder = failing(LAST_TRY + 1, Ladder(boot_id="a", last_exit=record), since_s=uptime_s - PACE.exit_after_s)
    assert ladder.advice(uptime_s).step is expected, why


def test_the_hour_runs_from_the_record_that_was_taken() -> None:
    ladder = failing(LAST_TRY + 1)
    assert ladder.exit_record(NOW_S + 500) == ExitRecord("a", NOW_S + 500)
    assert ladder.advice(NOW_S + 500).step is Step.RESPAWN
    assert ladder.advice(NOW_S + 500 + PACE.exit_every_s).step is Step.EXIT


@pytest.mark.parametrize("steps", [(Step.REOPEN,), (Step.REOPEN, Step.EXIT)])
def test_steps_that_cannot_help_a_source_are_left_out(steps: tuple[Step, ...]) -> None:
    ladder = failing(100, Ladder(boot_id="a", steps=steps))
    assert ladder.advice(NOW_S).step is Step.REOPEN
    assert (ladder.advice(NOW_S + 1e6).step is Step.EXIT) is (Step.EXIT in steps)


def test_pictures_for_a_while_make_it_well_and_a_few_do_not() -> None:
    ladder = failing(5)
    ladder.succeeded(NOW_S + 1)
    ladder.succeeded(NOW_S + PACE.settled_s)
    assert ladder.failures == 5
    ladder.failed(NOW_S + PACE.settled_s)
    ladder.succeeded(NOW_S + 20)
    ladder.succeeded(NOW_S + 20 + PACE.settled_s)
    assert ladder.failures == 0


def test_one_that_is_closed_while_it_delivers_is_well_and_one_that_is_closed_after_a_failure_is_not() -> None:
    ladder = failing(2)
    ladder.rested()
    assert ladder.failures == 2
    ladder.succeeded(NOW_S + 1)
    ladder.rested()
    assert ladder.failures == 0


def test_pictures_before_and_after_a_closed_time_are_not_one_run() -> None:
    ladder = failing(2)
    ladder.succeeded(NOW_S)
    ladder.failed(NOW_S + 1)
    ladder.succeeded(NOW_S + PACE.settled_s)
    assert ladder.failures == 3


SHORT = Pace(reopen_tries=1, respawn_tries=1, exit_after_s=300, exit_every_s=900)
"""Climbed often enough in a random history."""
History = st.lists(
    st.tuples(st.sampled_from(["failed"] * 5 + ["exit"] * 2 + ["succeeded", "rested"]), st.floats(0.1, 400)),
    max_size=200,
)


@given(History, st.booleans(), st.one_of(st.none(), st.floats(0, NOW_S)))
def test_whatever_happens_the_ladder_keeps_its_promises(
    history: list[tuple[str, float]], in_session: bool, last_exit_s: float | None
) -> None:
    record = None if last_exit_s is None else ExitRecord("a", last_exit_s)
    ladder, now_s, exits = Ladder(boot_id="a", last_exit=record, pace=SHORT), NOW_S, [last_exit_s]
    well_at_s = NOW_S
    for event, after_s in history:
        now_s += after_s
        before = ladder.failures
        if event == "exit":
            if ladder.advice(now_s, in_session=in_session).step is Step.EXIT:
                ladder.exit_record(now_s)
                exits.append(now_s)
        elif event == "rested":
            ladder.rested()
        else:
            getattr(ladder, event)(now_s)
        if ladder.failures == 0:
            well_at_s = now_s
        advice = ladder.advice(now_s, in_session=in_session)

        assert ladder.failures in {0, before, before + 1}
        assert (advice.step is Step.NONE) is (ladder.failures == 0)
        assert advice.not_before_s <= now_s + SHORT.longest_pause_s
        assert advice == ladder.advice(now_s, in_session=in_session)
        if advice.step is Step.EXIT:
            assert not in_session
            assert ladder.failures > SHORT.reopen_tries + SHORT.respawn_tries
            assert now_s - well_at_s >= SHORT.exit_after_s
    times = [at for at in exits if at is not None]
    assert all(later - earlier >= SHORT.exit_every_s for earlier, later in pairwise(times))


@given(st.integers(1, 60))
def test_a_camera_that_only_fails_never_goes_down_the_ladder(failures: int) -> None:
    ladder = failing(failures)
    lower = ALL_STEPS.index(ladder.advice(NOW_S).step)
    ladder.failed(NOW_S)
    assert ALL_STEPS.index(ladder.advice(NOW_S).step) >= lower
