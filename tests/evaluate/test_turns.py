"""The challenge of presentations: what passes, what does not, what is no response, and what a set of them shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from edge_agent.challenge.turn import Side
from edge_agent.cli.calibrate import calibrate
from edge_agent.cli.challenge import turn_rules
from edge_agent.cli.evaluate import evaluate
from edge_agent.config import GateSection, LivenessSection, SessionSection
from edge_agent.errors import InputError
from edge_agent.evaluate import turns
from edge_agent.evaluate.pad import BONA_FIDE, Group, report
from edge_agent.evaluate.presentations import Answer, Presentation, Rules, present
from edge_agent.evaluate.prompts import challenge_of
from edge_agent.evaluate.turn_rates import TurnReport, turn_lines, turn_report
from edge_agent.evaluate.turns import Challenge, EitherOrder, InOrder, Prompting, Timed, TurnAnswer, Turned, TurnRules
from edge_agent.types import Image
from tests.evaluate.contract import documented, keys
from tests.evaluate.painted import painted, put
from tests.evaluate.test_calibrate import Clock, Stage, config  # noqa: F401
from tests.evaluate.turning import LEFT, RIGHT, STILL, TurningEyes, clip, frames, movement, turned

TERMS = TurnRules(0.12, mirrored=False)
RULES = Rules(GateSection(), SessionSection(), TERMS)
L, R = Side.LEFT, Side.RIGHT
BOTH, LEFT_ONLY, STILL_PICTURE = movement(LEFT, RIGHT, STILL), movement(LEFT, STILL), [STILL] * 70
NOBODY = painted(kind="none")


def shown(noses: list[float], challenge: Challenge, *, fps: float = 15.0, live: float = 0.9) -> Turned:
    return shown_pictures([turned(nose, live=live) for nose in noses], challenge, fps=fps)


def shown_pictures(images: list[Image], challenge: Challenge, *, fps: float = 15.0) -> Turned:
    seen = present("x", frames(images, fps=fps), TurningEyes(), RULES, started_at_s=-1.0, challenge=challenge)
    assert seen.turned is not None
    return seen.turned


def in_order(*sides: Side) -> InOrder:
    return InOrder(TERMS.cue(), sides, Prompting.ORDERED)


@pytest.mark.parametrize(
    ("noses", "challenge", "answer", "reason"),
    [
        (BOTH, in_order(L, R), TurnAnswer.PASSED, None),
        (BOTH, in_order(R, L), TurnAnswer.NOT_PASSED, "not_turned"),
        (BOTH, EitherOrder(TERMS), TurnAnswer.PASSED, None),
        (movement(RIGHT, LEFT), EitherOrder(TERMS), TurnAnswer.PASSED, None),
        (movement(LEFT, RIGHT, LEFT), in_order(L, R, L), TurnAnswer.PASSED, None),
        (BOTH, in_order(L, R, L), TurnAnswer.NOT_PASSED, "not_turned"),
        (LEFT_ONLY, EitherOrder(TERMS), TurnAnswer.NOT_PASSED, "not_turned"),
        (STILL_PICTURE, EitherOrder(TERMS), TurnAnswer.NOT_PASSED, "not_turned"),
        (movement(0.09, -0.09), EitherOrder(TERMS), TurnAnswer.NOT_PASSED, "not_turned"),
        # three pictures of one person, shown one after the other: it jumps, and not only once
        (movement(LEFT, STILL, LEFT, STILL, way=1, stay=24), EitherOrder(TERMS), TurnAnswer.NOT_PASSED, "jump"),
        ([0.3] * 60, EitherOrder(TERMS), TurnAnswer.NONE, "no_neutral_pose"),
        ([STILL] * 4, EitherOrder(TERMS), TurnAnswer.NONE, "no_neutral_pose"),
    ],
    ids=["as asked", "the other order", "either", "either too", "three", "two of three", "one side", "a picture",
         "too little", "exchanged", "never straight", "too short"],
)  # fmt: skip
def test_turns_count_when_they_were_made_as_asked(
    noses: list[float], challenge: Challenge, answer: TurnAnswer, reason: str | None
) -> None:
    found = shown(noses, challenge)
    assert (found.answer, found.reason) == (answer, reason)


def test_what_cannot_be_judged_is_no_response_and_never_a_failure() -> None:
    assert shown(BOTH[::3], EitherOrder(TERMS), fps=5.0).answer is TurnAnswer.NONE
    assert shown_pictures([NOBODY] * 60, EitherOrder(TERMS)).reason == "no_face"
    both = [turned(nose) for nose in BOTH]
    assert shown_pictures(both, EitherOrder(TERMS)).answer is TurnAnswer.PASSED
    lost = [*both[:32], *[NOBODY] * 6, *both[32:]]
    assert shown_pictures(lost, in_order(L, R)).reason == "face_lost"
    another = [*both[:44], *[turned(nose, person=2) for nose in BOTH[44:]]]
    assert shown_pictures(another, in_order(L, R)).reason == "track_changed"


def test_a_presentation_goes_on_until_the_challenge_is_over_and_its_answer_is_the_models_own() -> None:
    for live, answer in ((0.9, Answer.LIVE), (0.1, Answer.ATTACK)):
        images = [turned(nose, live=live) for nose in movement(LEFT, RIGHT, begin=60, stay=30)]
        found = present("x", frames(images), TurningEyes(), RULES, started_at_s=-1.0, challenge=in_order(L, R))
        assert found.answer is answer
        assert found.turned is not None
        assert found.turned.answer is TurnAnswer.PASSED, "a replayed film of somebody who turns passes the turn alone"
        assert found.accepted is (answer is Answer.LIVE), "and the decision still rests on the models"


AT_S = (2.0, 2.0 + 16 / 15)
"""When ``movement(LEFT, RIGHT, begin=30)`` begins to turn to either side."""


@pytest.mark.parametrize(
    ("prompts", "answer", "reason"),
    [
        ([(AT_S[0], L), (AT_S[1], R)], TurnAnswer.PASSED, None),
        ([(AT_S[0], R), (AT_S[1], L)], TurnAnswer.NOT_PASSED, "not_turned"),
        ([(AT_S[1], L), (4.0, R)], TurnAnswer.NOT_PASSED, "not_turned"),
        ([(0.0, L), (0.5, R)], TurnAnswer.NONE, "no_neutral_pose"),
        ([(AT_S[0], L), (90.0, R)], TurnAnswer.NOT_PASSED, "not_turned"),
    ],
    ids=["as asked", "the other order", "before it was asked", "before the head was straight", "the film ends before"],
)
def test_a_turn_counts_from_its_prompt_until_the_next(
    prompts: list[tuple[float, Side]], answer: TurnAnswer, reason: str | None
) -> None:
    found = shown(movement(LEFT, RIGHT, begin=30), Timed(TERMS.cue(), prompts))
    assert (found.answer, found.reason, found.asked) == (answer, reason, tuple(side for _, side in prompts))


def test_a_timed_turn_that_comes_later_than_five_seconds_is_too_late() -> None:
    noses = movement(LEFT, begin=30 + 75)
    assert shown(noses, Timed(TERMS.cue(), [(2.0, L), (30.0, R)])).reason == "too_late"
    assert shown([0.3] * 40, Timed(TERMS.cue(), [(1.0, L), (2.0, R)])).answer is TurnAnswer.NONE


class Person:
    """Follows what is told, frame by frame; ``eager`` turns all the time, ``slow`` waits for ever."""

    def __init__(self, *, eager: bool = False, slow: bool = False) -> None:
        self.told: list[str] = []
        self.noses = [STILL]
        self._eager, self._slow = eager, slow

    def tell(self, text: str) -> None:
        self.told.append(text)

    def move(self) -> float:
        wants = {"turn your head a little to your left": LEFT, "turn your head a little to your right": RIGHT}
        target = STILL if self._slow else wants.get(self.told[-1], STILL)
        if self._eager and target == STILL:
            target = LEFT if len(self.noses) % 40 < 20 else STILL
        now = self.noses[-1]
        self.noses.append(now + max(-0.03, min(0.03, target - now)))
        return self.noses[-1]


def asked_live(person: Person, *, seed: int, seconds: float = 40.0) -> Turned:
    challenge = turns.live(TERMS, person.tell, Random(seed))
    images = (turned(person.move()) for _ in range(round(seconds * 15)))
    stream = (frame for i, image in enumerate(images) for frame in [replace(frames([image])[0], captured_at_s=i / 15)])
    found = present("x", stream, TurningEyes(), RULES, started_at_s=-1.0, challenge=challenge)
    assert found.turned is not None
    return found.turned


def test_who_is_prompted_live_is_asked_in_random_order_after_a_random_time_of_holding_still() -> None:
    begun: set[int] = set()
    orders: set[tuple[Side, ...]] = set()
    for seed in range(5):
        person = Person()
        found = asked_live(person, seed=seed)
        assert (found.answer, found.prompting) == (TurnAnswer.PASSED, Prompting.LIVE)
        assert (person.told[0], person.told[-1], len(person.told)) == ("look at the screen", "done", 4)
        assert [f"turn your head a little to your {side}" for side in found.asked] == person.told[1:3]
        begun.add(next(i for i, nose in enumerate(person.noses) if nose != STILL))
        orders.add(found.asked)
    assert len(orders) == 2
    assert len(begun) > 2
    assert all(0.6 * 15 <= frame <= (1.6 + 1.2) * 15 for frame in begun), "plus the frames that a neutral pose takes"


def test_who_moves_early_waits_anew_and_who_does_not_turn_has_two_attempts() -> None:
    eager = Person(eager=True)
    asked_live(eager, seed=1, seconds=10)
    assert eager.told == ["look at the screen"], "never still for long enough"
    slow = Person(slow=True)
    found = asked_live(slow, seed=1)
    assert (found.answer, found.reason) == (TurnAnswer.NOT_PASSED, "too_late")
    assert [text.partition(" your")[0] for text in slow.told] == ["look at the screen", "turn"] * 2 + ["not passed"]


@pytest.mark.parametrize(
    ("name", "beside", "prompting", "asked"),
    [
        ("anna.avi", None, Prompting.EITHER, ()),
        ("anna-left-right.avi", None, Prompting.ORDERED, (L, R)),
        ("07.Right-Left.avi", None, Prompting.ORDERED, (R, L)),
        ("left-right-left.avi", None, Prompting.ORDERED, (L, R, L)),
        ("left.avi", None, Prompting.EITHER, ()),
        ("upright-left-right-handed.avi", None, Prompting.EITHER, ()),
        ("anna.avi", "prompts: [right, left]", Prompting.ORDERED, (R, L)),
        ("anna-left-right.avi", "prompts: [right, left]", Prompting.ORDERED, (R, L)),
        ("a.avi", "prompts: [{at_s: 1, turn: left}, {at_s: 4.5, turn: right}]", Prompting.TIMED, (L, R)),
    ],
)
def test_what_was_asked_is_told_by_a_file_beside_the_clip_or_by_its_name(
    name: str, beside: str | None, prompting: Prompting, asked: tuple[Side, ...], tmp_path: Path
) -> None:
    if beside is not None:
        (tmp_path / f"{Path(name).stem}.prompts.yaml").write_text(beside)
    found = challenge_of(tmp_path / name, TERMS).result()
    assert (found.prompting, found.asked) == (prompting, asked)


@pytest.mark.parametrize(
    "text",
    ["", "prompts:", "prompts: []", "prompts: [left]", "prompts: [left, left]", "prompts: [up, down]", "[left, right]",
     "prompts: [{at_s: 2, turn: left}, {at_s: 1, turn: right}]", "prompts: [{at_s: .nan, turn: left}, {at_s: 1, turn: right}]",
     "prompts: [{turn: left}, {turn: right}]", "prompts: [left, {at_s: 1, turn: right}]", "prompts: ["],
)  # fmt: skip
def test_prompts_that_cannot_be_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.prompts.yaml").write_text(text)
    with pytest.raises(InputError, match="cannot use") as refused:
        challenge_of(tmp_path / "a.avi", TERMS)
    assert (refused.value.code, "at_s" in str(refused.value.hint)) == ("prompts_invalid", True)


# -- a set of presentations


def presented(answer: TurnAnswer, live: Answer = Answer.LIVE, prompting: Prompting = Prompting.LIVE) -> Presentation:
    return Presentation("x", live, live is Answer.LIVE, (), (), 1, turned=Turned(answer, prompting, (L, R), None))


P, N, X = TurnAnswer.PASSED, TurnAnswer.NOT_PASSED, TurnAnswer.NONE


def set_of(**groups: list[Presentation]) -> TurnReport:
    found = turn_report(report(Group(name, tuple(of_it)) for name, of_it in groups.items()), RULES)
    assert found is not None
    return found


def test_rates_are_of_the_answered_species_are_never_pooled_and_the_worst_comes_first() -> None:
    found = set_of(
        bona_fide=[presented(P)] * 18 + [presented(N)] * 2 + [presented(X)],
        print=[presented(N)] * 20,
        bent=[presented(P), presented(P, Answer.ATTACK), *[presented(N)] * 18],
        doll=[presented(X)] * 5,
    )
    assert [group.name for group in found.attacks] == ["bent", "print", "doll"]
    assert found.worst is not None
    assert (found.worst.name, found.worst.passed.errors, found.worst.passed.trials) == ("bent", 2, 20)
    assert found.worst.passed.high == pytest.approx(0.317, abs=1e-3)
    assert (found.worst.passed_and_live.errors, found.worst.passed_and_live.trials) == (1, 20)
    assert (found.bona_fide.not_passed.errors, found.bona_fide.not_passed.trials) == (2, 20)
    assert (found.bona_fide.no_response.errors, found.bona_fide.no_response.trials) == (1, 21)
    assert found.short_of == ("doll",)
    text = "\n".join(turn_lines(found))
    assert text.startswith("head turn, worst species: bent; 2 of 20 means that it passes in <= 31.7 %")
    assert "0 of 20: <= 16.8 %" in text
    assert "NOT ENOUGH to make the challenge mandatory" in text
    assert "here doll 0" in text


def test_only_prompted_and_answered_presentations_are_evidence() -> None:
    enough = {"bona_fide": [presented(P)] * 20, "print": [presented(N)] * 20}
    assert set_of(**enough).short_of == ()
    assert "20 prompted presentations or more of every kind" in "\n".join(turn_lines(set_of(**enough)))
    unprompted = [presented(N, prompting=Prompting.EITHER)] * 30
    found = set_of(**(enough | {"print": unprompted}))
    assert found.short_of == ("print",)
    assert "of 30 it is not known what was asked" in "\n".join(turn_lines(found))
    assert set_of(**(enough | {"print": [presented(X)] * 30})).short_of == ("print",)
    assert "here no attack" in "\n".join(turn_lines(set_of(bona_fide=enough["bona_fide"])))
    no_clip = Group(BONA_FIDE, (replace(presented(P), turned=None),))
    assert turn_report(report([no_clip]), replace(RULES, turns=None)) is None
    nothing = turn_report(report([no_clip]), RULES)
    assert nothing is not None
    assert nothing.bona_fide.passed_and_live.trials == 0
    assert "head turn: not measured" in "\n".join(turn_lines(nothing))


# -- the commands


@pytest.fixture
def material(tmp_path: Path) -> Path:
    folder = tmp_path / "pad"
    for i in range(2):
        clip(folder / f"bona_fide/{i}-left-right.avi", BOTH)
        clip(folder / f"print/{i}-right-left.avi", STILL_PICTURE, live=0.1)
    clip(folder / "bona_fide/2.avi", movement(LEFT, RIGHT, begin=30))
    (folder / "bona_fide/2.prompts.yaml").write_text(
        f"prompts: [{{at_s: {AT_S[0]}, turn: left}}, {{at_s: {AT_S[1]:.3f}, turn: right}}]"
    )
    put(folder / "bona_fide/still.png", turned(STILL))
    clip(folder / "replay/film.avi", BOTH, live=0.9)
    clip(folder / "replay/bad.avi", BOTH)
    (folder / "replay/bad.prompts.yaml").write_text("prompts: [up]")
    return folder


def test_evaluate_pad_judges_the_challenge_and_holds_the_documented_keys(
    material: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edge_agent.cli.evaluate.open_models", lambda *_, **__: TurningEyes())
    command = ["pad", str(material), "--plot", str(tmp_path / "p.png")]
    done = CliRunner().invoke(evaluate, [*command, "--challenge", "head_turn", "--json"])
    assert done.exit_code == 0, done.output
    body: dict[str, Any] = json.loads(done.stdout)
    challenge = body["challenge"]
    assert {key.removesuffix("[]") for key in keys({"challenge": challenge})} == {
        key.removesuffix("[]") for key in documented_keys()
    }
    assert (challenge["worst"], challenge["short_of"]) == ("replay", ["bona_fide", "replay", "print"])
    passed = {p["name"]: (p["answer"], p["prompting"]) for p in challenge["bona_fide"]["presentations"]}
    assert passed == {
        "0-left-right.avi": ("passed", "ordered"),
        "1-left-right.avi": ("passed", "ordered"),
        "2.avi": ("passed", "timed"),
    }
    replay, print_ = challenge["attacks"]
    assert (replay["passed"]["errors"], replay["passed"]["trials"]) == (1, 1)
    assert (print_["passed"]["errors"], print_["passed"]["trials"]) == (0, 2)
    assert print_["passed_and_live"]["errors"] == 0
    assert [item["code"] for item in body["attacks"][0]["unusable"]] == ["prompts_invalid"]
    without = CliRunner().invoke(evaluate, [*command, "--json"])
    assert "challenge" not in json.loads(without.stdout)
    text = CliRunner().invoke(evaluate, [*command, "--challenge", "head_turn"]).stdout
    assert "head turn, worst species: replay; 1 of 1 means" in text


def documented_keys() -> set[str]:
    """With the keys of an attack, which are those of the bona fide but for one."""
    keys = documented("The challenge")
    species = {
        key.replace("bona_fide", "attacks[]").replace("not_passed", "passed") for key in keys if "bona_fide" in key
    }
    return (keys | species) - {"challenge.attacks[]"}


def test_calibrate_prompts_whoever_stands_there(
    config: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, person = Stage(Clock()), Person()
    read: Callable[[float], Any] = stage.read

    def moving(timeout_s: float) -> Any:
        stage.on = turned(person.move())
        return read(timeout_s)

    def tell(text: str) -> None:
        person.tell(text.removeprefix("  >> "))

    monkeypatch.setattr(stage, "read", moving)
    monkeypatch.setattr("edge_agent.cli.calibrate._tell", tell)
    monkeypatch.setattr("edge_agent.camera.open_camera", lambda _settings: stage)
    monkeypatch.setattr("edge_agent.cli.calibrate.open_models", lambda *_: TurningEyes())
    monkeypatch.setattr("edge_agent.cli.calibrate.monotonic", stage.clock)
    options = ["--config", str(config), "--bona-fide", "1", "--per-attack", "1", "--attack", "screen", "--json"]
    more = ["--challenge", "head_turn", "--out", str(config.parent / "r.json")]
    done = CliRunner().invoke(calibrate, [*options, *more], input="\n\n")
    assert done.exit_code == 0, (done.output, done.exception)
    challenge = json.loads(done.stdout)["challenge"]
    assert [p["answer"] for group in ("bona_fide", "attacks") for p in _presentations(challenge[group])] == [
        "passed"
    ] * 2
    assert challenge["attacks"][0]["presentations"][0]["prompting"] == "live"
    assert "head turn, worst species: screen; 1 of 1" in (config.parent / "r.txt").read_text()


def _presentations(group: Any) -> list[dict[str, Any]]:
    return [p for one in (group if isinstance(group, list) else [group]) for p in one["presentations"]]


@pytest.mark.parametrize(
    ("given", "used"), [((None, None), (0.14, True)), ((0.11, None), (0.11, True)), ((None, False), (0.14, False))]
)
def test_what_no_option_says_is_as_the_terminal_is_configured(given: Any, used: Any) -> None:
    configured = LivenessSection(turn_threshold=0.14, mirrored=True)
    rules = turn_rules("head_turn", given[0], given[1], configured)
    assert rules is not None
    assert (rules.threshold, rules.mirrored) == used
    assert turn_rules(None, given[0], given[1], configured) is None
