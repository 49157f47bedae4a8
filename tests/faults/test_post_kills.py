"""SIGKILL between the POST and its answer, at every stage; then the same request with the same key."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.client import AgentClient
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import until_final
from tests.faults.terminal_child import STAGES
from tests.faults.zygote import Life, Zygote, zygote

UNKNOWN = frozenset({"asked", "storing"})
"""Nothing was committed: the repeated request is the first."""
CUT_SHORT = frozenset({"created", "searching", "qualified", "storing the capture"})
"""There was no capture: nobody is filmed without a fresh request."""


@pytest.fixture(scope="module")
def terminals() -> Iterator[Zygote]:
    with zygote("tests.faults.terminal_child") as ready:
        yield ready


class Place:
    """One terminal's folder and its service, over many lives."""

    def __init__(self, folder: Path, server: SandboxServer, terminals: Zygote) -> None:
        self.server, self._folder, self._terminals = server, folder, terminals
        self.socket = folder / "api.sock"

    def start(self, stage: str) -> Life:
        """A life that ends at ``stage`` of the verification of ``user_of(stage)``."""
        credentials = self.server.credentials
        arguments = [str(self._folder), self.server.base_url, credentials.api_key, credentials.merchant_id]
        life = self._terminals.start([*arguments, stage, user_of(stage)])
        assert life.until(lambda line: line["event"] == "serving"), "it died at its start"
        return life

    def post(self, stage: str) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://agent", timeout=60) as http:
            headers = {"Idempotency-Key": f"key-{STAGES.index(stage)}"}
            body = {"user_id": user_of(stage), "amount": "12.50"}
            return http.post("/v1/verifications", params={"wait": "50"}, headers=headers, json=body)


def user_of(stage: str) -> str:
    return "customer-" + stage.replace(" ", "-")


def created_in(life: Life) -> list[str]:
    return [line["id"] for line in life.lines if line["event"] == "created"]


def die_at(place: Place, life: Life, stage: str) -> list[str]:
    """Ask, lose the answer to a kill; the ids that were committed."""
    with pytest.raises(httpx.TransportError):
        place.post(stage)
    assert life.to_the_end() == -signal.SIGKILL, f"it did not die at {stage!r}"
    return created_in(life)


def ask_again(place: Place, stage: str, committed: list[str]) -> None:
    """In the next life, the first request."""
    answer = place.post(stage)
    record = VerificationBody.model_validate_json(answer.content)
    known = stage not in UNKNOWN
    assert (answer.status_code, record.replayed) == ((200, True) if known else (201, False)), stage
    assert [record.id] == committed or not (known or committed), stage
    with AgentClient(place.socket) as client:
        record = until_final(client, record)
        events = Counter(entry.event for entry in client.outbox_show(record.id).history)
        filmed = client.status()["frames"] != {}
    code = record.error.code if record.error else None
    expected = (State.FAILED, "interrupted") if stage in CUT_SHORT else (State.VERIFIED, None)
    assert (record.state, code) == expected, stage
    assert filmed is not known, stage
    captured = stage not in CUT_SHORT
    assert (events["create"], events["capture"], events["verdict"]) == (1, captured, captured), stage


def test_the_same_key_gives_the_same_verification_whenever_the_answer_was_lost(
    tmp_path: Path, terminals: Zygote
) -> None:
    """Each life first answers for the one that was killed before it, then is killed itself, one stage later."""
    with SandboxServer() as server:
        place = Place(tmp_path, server, terminals)
        for stage in STAGES:
            server.enrol(user_of(stage), b"source")
        committed: list[str] = []
        for before, stage in zip((None, *STAGES), (*STAGES, "never"), strict=True):
            life = place.start(stage)
            if before is not None:
                ask_again(place, before, committed)
            if stage != "never":
                committed = die_at(place, life, stage)
        with AgentClient(place.socket) as client:
            assert client.audit_verify().ok
            assert client.outbox_verify().ok
        life.send(signal.SIGTERM)
        assert life.to_the_end() == 0
        pictures: dict[str, set[str]] = {}
        for judgement in server.judged:
            pictures.setdefault(judgement.user_id, set()).add(judgement.target_sha256)
    assert all(len(shown) == 1 for shown in pictures.values())
    assert pictures.keys() == {user_of(stage) for stage in STAGES if stage not in CUT_SHORT}
