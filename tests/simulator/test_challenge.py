"""The challenge of the simulator: what a POS developer sees who answers, and who does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient
from edge_agent.simulator.customer import STRAIGHT, Customer
from edge_agent.types import State


@pytest.fixture
def client(socket: Path) -> Iterator[AgentClient]:
    with AgentClient(socket) as c:
        yield c


def played(client: AgentClient, outcome: str, *, cannot_turn: bool = False) -> tuple[list[str], VerificationBody]:
    """The prompts, all acknowledged, and the record at the end."""
    started, prompts = client.verify(outcome), []
    if cannot_turn:
        client.cannot_turn(started.id)
    for event in client.events(started.id, after=FROM_THE_START):
        if event.kind == "challenge.prompt":
            client.acknowledge(started.id, event.data["step"])
            prompts.append(str(event.data["prompt"]))
    return prompts, client.get(started.id)


@pytest.mark.parametrize(
    ("outcome", "cannot_turn", "state", "reasons", "passed"),
    [
        ("challenge:passed", False, State.VERIFIED, [], "head_turn"),
        ("challenge:passed", True, State.VERIFIED, [], "blink"),
        ("challenge:unavailable", False, State.REJECTED, ["challenge_unavailable"], "unavailable"),
    ],
)
def test_a_till_that_answers_sees_the_chosen_end(
    client: AgentClient, outcome: str, cannot_turn: bool, state: State, reasons: list[str], passed: str
) -> None:
    prompts, record = played(client, outcome, cannot_turn=cannot_turn)
    assert (record.state, record.reasons) == (state, reasons)
    assert record.challenge is not None
    assert record.challenge.outcome == passed
    if passed == "head_turn":
        assert prompts[0] == "look"
        assert sorted(prompts[1:]) == ["turn_left", "turn_right"]


@pytest.mark.parametrize("prompt", ["turn_left", "turn_right", "blink"])
def test_who_shall_fail_does_nothing_of_what_is_asked(prompt: str) -> None:
    seen = {}
    for willing in (True, False):
        customer = Customer(willing=willing)
        customer.ask(prompt, 100.0)
        seen[willing] = [customer.next(100.0 + frame / 15) for frame in range(45)]
    assert {posture.turn for posture in seen[False]} == {0.0}
    assert min(posture.eyes_open for posture in seen[False]) > 0.9
    turns = {round(posture.turn, 3) for posture in seen[True]}
    assert {"turn_left": 0.2, "turn_right": -0.2, "blink": 0.0}[prompt] in turns
    assert min(posture.eyes_open for posture in seen[True]) == (0.01 if prompt == "blink" else 0.95)
    assert seen[True][-1] == STRAIGHT


def test_a_till_that_does_not_answer_is_told_so_and_other_outcomes_ask_for_nothing(client: AgentClient) -> None:
    record = client.verify("challenge:passed", wait_s=30)
    assert (record.state, record.reasons) == (State.REJECTED, ["challenge_unavailable"])
    record = client.verify("verified", wait_s=30)
    assert (record.state, record.challenge) == (State.VERIFIED, None)
