"""A challenge in a whole terminal: the prompts over the real socket, a made-up head that turns before the camera."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_agent.api.wire import VerificationBody
from edge_agent.challenge.turn import TurnCue
from edge_agent.cli.verify import verify
from edge_agent.client import FROM_THE_START, AgentClient, ApiError, ServerEvent
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import SOURCE, raw
from tests.terminal import Terminal
from tests.turning import FAR, TurningEyes

TERMS = {
    "challenge": "head_turn",
    "attempts": 1,
    "acknowledge_timeout_s": 10.0,
    "total_timeout_s": 60.0,
    "step_timeout_s": 20.0,
}
SIDES = {"turn_left": FAR, "turn_right": -FAR}


class TurningTerminal(Terminal):
    """``head`` is before the camera."""

    def __init__(self, folder: Path, sandbox: SandboxServer, **liveness: Any) -> None:
        session = {"search_timeout_s": 3.0, "capture_window_s": 0.05, "hint_hold_s": 0.05, "verdict_timeout_s": 10.0,
                   "max_failures": 1}  # fmt: skip
        super().__init__(folder, sandbox.base_url, sandbox.credentials, liveness={**TERMS, **liveness}, session=session)
        self.head = TurningEyes(sees_eyes=True)
        self.eyes = self.head


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TurningTerminal]:
    with SandboxServer() as sandbox:
        sandbox.enrol("alice", SOURCE)
        with TurningTerminal(tmp_path_factory.mktemp("turning"), sandbox) as running:
            yield running


@pytest.fixture
def head(terminal: TurningTerminal) -> TurningEyes:
    """Looking straight, again."""
    head = terminal.head
    head.to, head.person, head.flat, head.open_eyes = 0.0, 1, False, 0.95
    return head


@pytest.fixture
def client(terminal: TurningTerminal) -> Iterator[AgentClient]:
    with terminal.client() as c:
        yield c
        _cancel_all(terminal)


def follow(client: AgentClient, started: VerificationBody) -> Iterator[ServerEvent]:
    """The events of one that is searching; what is asked is acknowledged when the next one is read."""
    for event in client.events(started.id, after=FROM_THE_START):
        yield event
        if event.kind == "challenge.prompt":
            with contextlib.suppress(ApiError):  # it may be over by now
                client.acknowledge(started.id, event.data["step"])


def obey(client: AgentClient, head: TurningEyes, started: VerificationBody) -> list[ServerEvent]:
    """Do what is asked, to the end."""
    events = []
    for event in follow(client, started):
        events.append(event)
        if event.kind == "challenge.prompt":
            head.to = SIDES.get(event.data["prompt"], 0.0)
        if event.kind == "challenge.done":
            head.to = 0.0
    return events


def outcome_of(record: VerificationBody) -> str | None:
    return record.challenge.outcome if record.challenge else None


def audited(terminal: Terminal, record: VerificationBody, event: str) -> dict[str, Any]:
    with terminal.client() as client:
        entries = client.outbox_show(record.id).history
    (found,) = [entry for entry in entries if entry.event == event]
    return dict(found.detail or {})


def test_who_turns_as_asked_is_verified_and_everybody_is_told_why(
    terminal: TurningTerminal, client: AgentClient, head: TurningEyes
) -> None:
    events = obey(client, head, client.verify("alice", reference="order 7"))
    kinds = [event.kind for event in events if event.kind not in {"hint", "challenge.progress"}]
    assert kinds[:-3] == ["state", "challenge.begin", *["challenge.prompt"] * 3, "challenge.done"]
    assert "challenge.progress" in {event.kind for event in events}
    record = client.get(str(events[0].data["verification_id"]))
    assert (record.state, record.approved, outcome_of(record)) == (State.VERIFIED, True, "head_turn")
    assert record.reference == "order 7"
    assert audited(terminal, record, "capture")["challenge"] == "head_turn"
    assert not {"turn_left", "turn_right", "look_straight"} & {e.data["code"] for e in events if e.kind == "hint"}


def test_a_flat_picture_that_follows_is_rejected_and_nobody_is_locked_out(
    terminal: TurningTerminal, client: AgentClient, head: TurningEyes
) -> None:
    for _ in range(2):  # one failure would lock out here
        head.flat, head.person = True, 1
        started = client.verify("alice")
        for event in follow(client, started):
            if event.kind == "challenge.prompt" and event.data["prompt"] != "look":
                head.person = 2  # the next picture
        record = client.get(started.id)
        assert (record.state, record.reasons, outcome_of(record)) == (State.REJECTED, ["challenge_failed"], "failed")
        assert audited(terminal, record, "reject") == {"reasons": ["challenge_failed"], "challenge": "track_changed"}


def test_a_pos_that_missed_everything_sees_the_prompt_and_can_go_on(
    client: AgentClient, head: TurningEyes, terminal: TurningTerminal
) -> None:
    started = client.verify("alice")
    assert started.challenge is not None
    assert (started.challenge.method, started.challenge.outcome) == ("head_turn", None)
    first = next(event for event in client.events(started.id) if event.kind == "challenge.prompt")
    standing = client.get(started.id).challenge
    assert standing is not None
    assert (standing.step, standing.prompt, standing.shown, standing.attempt) == (1, "look", False, 1)
    with terminal.client() as another:  # its stream begins with the state and the prompt, whatever it missed
        kinds = [event.kind for event in itertools.islice(another.events(started.id), 3)]
    assert kinds[0] == "state"
    assert set(kinds) == {"state", "hint", "challenge.prompt"}
    codes = {}
    for step in (2, 1, 1):
        try:
            codes[step] = client.acknowledge(started.id, step).challenge.shown  # type: ignore[union-attr]
        except ApiError as exc:
            codes[step] = exc.code
    assert codes == {2: "challenge_wrong_step", 1: True}
    resumed = client.events(started.id, after=first.id)
    assert next(e for e in resumed if e.data.get("prompt") != "look" and e.kind == "challenge.prompt").data["step"] == 2
    assert client.cancel(started.id).state is State.CANCELLED
    with pytest.raises(ApiError) as caught:
        client.acknowledge(started.id, 2)
    assert caught.value.code == "challenge_not_running"


def test_who_cannot_turn_may_blink(terminal: TurningTerminal, client: AgentClient, head: TurningEyes) -> None:
    started = client.verify("alice")
    client.cannot_turn(started.id)
    for event in follow(client, started):
        if event.kind == "challenge.progress" and event.data["progress"] == 1.0:
            head.open_eyes = 0.01
            threading_open_again(terminal, head)
    record = client.get(started.id)
    assert (record.state, outcome_of(record)) == (State.VERIFIED, "blink")
    assert audited(terminal, record, "capture")["challenge"] == "blink"


def threading_open_again(terminal: TurningTerminal, head: TurningEyes) -> None:
    """A blink later, by the terminal's own loop."""
    terminal._loop.call_soon_threadsafe(terminal._loop.call_later, 0.15, setattr, head, "open_eyes", 0.95)


@pytest.mark.parametrize("tty", [True, False])
def test_the_command_line_shows_prompts_and_acknowledges_them_where_somebody_reads(
    terminal: TurningTerminal, head: TurningEyes, monkeypatch: pytest.MonkeyPatch, tty: bool
) -> None:
    acknowledged: list[int] = []
    acknowledge = AgentClient.acknowledge

    def shown(client: AgentClient, verification_id: str, step: int) -> VerificationBody:
        acknowledged.append(step)
        record = acknowledge(client, verification_id, step)
        prompt = record.challenge.prompt if record.challenge else None
        head.to = SIDES.get(prompt or "", 0.0)
        if step == 3:  # and back, for the picture
            threading.Timer(1.5, setattr, [head, "to", 0.0]).start()
        return record

    monkeypatch.setattr(AgentClient, "acknowledge", shown)
    monkeypatch.setattr("edge_agent.cli.verify._somebody_reads", lambda: tty)
    command = ["alice", "--json", "--socket", str(terminal.socket), *([] if tty else ["--search-timeout", "3"])]
    if not tty:
        threading.Timer(1.5, _cancel_all, [terminal]).start()
    done = CliRunner().invoke(verify, command)
    assert "Please look at the screen." in done.stderr
    if tty:
        assert acknowledged == [1, 2, 3]
        assert (done.exit_code, json.loads(done.stdout)["challenge"]["outcome"]) == (0, "head_turn")
        assert {"Please turn your head a little to your left.", "Please turn your head a little to your right."} <= {
            line.strip("> ") for line in done.stderr.splitlines()
        }
    else:
        assert (acknowledged, done.exit_code) == ([], 1)


def _cancel_all(terminal: TurningTerminal) -> None:
    with terminal.client() as client:
        for left in client._call("GET", "/v1/verifications?state=searching").json()["items"]:
            client.cancel(left["id"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "invalid_request"),
        (b'{"step": 1}', "invalid_request"),
        (b'{"shown": true}', "invalid_request"),
        (b'{"step": 1, "shown": false}', "invalid_request"),
        (b'{"step": 1, "shown": true, "cannot_turn": true}', "invalid_request"),
        (b'{"step": 0, "shown": true}', "invalid_request"),
        (b'{"step": 1.5, "shown": true}', "invalid_request"),
        (b'{"step": 1, "shown": true}', "not_found"),
        (b'{"step": 1.0, "shown": true, "cannot_turn": null}', "not_found"),
        (b'{"cannot_turn": true}', "not_found"),
    ],
)
def test_an_answer_is_one_of_the_two_and_of_a_verification(terminal: Terminal, body: bytes, code: str) -> None:
    with raw(terminal) as http:
        answer = http.post("/v1/verifications/none/challenge", content=body)
    assert answer.json()["code"] == code


def test_an_error_while_it_is_judged_never_qualifies(
    client: AgentClient, head: TurningEyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(TurnCue, "add", fails)
    record = client.verify("alice", wait_s=20)
    assert (record.state, record.error.code if record.error else None) == (State.FAILED, "internal_error")


@pytest.mark.parametrize(
    ("terms", "says", "state", "reasons", "outcome"),
    [
        ({}, False, State.REJECTED, ["challenge_unavailable"], "unavailable"),
        ({"unavailable": "accept"}, False, State.VERIFIED, [], "unavailable"),
        ({"cannot_turn": "reject"}, True, State.REJECTED, ["cannot_turn"], "failed"),
        ({"challenge": "off"}, False, State.VERIFIED, [], None),
    ],
)
def test_the_configuration_decides_what_happens_without(
    tmp_path: Path, terms: dict[str, Any], says: bool, state: State, reasons: list[str], outcome: str | None
) -> None:
    with SandboxServer() as sandbox:
        sandbox.enrol("alice", SOURCE)
        with (
            TurningTerminal(tmp_path, sandbox, acknowledge_timeout_s=0.5, **terms) as running,
            running.client() as client,
        ):
            started = client.verify("alice")
            if says:
                client.cannot_turn(started.id)
            record = client.get(started.id, wait_s=30)
            assert (record.state, record.reasons, outcome_of(record)) == (state, reasons, outcome)
            assert record.approved is (state is State.VERIFIED)
            if terms.get("challenge") == "off":
                with pytest.raises(ApiError) as caught:
                    client.cannot_turn(started.id)
                assert caught.value.code == "challenge_not_running"
