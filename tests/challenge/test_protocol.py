"""The course of a challenge, on a made-up clock and with a made-up cue: what is asked when, and what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.challenge.prompts import News
from edge_agent.challenge.protocol import HOLD_S, ChallengeProtocol, Seen
from edge_agent.challenge.turn import Reading, Side
from edge_agent.config import LivenessSection
from edge_agent.types import ChallengeCode, ChallengeOutcome, Landmarks
from tests.faces import face

STRAIGHT = Reading(u=0.0, neutral=True, progress=0.0, turned=False, reset=None, inconclusive=None)
MOVING = replace(STRAIGHT, u=0.05, neutral=False)
HALF_WAY = replace(MOVING, progress=0.5)
TURNED = replace(STRAIGHT, u=0.13, neutral=False, progress=1.0, turned=True)
FRAME_S = 1 / 15


class ScriptedCue:
    """Says what it is told to; ``turned`` only once a turn was asked for, as the real one."""

    def __init__(self) -> None:
        self.reading = STRAIGHT
        self.asked: list[Side] = []

    def add(self, at_s: float, landmarks: Landmarks | None, track_id: int) -> Reading:
        del at_s, landmarks, track_id
        return self.reading

    def ask(self, side: Side) -> None:
        self.asked.append(side)


class Customer:
    """A protocol and the clock it lives by; whoever stands before it does what it asks."""

    def __init__(self, *, can_blink: bool = False, **terms: Any) -> None:
        self.news: list[News] = []
        self.cue = ScriptedCue()
        self.terms = LivenessSection(challenge="head_turn", **terms)
        self.protocol = ChallengeProtocol(
            self.terms, self.cue, tell=self.news.append, can_blink=can_blink, chance=random.Random(7)
        )
        self.now_s = 100.0
        self.track_id = 1
        self.eyes: tuple[float, float] | None = None

    def begin(self) -> Customer:
        self.protocol.begin(self.now_s)
        return self

    def frame(self, reading: Reading | None = None) -> None:
        """One more frame, and what the clock says after it."""
        self.now_s += FRAME_S
        self.cue.reading = self.cue.reading if reading is None else reading
        self.protocol.add(Seen(self.now_s, face(), self.track_id, self.eyes))
        self.protocol.tick(self.now_s)

    def until(self, met: Callable[[], bool], reading: Reading | None = None, *, within_s: float = 40.0) -> float:
        """Frames until ``met``; the seconds that took."""
        began_s = self.now_s
        while not met():
            assert self.now_s - began_s < within_s, f"not within {within_s} s: {self.news[-3:]}"
            self.frame(reading)
        return self.now_s - began_s

    def acknowledge(self) -> None:
        assert self.protocol.acknowledge(self.step, self.now_s)

    def to_turn(self) -> None:
        """As far as the first turn, which is asked but not acknowledged."""
        self.acknowledge()
        self.until(lambda: self.prompt.startswith("turn"), STRAIGHT)

    def turn(self) -> None:
        """Do the turn that is asked."""
        asked = self.step
        self.acknowledge()
        self.frame(HALF_WAY)
        self.until(lambda: self.protocol.over or self.step != asked, TURNED)

    def passing(self) -> None:
        self.to_turn()
        while not self.protocol.over:
            self.turn()

    @property
    def step(self) -> int:
        return int(self.protocol.standing()["step"])

    @property
    def prompt(self) -> str:
        return str(self.protocol.standing()["prompt"])

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [news.data for news in self.news if news.kind == kind]

    @property
    def end(self) -> tuple[str, str | None]:
        """Reason and code of the last cancellation."""
        last = self.told("cancel")[-1]
        return last["reason"], last["code"]


@pytest.mark.parametrize("steps", [2, 3])
def test_whoever_does_what_is_asked_passes_with_turns_to_alternating_sides(steps: int) -> None:
    customer = Customer(steps=steps).begin()
    customer.passing()
    assert (customer.protocol.outcome, customer.protocol.code) == (ChallengeOutcome.HEAD_TURN, None)
    first, second = customer.cue.asked[:2]
    assert customer.cue.asked == [first, second, first][:steps]
    assert first is not second
    prompts = [told["prompt"] for told in customer.told("prompt")]
    assert prompts == ["look", *(f"turn_{side}" for side in customer.cue.asked)]
    assert [told["step"] for told in customer.told("prompt")] == list(range(1, steps + 2))
    assert customer.told("begin") == [{"method": "head_turn", "attempt": 1, "attempts": 2, "steps": steps}]
    assert customer.told("done") == [{"outcome": "head_turn", "text": "Thank you. Please look at the screen."}]
    assert [news.kind for news in customer.news if news.kind == "cancel"] == []


def test_the_order_and_the_hold_are_left_to_chance() -> None:
    firsts, holds = set(), []
    for seed in range(24):
        customer = Customer()
        customer.protocol._chance = random.Random(seed)
        customer.begin().acknowledge()
        holds.append(customer.until(lambda c=customer: c.prompt.startswith("turn")))  # type: ignore[misc]
        firsts.add(customer.prompt)
    assert firsts == {"turn_left", "turn_right"}
    assert HOLD_S[0] <= min(holds) < 0.9 < 1.3 < max(holds) <= HOLD_S[1] + 3 * FRAME_S


def test_who_moves_early_waits_anew() -> None:
    customer = Customer().begin()
    customer.acknowledge()
    for _ in range(6):
        for _ in range(6):  # 0.4 s, less than the shortest hold
            customer.frame(STRAIGHT)
        customer.frame(MOVING)
        assert customer.prompt == "look"
    customer.until(lambda: customer.prompt.startswith("turn"), STRAIGHT)


@pytest.mark.parametrize("where", ["look", "turn"])
def test_what_is_done_before_a_prompt_is_acknowledged_answers_nothing(where: str) -> None:
    customer = Customer(acknowledge_timeout_s=20.0).begin()
    if where == "turn":
        customer.to_turn()
    asked, told = customer.step, len(customer.news)
    for _ in range(45):
        customer.frame(STRAIGHT if where == "look" else TURNED)
    assert (customer.step, len(customer.news), customer.cue.asked) == (asked, told, [])
    late_s = customer.now_s + FRAME_S / 2
    assert customer.protocol.acknowledge(asked, late_s)
    customer.protocol.add(Seen(late_s - 0.01, face(), 1))  # captured before it was shown, judged after
    assert (customer.step, customer.cue.asked) == (asked, [])


NEVER = ChallengeCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("unavailable", "code", "outcome"),
    [("reject", NEVER, None), ("accept", None, ChallengeOutcome.UNAVAILABLE)],
)
@pytest.mark.parametrize("prompt", ["look", "turn"])
def test_without_an_acknowledgement_it_is_unavailable_and_the_policy_decides(
    prompt: str, unavailable: str, code: ChallengeCode | None, outcome: ChallengeOutcome | None
) -> None:
    customer = Customer(unavailable=unavailable).begin()
    if prompt == "turn":
        customer.to_turn()
    took_s = customer.until(lambda: customer.protocol.over, STRAIGHT)
    assert took_s == pytest.approx(3.0, abs=2 * FRAME_S)
    assert (customer.protocol.code, customer.protocol.outcome) == (code, outcome)
    assert customer.end == ("not_acknowledged", code)
    assert [told["outcome"] for told in customer.told("done")] == ([] if code else ["unavailable"])


def test_a_step_has_its_time_and_a_challenge_its_attempts() -> None:
    customer = Customer().begin()
    for attempt in (1, 2):
        customer.to_turn()
        customer.acknowledge()
        over = lambda n=attempt: len(customer.told("cancel")) == n  # noqa: E731
        assert customer.until(over, MOVING) == pytest.approx(5.0, abs=2 * FRAME_S)
    assert [told["attempt"] for told in customer.told("begin")] == [1, 2]
    assert [(told["attempt"], told["reason"], told["code"]) for told in customer.told("cancel")] == [
        (1, "step_timeout", None),
        (2, "step_timeout", "challenge_failed"),
    ]
    assert (customer.protocol.code, customer.protocol.outcome) == (ChallengeCode.FAILED, None)


def test_all_attempts_share_one_limit_of_time() -> None:
    customer = Customer(attempts=5, total_timeout_s=12.0).begin()
    began_s = customer.now_s
    while not customer.protocol.over:
        customer.acknowledge()
        asked = customer.step
        customer.until(lambda n=asked: customer.protocol.over or customer.step != n, MOVING)  # type: ignore[misc]
    assert customer.now_s - began_s == pytest.approx(12.0, abs=3 * FRAME_S)
    assert customer.end == ("total_timeout", "challenge_failed")


@pytest.mark.parametrize("reset", ["face_lost", "jump", "track_changed"])
def test_a_break_costs_the_attempt_once_a_turn_was_told_and_only_time_before(reset: str) -> None:
    customer = Customer().begin()
    customer.acknowledge()
    for _ in range(6):
        customer.frame(STRAIGHT)
    customer.frame(replace(MOVING, u=None, reset=reset))
    assert (customer.prompt, customer.told("cancel")) == ("look", [])
    customer.until(lambda: customer.prompt.startswith("turn"), STRAIGHT)
    customer.turn()
    customer.frame(replace(MOVING, u=None, reset=reset))
    assert customer.end == (reset, None)
    assert (customer.prompt, customer.told("begin")[-1]["attempt"]) == ("look", 2)
    customer.passing()  # both sides again
    assert customer.protocol.outcome is ChallengeOutcome.HEAD_TURN
    assert len(customer.cue.asked) == 3


@pytest.mark.parametrize("other", [0, 2])
def test_another_track_ends_the_attempt_even_where_the_cue_saw_nothing(other: int) -> None:
    customer = Customer(attempts=1).begin()
    customer.to_turn()
    customer.track_id = other
    customer.frame(STRAIGHT)
    assert customer.end == ("track_changed", "challenge_failed")


def test_a_break_after_it_was_passed_takes_it_back() -> None:
    customer = Customer().begin()
    customer.passing()
    assert customer.protocol.until_s == pytest.approx(customer.now_s + 5.0, abs=2 * FRAME_S)
    customer.track_id = 2
    customer.frame(STRAIGHT)
    assert (customer.protocol.outcome, customer.prompt) == (None, "look")
    assert customer.end == ("track_changed", None)
    customer.passing()
    assert [told["outcome"] for told in customer.told("done")] == ["head_turn", "head_turn"]
    assert customer.protocol.track_id == 2
    customer.track_id = 3
    customer.frame(STRAIGHT)
    assert (customer.protocol.outcome, customer.protocol.code) == (None, ChallengeCode.FAILED)


@pytest.mark.parametrize(("fps", "end"), [(5.0, "too_slow"), (15.0, "step_timeout")])
def test_a_terminal_that_is_too_slow_is_told_from_a_customer_who_does_nothing(fps: float, end: str) -> None:
    customer = Customer(attempts=1).begin()
    customer.to_turn()
    customer.acknowledge()
    customer.cue.reading = replace(MOVING, u=None, inconclusive="too_slow")
    while not customer.protocol.over:
        customer.now_s += 1 / fps
        customer.protocol.add(Seen(customer.now_s, face(), 1))
        customer.protocol.tick(customer.now_s)
    assert customer.end[0] == end


def test_an_acknowledgement_may_come_again_but_not_for_a_step_that_was_never_shown() -> None:
    customer = Customer().begin()
    says = customer.protocol.acknowledge
    assert [says(step, customer.now_s) for step in (2, 1, 1)] == [False, True, True]
    first_s = customer.now_s
    customer.until(lambda: customer.prompt.startswith("turn"), STRAIGHT)
    assert customer.now_s - first_s < 2.5  # the second one did not start the step again
    assert [says(step, customer.now_s) for step in (1, 3, 2)] == [True, False, True]
    customer.until(lambda: customer.told("begin")[-1]["attempt"] == 2, MOVING)
    assert [says(step, customer.now_s) for step in (2, 3, 4)] == [True, True, False]


def test_progress_is_told_when_it_changes_and_not_with_every_frame() -> None:
    customer = Customer().begin()
    customer.to_turn()
    customer.acknowledge()
    for number in range(60):
        customer.frame(replace(MOVING, progress=min(0.9, number / 40)))
    told = [news["progress"] for news in customer.told("progress")]
    assert told == sorted(told)
    assert 5 <= len(told) <= 9
    customer.frame(replace(MOVING, progress=0.95))
    for _ in range(4):
        customer.frame(replace(MOVING, progress=1.0))  # however little it is since the last: all of it
    assert customer.told("progress")[-1]["progress"] == 1.0
    assert customer.protocol.standing()["progress"] == 1.0


# -- who cannot turn


def blink(customer: Customer) -> None:
    """Open for more than a second, closed for a fifth, open."""
    for eyes, frames in ((0.95, 18), (0.02, 3), (0.95, 2)):
        for _ in range(frames):
            customer.eyes = (eyes, eyes)
            customer.frame()


@pytest.mark.parametrize("when", ["before", "look", "turn"])
def test_who_cannot_turn_is_asked_to_blink_and_that_is_what_is_recorded(when: str) -> None:
    customer = Customer(can_blink=True)
    if when != "before":
        customer.begin()
    if when == "turn":
        customer.to_turn()
    assert customer.protocol.say_cannot_turn(customer.now_s)
    assert customer.protocol.say_cannot_turn(customer.now_s)  # again is fine, and changes nothing
    customer.begin()
    assert (customer.prompt, customer.protocol.wants_eyes) == ("blink", False)
    assert customer.told("begin")[-1] == {"method": "blink", "attempt": 1, "attempts": 2, "steps": 1}
    blink(customer)
    assert customer.told("done") == []  # before the acknowledgement
    customer.acknowledge()
    assert customer.protocol.wants_eyes
    blink(customer)
    assert (customer.protocol.outcome, customer.protocol.track_id) == (ChallengeOutcome.BLINK, 1)
    assert not customer.protocol.say_cannot_turn(customer.now_s)  # it is over


@pytest.mark.parametrize(("can_blink", "policy"), [(False, "blink"), (True, "reject")])
def test_where_no_blink_can_be_asked_another_means_of_payment_is(can_blink: bool, policy: str) -> None:
    customer = Customer(can_blink=can_blink, cannot_turn=policy).begin()
    assert customer.protocol.say_cannot_turn(customer.now_s)
    assert (customer.protocol.code, customer.end) == (ChallengeCode.CANNOT_TURN, ("cannot_turn", "cannot_turn"))


def test_who_does_not_blink_either_is_not_told_to_try_again() -> None:
    customer = Customer(can_blink=True).begin()
    customer.protocol.say_cannot_turn(customer.now_s)
    customer.eyes = (0.95, 0.95)
    for _ in range(2):
        customer.acknowledge()
        customer.until(lambda: customer.protocol.over or not customer.protocol.wants_eyes)
    assert (customer.protocol.code, customer.end[0]) == (ChallengeCode.CANNOT_TURN, "step_timeout")


def test_a_blink_is_of_one_track_too() -> None:
    customer = Customer(can_blink=True, attempts=1).begin()
    customer.protocol.say_cannot_turn(customer.now_s)
    customer.acknowledge()
    customer.eyes = (0.95, 0.95)
    for _ in range(18):
        customer.frame()
    customer.track_id = 2
    blink(customer)
    assert customer.end == ("track_changed", "cannot_turn")
