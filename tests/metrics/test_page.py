"""The page of a running terminal: what it says after things happened, and who gets it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from edge_agent.api.measuring import MAX_SCRAPERS
from edge_agent.client import ApiError
from edge_agent.config import ApiSection
from edge_agent.errors import EnvironmentFault, StorageError
from edge_agent.listening import bind_tcp
from edge_agent.metrics.page import MEDIA_TYPE, MetricsPage, render
from edge_agent.metrics.values import Counted
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import raw
from tests.api.test_sockets import free_port
from tests.faces import measurement
from tests.metrics.conftest import ALICE, BOB, PATIENT
from tests.metrics.scrapes import Scrape, over, parse, scrape
from tests.terminal import Terminal, terminal


def test_what_happened_is_counted(running: Terminal) -> None:
    with running.client() as client:
        assert client.verify(ALICE, wait_s=60).approved
        assert client.verify(BOB, wait_s=60).state == "not_verified"
        running.eyes.sees = measurement(inter_eye_px=20.0)
        assert client.verify(ALICE, wait_s=60, search_timeout_s=2.0).state == "rejected"
        with pytest.raises(ApiError):
            client.get("f" * 32)
        client.reload()
    with raw(running) as http:
        http.get("/v1/nothing")
        http.request("BREW", "/v1/health")
        http.head("/v1/health")
        http.get("/v1/health", headers={"Origin": "http://evil.example"})
    found = scrape(running)
    expected: dict[tuple[str, str, str], float] = {
        ("verifications_total", "state", "searching"): 3,
        ("verifications_total", "state", "captured"): 2,
        ("verifications_total", "state", "verified"): 1,
        ("verifications_total", "state", "not_verified"): 1,
        ("verifications_total", "state", "rejected"): 1,
        ("verifications_total", "state", "provisionally_verified"): 0,
        ("verifications_stored", "state", "verified"): 1,
        ("verification_rejections_total", "reason", "too_far"): 1,
        ("verdicts_total", "verdict", "positive"): 1,
        ("verdicts_total", "verdict", "negative"): 1,
        ("network_state", "state", "online"): 1,
        ("network_state", "state", "offline"): 0,
        ("camera_state", "state", "ok"): 1,
        ("outbox_captures", "status", "queued"): 0,
        ("config_reloads_total", "result", "succeeded"): 1,
        ("api_problems_total", "code", "not_found"): 1,
        ("api_refused_total", "code", "cross_origin"): 1,
    }
    got = {(name, label, value): found.get(name, **{label: value}) for name, label, value in expected}
    assert got == expected
    assert found.get("forward_attempts_total", outcome="verdict") == 2
    assert found.get("api_requests_total", route="/v1/verifications", method="POST", status="201") == 3
    assert found.get("api_requests_total", route="/v1/verifications/{id}", method="GET", status="404") == 1
    assert found.get("api_requests_total", route="/v1/health", method="GET", status="200") == 1
    assert found.get("api_requests_total", route="other", method="other", status="404") == 1
    assert found.get("api_requests_total", route="other", method="other", status="405") == 1
    for name in ("ready", "outbox_up", "config_last_reload_successful", "storage_takes_captures"):
        assert found.get(name) == 1, name
    assert (found.get("frames_total", outcome="accepted") or 0) >= 10
    assert (found.get("frame_reasons_total", reason="too_far") or 0) >= 1
    assert found.get("verification_verdict_seconds_count") == 2
    _, storage = running.run(running.agent.outbox())
    head = storage["audit_head"]
    assert found.get("audit_head_sequence") == int(head.partition(":")[0])
    assert (found.get("process_resident_memory_bytes") or 0) > 1e6


def test_nothing_of_a_person_is_in_it(running: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    """Planted in every place of a request that a caller fills in; the ids of what was asked for count too."""
    with caplog.at_level("DEBUG"), running.client() as client, raw(running) as http:
        record = client.verify(ALICE, wait_s=60)
        http.get(f"/v1/{ALICE}")
        http.request(ALICE.replace("-", ""), "/v1/health")
        http.delete(f"/v1/users/{ALICE}")
        http.put(f"/v1/users/{ALICE}/source", content=ALICE.encode(), headers={"Content-Type": "image/jpeg"})
        http.get("/v1/health", params={ALICE: ALICE})
        http.get(f"/v1/verifications/{ALICE}")
        http.get("/v1/health", headers={"Origin": f"http://{ALICE}"})
        text = scrape(running).text
    for secret in ("4711", "planted", record.id, "uid:"):
        assert secret not in text


def test_the_terminals_faults_and_a_missing_outbox_are_seen(running: Terminal) -> None:
    assert scrape(running).get("fault", part="camera", code="camera_unavailable") is None
    running.agent.set_fault("socket", EnvironmentFault("cannot listen", code="socket_group_unusable"))
    running.agent.keeper._fault = StorageError("cannot read", code="key_mismatch")
    found = scrape(running)
    running.agent.keeper._fault = None
    assert found.get("fault", part="socket", code="socket_group_unusable") == 1
    assert found.get("fault", part="store", code="key_mismatch") == 1
    assert (found.get("ready"), found.get("outbox_up"), found.get("outbox_bytes")) == (0, 0, None)
    assert found.get("verifications_total", state="searching") == 0


def test_an_outbox_that_is_busy_is_left_out(running: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.metrics.values.STORE_S", 0.0)
    assert scrape(running).get("outbox_up") == 0


class Stopwatch:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_page_serves_for_a_second_and_many_who_ask_get_the_same(running: Terminal) -> None:
    clock = Stopwatch()
    page = MetricsPage(running.agent, running.settings, Counted({}, {}, {}), kept_s=1.0, clock=clock)

    async def ask(times: int) -> list[bytes]:
        return await asyncio.gather(*(page.text() for _ in range(times)))

    first = running.run(ask(20))
    running.agent.tally.frames["accepted"] += 1
    clock.now_s += 0.9
    kept = running.run(ask(1))
    clock.now_s += 0.2
    assert len({id(text) for text in first + kept}) == 1
    assert running.run(ask(1)) != kept


def test_a_value_that_the_catalogue_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError):
        render([("made_up", (), 1.0)])
    with pytest.raises(ValueError, match="label"):
        render([("ready", ("too many",), 1.0)])


# -- the listener of its own ------------------------------------------------------------------------------------------


def exposed(**more: Any) -> dict[str, Any]:
    return {"metrics": f"127.0.0.1:{free_port()}", **more}


def test_the_listener_gives_the_metrics_without_a_token_and_nothing_else(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    api = exposed()
    with terminal(tmp_path, sandbox, **PATIENT, api=api) as t, over(api["metrics"]) as http:
        answer = http.get("/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPE)
        assert parse(answer.text).kinds == scrape(t).kinds
        head = http.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        refused: list[tuple[str, str, dict[str, str], int, str]] = [
            ("GET", "/", {}, 404, "not_found"),
            ("GET", "/metrics/", {}, 404, "not_found"),
            ("GET", "/v1/health", {}, 404, "not_found"),
            ("GET", "/v1/status", {}, 404, "not_found"),
            ("POST", "/v1/verifications", {}, 404, "not_found"),
            ("POST", "/metrics", {}, 405, "method_not_allowed"),
            ("GET", "/metrics", {"Origin": "http://127.0.0.1"}, 403, "cross_origin"),
            ("GET", "/metrics", {"Sec-Fetch-Site": "same-origin"}, 403, "cross_origin"),
            ("GET", "/metrics", {"Host": "rebound.example"}, 421, "misdirected"),
            ("GET", "/metrics", {f"X-{n}": "1" for n in range(80)}, 431, "headers_too_large"),
        ]
        for method, path, headers, status, code in refused:
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path, headers)
        assert scrape(t).get("api_refused_total", code="cross_origin") == 2


def test_the_listener_takes_few_connections_and_goes_on_when_they_are_over(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    api = exposed()
    host, port = api["metrics"].split(":")
    with terminal(tmp_path, sandbox, **PATIENT, api=api):
        with contextlib.ExitStack() as idle:
            for _ in range(MAX_SCRAPERS):
                held = idle.enter_context(socket.create_connection((host, int(port)), timeout=20))
                held.sendall(b"GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n" % api["metrics"].encode())
                assert held.recv(12) == b"HTTP/1.1 200"
            with over(api["metrics"]) as http:
                answer = http.get("/metrics")
            assert (answer.status_code, answer.json()["code"]) == (503, "too_many_connections")
        assert _soon_answers(api["metrics"]).kinds["edge_agent_ready"] == "gauge"


def _soon_answers(address: str) -> Scrape:
    """The server hears of closed connections in its own time."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        with over(address) as http, contextlib.suppress(httpx.TransportError):
            answer = http.get("/metrics")
            if answer.status_code == 200:
                return parse(answer.text)
        time.sleep(0.01)
    raise AssertionError("the listener does not answer any more")


def test_a_port_that_is_taken_degrades_the_agent_which_serves_its_socket(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    api = exposed()
    with bind_tcp(api["metrics"]), terminal(tmp_path, sandbox, **PATIENT, api=api) as t:
        assert scrape(t).get("fault", part="metrics", code="tcp_unavailable") == 1
        with t.client() as client:
            assert "check api.metrics" in json.dumps(client.status()["faults"])
            assert client.verify(ALICE, wait_s=60).approved


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "10.0.0.7:9464", "localhost:9464", "127.0.0.1", "127.0.0.1:0"])
def test_the_listener_is_for_loopback_addresses_only(address: str) -> None:
    with pytest.raises(ValidationError, match="must be"):
        ApiSection.model_validate({"metrics": address})


def test_the_listener_needs_a_port_of_its_own() -> None:
    with pytest.raises(ValidationError, match="metrics needs a port of its own"):
        ApiSection.model_validate({"metrics": "127.0.0.1:9", "tcp": "127.0.0.1:9", "token": {"env": "TOKEN"}})


def test_every_state_of_a_verification_but_matching_has_a_series(running: Terminal) -> None:
    shown = {
        dict(labels)["state"] for name, labels in scrape(running).values if name == "edge_agent_verifications_total"
    }
    assert shown == {state.value for state in State} - {"matching"}
