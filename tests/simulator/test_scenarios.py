"""The outcomes against one running simulator: every answer is the real API's."""

from __future__ import annotations

import socket as _socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient, ApiError
from edge_agent.simulator import run
from edge_agent.simulator.terminal import MARK
from edge_agent.types import FINAL_STATES, WORKING_STATES, State
from tests.simulator.conftest import simulator

PICTURE = cv2.imencode(".png", np.full((480, 640, 3), 90, np.uint8))[1].tobytes()


@pytest.fixture
def client(socket: Path) -> Iterator[AgentClient]:
    with AgentClient(socket) as c:
        yield c


@pytest.fixture
def http(socket: Path) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(socket), verify=False)
    with httpx.Client(transport=transport, base_url="http://simulator", timeout=30) as c:
        yield c


def post(http: httpx.Client, user: str, *, asked: str | None = None, key: str | None = None, wait: int = 30) -> Any:
    headers = {"Idempotency-Key": key or uuid.uuid4().hex, **({"X-Simulate": asked} if asked else {})}
    return http.post(f"/v1/verifications?wait={wait}", json={"user_id": user}, headers=headers)


def captured(client: AgentClient, user: str) -> VerificationBody:
    """Started and captured; the verdict is still to come."""
    record = client.verify(user)
    for event in client.events(record.id, after=FROM_THE_START):
        if event.kind == "state" and event.data["state"] != "searching":
            break
    return record


def ended(client: AgentClient, id_: str) -> VerificationBody:
    deadline = time.monotonic() + 120
    while (record := client.get(id_)).state not in FINAL_STATES:
        assert time.monotonic() < deadline, record
        time.sleep(0.1)
    return record


def test_every_kind_of_outcome_ends_as_its_name_says(client: AgentClient) -> None:
    waiting = {user: captured(client, user).id for user in ("slow", "pending:not_verified", "pending")}
    rows = {
        # user id: state, approved, reasons, error
        "verified": ("verified", True, [], None),
        "verified@second-customer": ("verified", True, [], None),
        "anybody": ("verified", True, [], None),
        "not_verified": ("not_verified", False, [], None),
        "rejected:too_dark": ("rejected", False, ["too_dark"], None),
        "rejected:spoof_suspected": ("rejected", False, ["spoof_suspected"], None),
        "failed:camera_unavailable": ("failed", False, [], "camera_unavailable"),
        "failed:frame_loop": ("failed", False, [], "frame_loop"),
        "failed:inference_failed": ("failed", False, [], "inference_failed"),
        "failed:unknown_user": ("failed", False, [], "unknown_user"),
    }
    found = {}
    for user in rows:
        limit_s = (
            1
            if user.startswith("rejected")
            else 3
            if user in {"failed:camera_unavailable", "failed:frame_loop"}
            else None
        )
        record = client.verify(user, wait_s=30, search_timeout_s=limit_s)
        error = record.error.code if record.error else None
        found[user] = (record.state.value, record.approved, record.reasons, error)
    assert found == rows
    late = [ended(client, waiting[user]) for user in ("slow", "pending:not_verified")]
    assert [(r.state.value, r.late, r.approved) for r in late] == [
        ("verified", True, False),
        ("not_verified", True, False),
    ]
    assert late[1].attempts > 1
    assert client.get(waiting["pending"]).state is State.PENDING


def provisional(http: httpx.Client, user: str, **asked: Any) -> Any:
    body = {"user_id": user, "consent": {"reference": "c-1", "scopes": ["match", "template"]}, **asked}
    return http.post("/v1/verifications?wait=30", json=body, headers={"Idempotency-Key": uuid.uuid4().hex}).json()


def test_a_user_whom_cypherface_knows_is_answered_provisionally_and_judged_when_the_line_is_back(
    tmp_path: Path,
) -> None:
    with simulator(tmp_path, speed=20) as path, AgentClient(path) as client:
        transport = httpx.HTTPTransport(uds=str(path), verify=False)
        with httpx.Client(transport=transport, base_url="http://simulator", timeout=60) as http:
            yes = provisional(http, "provisional@gina", amount="49.99", currency="EUR")
            assert (yes["state"], yes["approved"], yes["final"]) == ("provisionally_verified", False, False)
            rows = {
                "provisional_amount_over_limit": provisional(http, "provisional@ida", amount="50.01", currency="EUR"),
                "provisional_amount_unknown": provisional(http, "provisional@jan", amount="5.00", currency="SEK"),
            }
            assert {why: (r["state"], r["reasons"]) for why, r in rows.items()} == {
                why: ("pending", [why]) for why in rows
            }
            doubtful = provisional(http, "provisional:not_verified@henk")
            assert doubtful["state"] == "provisionally_verified"
            no = ended(client, doubtful["id"])
            assert (no.state.value, no.contradicted, no.approved) == ("not_verified", True, False)
            assert provisional(http, "provisional@henk")["reasons"] == []  # another user id, not blocked
            blocked = provisional(http, "provisional:not_verified@henk")
            assert (blocked["state"], blocked["reasons"]) == ("pending", ["provisional_blocked"])


def test_the_customer_is_led_by_hints_until_the_picture_is_good(client: AgentClient) -> None:
    id_ = client.verify("verified").id
    said: list[str | None] = []
    for event in client.events(id_, after=FROM_THE_START):
        said.append(str(event.data["code"] or "fine") if event.kind == "hint" else event.data["state"])
        if event.kind == "state" and event.data["state"] not in WORKING_STATES:
            break
    assert said == [
        "searching", "no_face", "too_far", "hold_still", "fine", "captured", "matching", "verified",
    ]  # fmt: skip


def test_a_refused_start_has_the_problem_of_the_real_thing_and_leaves_the_key_unused(http: httpx.Client) -> None:
    rows = {
        "camera_unavailable": 503, "models_missing": 503, "storage_full": 503, "storage_failed": 503,
        "key_mismatch": 503, "offline": 503, "starting": 503, "stopping": 503, "busy": 409, "locked_out": 429,
    }  # fmt: skip
    key = uuid.uuid4().hex
    found = {}
    for code in rows:
        answer = post(http, "carol", asked=f"refused:{code}", key=key)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code
        found[code] = answer.status_code
    assert found == rows
    assert answer.headers["retry-after"] == "180"
    assert post(http, "carol", key=key, wait=0).status_code == 201
    again = post(http, "carol", asked="refused:offline", key=key)
    assert (again.status_code, again.json()["replayed"], again.json()["state"]) == (200, True, "verified")


def test_the_header_comes_before_the_user_id_and_lasts_for_one_request(http: httpx.Client) -> None:
    first = post(http, "not_verified", asked="verified").json()
    second = post(http, "not_verified").json()
    assert (first["state"], second["state"]) == ("verified", "not_verified")


@pytest.mark.parametrize(
    ("user", "asked"), [("rejected:to_dark", None), ("rejected", None), ("dora", "sure"), ("dora", "verified:")]
)
def test_a_typing_mistake_is_refused_instead_of_verified(http: httpx.Client, user: str, asked: str | None) -> None:
    answer = post(http, user, asked=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "comes one of" in answer.json()["hint"] or "begins with" in answer.json()["hint"] or asked


def test_enrolment_takes_any_picture_once_unless_a_refusal_is_chosen(client: AgentClient) -> None:
    client.enrol("erin", PICTURE, "image/png")
    client.enrol("rejected:hold_still", PICTURE, "image/png")  # nothing moves in a still
    refused = {
        "erin": ("source_exists", None),
        "rejected:too_blurry": ("picture_refused", ["too_blurry"]),
        "refused:offline": ("offline", None),
    }
    for user, expected in refused.items():
        with pytest.raises(ApiError) as caught:
            client.enrol(user, PICTURE, "image/png")
        assert (caught.value.code, caught.value.problem.get("reasons")) == expected
    with pytest.raises(ApiError) as caught:
        client.enrol("fay", b"no picture", "image/png")
    assert caught.value.code == "not_an_image"


def test_every_answer_and_the_status_say_that_it_is_a_simulator(http: httpx.Client, client: AgentClient) -> None:
    answers = [http.get("/v1/health"), http.get("/v1/nothing"), http.delete("/v1/health"), post(http, "rejected")]
    assert [a.headers.get(MARK) for a in answers] == ["1"] * 4
    with http.stream("GET", "/v1/events") as events:
        assert events.headers[MARK] == "1"
    assert client.status()["simulator"] is True
    assert client.status()["terminal_id"] == "simulator"


def test_lock_out_is_the_real_one_when_it_is_on(tmp_path: Path) -> None:
    session = {"max_failures": 2, "verdict_timeout_s": 20.0}
    with simulator(tmp_path, lockout=True, speed=20, session=session) as path, AgentClient(path) as client:
        for _ in range(2):
            assert client.verify("not_verified", wait_s=30).state is State.NOT_VERIFIED
        with pytest.raises(ApiError) as caught:
            client.verify("somebody-else")
        assert caught.value.code == "locked_out"


def test_what_waits_is_forwarded_as_chosen_after_a_restart(tmp_path: Path) -> None:
    with simulator(tmp_path, speed=20) as path, AgentClient(path) as client:
        transport = httpx.HTTPTransport(uds=str(path), verify=False)
        with httpx.Client(transport=transport, base_url="http://simulator", timeout=30) as http:
            id_ = post(http, "gus", asked="slow:not_verified").json()["id"]
        assert client.get(id_).state is State.PENDING
    with simulator(tmp_path, speed=20) as path, AgentClient(path) as client:
        assert ended(client, id_).state is State.NOT_VERIFIED


def test_over_tcp_each_role_has_a_token_and_the_answers_are_marked_too(tmp_path: Path) -> None:
    with closing(_socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with simulator(tmp_path, speed=20, tcp=address), httpx.Client(base_url=f"http://{address}") as http:
        tokens = run.tokens(tmp_path / "kept")
        found = {
            role: http.get("/v1/outbox", headers={"Authorization": f"Bearer {token}"}).status_code
            for role, token in tokens.items()
        }
        assert found == {"pos": 403, "enrol": 403, "admin": 200}
        unknown = http.get("/v1/status")
        assert (unknown.status_code, unknown.headers[MARK]) == (401, "1")
