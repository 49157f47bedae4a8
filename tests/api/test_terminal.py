"""The terminal from outside: requests over the real socket, verdicts from the real sandbox."""

from __future__ import annotations

import hashlib
import json
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient, ApiError
from edge_agent.errors import EnvironmentFault, ModelError
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.sandbox.variants import Variants
from edge_agent.types import State
from tests.api.calls import SOURCE, raw, start, until_final
from tests.faces import measurement, scores
from tests.terminal import Terminal, terminal

HASTY = {"verdict_timeout_s": 1.0}
"""For a verification that shall have no verdict in time."""

# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_the_right_person_is_verified_and_approved(client: AgentClient, sandbox: SandboxServer) -> None:
    record = client.verify("alice", reference="order 7", amount="12.50", currency="EUR", wait_s=10)
    assert (record.state, record.approved, record.late) == (State.VERIFIED, True, False)
    assert (record.reference, str(record.amount), record.currency) == ("order 7", "12.50", "EUR")
    assert record.similarity == 99.5


def test_the_picture_judged_is_the_picture_captured(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    record = client.verify("alice", wait_s=10)
    judged = [judgement.target_sha256 for judgement in sandbox.judged]
    captured = running.run(running.agent.get(record.id)).verdict.image_sha256
    assert judged == [captured]


def test_another_person_is_not_verified(client: AgentClient) -> None:
    record = client.verify("no-bob", wait_s=10)
    assert (record.state, record.approved, record.final) == (State.NOT_VERIFIED, False, True)


def test_a_presentation_that_never_qualifies_is_rejected_with_reasons(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(luminance=0.1)
    record = client.verify("alice", wait_s=10)
    assert (record.state, record.approved, record.reasons) == (State.REJECTED, False, ["too_dark"])


def test_a_suspected_spoof_is_never_uploaded(running: Terminal, client: AgentClient, sandbox: SandboxServer) -> None:
    running.eyes.scores = scores(0.9, 0.1)
    record = client.verify("alice", wait_s=10)
    assert (record.state, record.reasons) == (State.REJECTED, ["spoof_suspected"])
    assert sandbox.judged == ()


def test_an_unknown_user_fails_with_the_reason(client: AgentClient) -> None:
    record = client.verify("stranger", wait_s=10)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "unknown_user"


def test_the_network_cut_ends_in_pending_and_later_in_a_late_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    with SandboxServer(folder=folder) as first:
        first.enrol("alice", SOURCE)
        port = int(first.base_url.rstrip("/").rsplit(":", 1)[1])
        credentials, url = first.credentials, first.base_url
    with Terminal(tmp_path, url, credentials, session={"search_timeout_s": 1.0, "verdict_timeout_s": 1.0,
                                                       "capture_window_s": 0.0}) as t, t.client() as client:  # fmt: skip
        record = client.verify("alice", wait_s=10)
        assert (record.state, record.approved) == (State.PENDING, False)
        with SandboxServer(folder=folder, port=port):
            record = until_final(client, record)
        assert (record.state, record.late, record.approved) == (State.VERIFIED, True, False)


def test_a_slow_service_ends_in_pending_and_forwarding_goes_on(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="hang"))
    with terminal(tmp_path, sandbox, session=HASTY) as t, t.client() as client:
        record = client.verify("alice", wait_s=10)
        assert record.state is State.PENDING
        assert until_final(client, record).state is State.VERIFIED


@pytest.mark.parametrize("kind", ["garbage", "html", "redirect", "truncate", "drop", "reset"])
def test_garbage_is_never_a_verdict(tmp_path: Path, sandbox: SandboxServer, kind: Any) -> None:
    sandbox.inject(Fault(step="match", kind=kind, times=None))
    with terminal(tmp_path, sandbox, session=HASTY) as t, t.client() as client:
        record = client.verify("alice", wait_s=10)
    assert record.state is State.PENDING
    assert not record.approved


def test_an_answer_that_contradicts_itself_never_approves(client: AgentClient, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="contradict"))
    record = client.verify("alice", wait_s=10)
    assert (record.state, record.approved) == (State.NOT_VERIFIED, False)


@pytest.mark.parametrize(
    "variants",
    [
        Variants(token_field="access_token"),
        Variants(token_field="token", token_under_data=True),
        Variants(url_field="signedUrl"),
        Variants(url_field="presignedUrl", url_under_data=True),
        Variants(url_field="uploadUrl"),
        Variants(url_field="uploadURL"),
        Variants(url_field="generatedUrl"),
        Variants(url_valid_s=60),
        Variants(url_valid_s=4800),
        Variants(match_style="face_match_message"),
        Variants(match_style="matched"),
        Variants(mismatch_style="success_false_200"),
        Variants(mismatch_style="false_4xx"),
        Variants(refresh="refused", token_life_s=1),
        Variants(bad_token_status=401, token_life_s=1),
        Variants(error_style="text"),
    ],
)
def test_every_documented_variant_gives_the_right_outcome(tmp_path: Path, variants: Variants) -> None:
    with SandboxServer(variants) as server:
        for user in ("alice", "no-bob"):
            server.enrol(user, SOURCE)
        with terminal(tmp_path, server) as t, t.client() as client:
            assert client.verify("alice", wait_s=10).state is State.VERIFIED
            assert client.verify("no-bob", wait_s=10).state is State.NOT_VERIFIED


@pytest.mark.parametrize("scheme", ["raw", "bearer"])
def test_both_authorization_schemes_work(tmp_path: Path, scheme: Any) -> None:
    with SandboxServer(Variants(auth_scheme=scheme)) as server:
        server.enrol("alice", SOURCE)
        with terminal(tmp_path, server, cypherface={"auth_scheme": scheme}) as t, t.client() as client:
            assert client.verify("alice", wait_s=10).approved


@pytest.mark.parametrize(("accept", "state"), [(True, State.VERIFIED), (False, State.PENDING)])
@pytest.mark.parametrize("style", ["empty", "bare"])
def test_a_bare_200_counts_only_when_the_operator_says_so(
    tmp_path: Path, style: Any, accept: bool, state: State
) -> None:
    with SandboxServer(Variants(match_style=style)) as server:
        server.enrol("alice", SOURCE)
        session = {} if accept else HASTY
        with (
            terminal(tmp_path, server, session=session, cypherface={"accept_bare_200": accept}) as t,
            t.client() as client,
        ):
            assert client.verify("alice", wait_s=10).state is state


@pytest.mark.parametrize(("least", "state"), [(99.0, State.VERIFIED), (99.9, State.PENDING)])
def test_a_similarity_below_the_operators_limit_is_no_verdict(tmp_path: Path, least: float, state: State) -> None:
    with SandboxServer() as server:
        server.enrol("alice", SOURCE)
        session = {} if state is State.VERIFIED else HASTY
        with (
            terminal(tmp_path, server, session=session, cypherface={"min_similarity": least}) as t,
            t.client() as client,
        ):
            assert client.verify("alice", wait_s=10).state is state


def test_pictures_go_to_no_host_that_is_not_allowed(tmp_path: Path) -> None:
    with SandboxServer(Variants(url_host="localhost:9")) as server:
        server.enrol("alice", SOURCE)
        with terminal(tmp_path, server, session=HASTY) as t, t.client() as client:
            record = client.verify("alice", wait_s=10)
            assert record.state is State.PENDING
            assert client.status()["network"]["state"] == "stopped"
        assert server.judged == ()


# -- idempotency ------------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_verification(client: AgentClient, sandbox: SandboxServer) -> None:
    first = client.verify("alice", idempotency_key="k", wait_s=10)
    again = client.verify("alice", idempotency_key="k", wait_s=10)
    assert (again.id, again.replayed, first.replayed) == (first.id, True, False)
    assert len(sandbox.judged) == 1


def test_the_same_key_with_another_body_is_refused(client: AgentClient) -> None:
    client.verify("alice", idempotency_key="k", wait_s=10)
    with pytest.raises(ApiError) as caught:
        client.verify("no-bob", idempotency_key="k")
    assert (caught.value.code, caught.value.status) == ("idempotency_mismatch", 422)


def test_a_replay_works_while_another_session_searches(running: Terminal, client: AgentClient) -> None:
    first = client.verify("alice", idempotency_key="k", wait_s=10)
    running.eyes.sees = measurement(())
    client.verify("no-bob")
    assert client.verify("alice", idempotency_key="k").id == first.id


def test_a_refused_start_does_not_use_the_key_up(running: Terminal, client: AgentClient) -> None:
    running.camera.cannot_open = True
    with pytest.raises(ApiError) as caught:
        client.verify("alice", idempotency_key="k")
    assert (caught.value.code, caught.value.status) == ("camera_unavailable", 503)
    running.camera.cannot_open = False
    assert client.verify("no-bob", idempotency_key="k", wait_s=10).state is State.NOT_VERIFIED


def test_many_posts_at_once_with_one_key_give_one_capture(running: Terminal, sandbox: SandboxServer) -> None:
    answers: list[VerificationBody] = []

    def post() -> None:
        with running.client() as c:
            answers.append(c.verify("alice", idempotency_key="same", wait_s=10))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(sandbox.judged) == 1


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_second_session_while_one_searches_is_busy(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(())
    first = client.verify("alice")
    with pytest.raises(ApiError) as caught:
        client.verify("no-bob")
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("busy", 409, True)
    assert first.id in caught.value.message


def test_cancelling_stops_the_filming(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(())
    first = client.verify("alice")
    assert client.cancel(first.id).state is State.CANCELLED
    assert not running.camera.is_open
    running.eyes.sees = measurement()
    assert client.verify("alice", wait_s=10).approved


def test_what_was_captured_cannot_be_cancelled(client: AgentClient) -> None:
    record = client.verify("alice", wait_s=10)
    with pytest.raises(ApiError) as caught:
        client.cancel(record.id)
    assert (caught.value.code, caught.value.status) == ("not_cancellable", 409)


def test_the_camera_is_closed_between_sessions(running: Terminal, client: AgentClient) -> None:
    assert running.camera.opened == 0
    client.verify("alice", wait_s=10)
    assert (running.camera.opened, running.camera.is_open) == (1, False)


@pytest.mark.parametrize("code", ["camera_stalled", "camera_unavailable"])
def test_a_camera_lost_while_searching_fails_and_never_rejects(
    running: Terminal, client: AgentClient, code: str
) -> None:
    running.camera.broken = code
    record = client.verify("alice", wait_s=20)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "camera_unavailable"


def test_a_camera_that_comes_back_goes_on(running: Terminal, client: AgentClient) -> None:
    running.camera.broken = "camera_stalled"
    threading.Timer(0.3, lambda: setattr(running.camera, "broken", None)).start()
    assert client.verify("alice", wait_s=10).approved


def test_an_inference_error_fails_the_session(running: Terminal, client: AgentClient) -> None:
    running.eyes.error = ModelError("cannot run the model: broken", code="inference_failed")
    record = client.verify("alice", wait_s=10)
    assert record.error is not None
    assert (record.state, record.error.code) == (State.FAILED, "inference_failed")


def test_too_many_failures_lock_the_terminal_out(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 1.0, "max_failures": 2}) as t, t.client() as client:
        for _ in range(2):
            assert client.verify("no-bob", wait_s=10).state is State.NOT_VERIFIED
        answer = start(t, json={"user_id": "alice"})
        assert (answer.status_code, answer.json()["code"]) == (429, "locked_out")
        assert int(answer.headers["retry-after"]) > 100


def test_a_restart_interrupts_a_search_and_films_nobody(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 30.0}) as t, t.client() as client:
        t.eyes.sees = measurement(())
        record = client.verify("alice")
    with terminal(tmp_path, sandbox) as t, t.client() as client:
        after = client.get(record.id)
        assert after.error is not None
        assert (after.state, after.error.code) == (State.FAILED, "interrupted")
        assert t.camera.opened == 0


def test_stopping_during_a_search_ends_it_and_the_waiting_request(tmp_path: Path, sandbox: SandboxServer) -> None:
    results: list[VerificationBody] = []
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 30.0}) as t:
        t.eyes.sees = measurement(())

        def post() -> None:
            with t.client() as client:
                results.append(client.verify("alice", wait_s=30))

        thread = threading.Thread(target=post)
        thread.start()
        while t.camera.opened == 0:
            time.sleep(0.01)
    thread.join(10)
    assert [r.state for r in results] == [State.FAILED]


# -- degraded ---------------------------------------------------------------------------------------------------------


def test_without_models_it_serves_degraded_and_recovers(tmp_path: Path, sandbox: SandboxServer) -> None:
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)
    t.vision_error = ModelError("cannot load: missing", hint="edge-agent models fetch open")
    with t, t.client() as client:
        assert not client.ready()
        assert client.status()["faults"][0]["code"] == "models_missing"
        with pytest.raises(ApiError) as caught:
            client.verify("alice")
        assert (caught.value.code, caught.value.status) == ("models_missing", 503)
        t.vision_error = None
        assert client.verify("alice", wait_s=10).approved
        assert client.ready()


def test_with_the_wrong_key_it_serves_degraded_and_touches_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox) as t, t.client() as client:
        record = client.verify("alice", wait_s=10)
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)
    (tmp_path / "device.key").write_text("22" * 32)
    with t, t.client() as client:
        for call in (lambda: client.get(record.id), lambda: client.verify("alice")):
            with pytest.raises(ApiError) as caught:
                call()
            assert (caught.value.code, caught.value.status) == ("key_mismatch", 503)
    with terminal(tmp_path, sandbox) as t, t.client() as client:
        assert client.get(record.id).state is State.VERIFIED


def test_policy_deny_refuses_while_offline(tmp_path: Path) -> None:
    with SandboxServer() as gone:
        credentials, url = gone.credentials, gone.base_url
    with Terminal(tmp_path, url, credentials, offline={"policy": "deny"}) as t, t.client() as client:
        record = client.verify("alice", wait_s=10)
        assert record.error is not None
        assert (record.state, record.error.code) == (State.FAILED, "offline")
        with pytest.raises(ApiError) as caught:
            client.verify("alice")
        assert (caught.value.code, caught.value.status) == ("offline", 503)


def test_a_revoked_key_stops_forwarding_and_loses_nothing(client: AgentClient, sandbox: SandboxServer) -> None:
    sandbox.vary(api_key_revoked=True)
    record = client.verify("alice", wait_s=10)
    assert record.state is State.PENDING
    assert client.status()["network"] | {"last_error": ""} == {
        "state": "stopped", "stopped_code": "unauthenticated", "last_error": "", "last_success_at": None,
    }  # fmt: skip
    assert client.status()["queue"]["depth"] == 1


# -- events -----------------------------------------------------------------------------------------------------------


def test_events_tell_states_and_hints_and_can_be_resumed(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(inter_eye_px=20.0)
    record = client.verify("alice")
    seen = []
    first = None
    for event in client.events(record.id, after=FROM_THE_START):
        first = event.id if event.kind == "hint" else first
        seen.append((event.kind, event.data.get("state") or event.data.get("code")))
        if event.data.get("code") == "too_far":
            assert event.data["text"] == "Please come closer."
            assert client.get(record.id).hint is not None
            running.eyes.sees = measurement()
        if event.data.get("state") == "verified":
            break
    kinds = [what for kind, what in seen if kind == "state"]
    assert kinds == ["searching", "captured", "matching", "verified"]
    assert ("hint", "too_far") in seen
    later = next(iter(client.events(record.id, after=first)))
    assert later.data["state"] == "captured"


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"content": b"{"}, 400, "invalid_request"),
        ({"content": b""}, 400, "invalid_request"),
        ({"content": b"[" * 5000}, 400, "invalid_request"),
        ({"json": []}, 400, "invalid_request"),
        ({"json": {}}, 422, "invalid_user_id"),
        ({"json": {"user_id": "a", "usr": 1}}, 400, "invalid_request"),
        ({"json": {"user_id": "../a"}}, 422, "invalid_user_id"),
        ({"json": {"user_id": "a\u0000"}}, 422, "invalid_user_id"),
        ({"json": {"user_id": "x" * 1024}}, 422, "invalid_user_id"),
        ({"json": {"user_id": "4111111111111111"}}, 422, "looks_like_card_number"),
        ({"json": {"user_id": "a", "reference": "4111 1111 1111 1111"}}, 422, "looks_like_card_number"),
        ({"json": {"user_id": "a", "amount": -1}}, 400, "invalid_request"),
        ({"content": b" " * 20_000}, 413, "too_large"),
        ({"json": {"user_id": "a"}, "params": {"wait": "soon"}}, 400, "invalid_request"),
        ({"json": {"user_id": "a"}, "params": {"wait": "-1"}}, 400, "invalid_request"),
        ({"json": {"user_id": "a"}, "params": {"wait": "nan"}}, 400, "invalid_request"),
    ],
)
def test_a_bad_request_gets_a_problem_document(
    refusing: Terminal, options: dict[str, Any], status: int, code: str
) -> None:
    answer = start(refusing, **options)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert {"type", "title", "detail", "hint", "retryable"} <= problem.keys()
    assert refusing.camera.opened == 0


@pytest.mark.parametrize("key", [None, "", "x" * 256, "a b"])
def test_an_idempotency_key_is_required(refusing: Terminal, key: str | None) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    with raw(refusing) as http:
        answer = http.post("/v1/verifications", json={"user_id": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_missing")


def test_unknown_paths_ids_and_methods_are_problems_too(refusing: Terminal) -> None:
    with raw(refusing) as http:
        assert http.get("/v2").json()["code"] == "not_found"
        assert http.get("/v1/verifications/nope").json()["code"] == "not_found"
        assert http.get("/v1/verifications", params={"state": "lost"}).json()["code"] == "invalid_request"
        wrong = http.put("/v1/verifications", json={})
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        assert set(wrong.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "POST"}


def test_health_ready_and_status_answer(running: Terminal, client: AgentClient) -> None:
    with raw(running) as http:
        assert http.get("/v1/health").json() == {"status": "ok"}
        assert http.get("/v1/ready").json() == {"ready": True, "missing": {}}
    status = client.status()
    assert status["queue"]["depth"] == 0
    assert status["terminal_id"] == "pos-0001"
    assert status["simulator"] is False


def test_the_list_is_newest_first_and_can_be_filtered(client: AgentClient, running: Terminal) -> None:
    ids = [client.verify(user, wait_s=10).id for user in ("alice", "no-bob", "alice")]
    with raw(running) as http:
        everything = http.get("/v1/verifications").json()["items"]
        verified = http.get("/v1/verifications", params={"state": "verified"}).json()["items"]
    assert [item["id"] for item in everything] == ids[::-1]
    assert [item["id"] for item in verified] == [ids[2], ids[0]]


# -- the socket -------------------------------------------------------------------------------------------------------


def test_only_the_owner_can_reach_the_socket(running: Terminal) -> None:
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600


def test_a_second_agent_on_the_same_socket_is_refused(running: Terminal, tmp_path: Path) -> None:
    from edge_agent.listening import bind

    with pytest.raises(EnvironmentFault, match="another agent answers there"):
        bind(running.socket)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    from edge_agent.listening import bind

    path = tmp_path / "api.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    bind(path).close()


def test_an_agent_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with AgentClient(tmp_path / "none.sock") as client, pytest.raises(EnvironmentFault, match="cannot reach the agent"):
        client.status()


# -- what lies around -------------------------------------------------------------------------------------------------


def test_no_picture_and_no_user_id_lies_in_the_state_directory(
    tmp_path: Path, sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.inject(Fault(step="match", kind="hang", times=None))
    user = "alice-with-a-long-name"
    sandbox.enrol(user, SOURCE)
    with caplog.at_level("DEBUG"), terminal(tmp_path, sandbox, session=HASTY) as t, t.client() as client:
        record = client.verify(user, wait_s=10)
        assert record.state is State.PENDING
        files = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    everything = b"".join(files)
    assert len(everything) > 10_000
    assert b"\xff\xd8\xff\xe0" not in everything
    assert user.encode() not in everything
    assert user not in caplog.text
    assert "eyJ" not in caplog.text
    assert json.dumps(hashlib.sha256(user.encode()).hexdigest()) not in caplog.text
