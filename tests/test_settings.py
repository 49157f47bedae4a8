"""The configuration of a running terminal: read again, tried out, kept and rolled back."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import ModelError
from edge_agent.outbox import Store
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.trial import read
from edge_agent.types import JsonObject, State
from tests.api.calls import SOURCE, until_final
from tests.faces import measurement
from tests.terminal import Terminal, terminal

QUICK = {"watch_s": 0.3}


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        server.enrol("alice", SOURCE)
        yield server


@pytest.fixture
def running(tmp_path: Path, sandbox: SandboxServer) -> Iterator[Terminal]:
    with terminal(tmp_path, sandbox) as t:
        yield t


@pytest.fixture
def client(running: Terminal) -> Iterator[AgentClient]:
    with running.client() as c:
        yield c


def until(true: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def ended(client: AgentClient) -> JsonObject:
    """The trial, once it is over."""
    until(lambda: client.config_trial()["phase"] in {"kept", "rolled_back"}, "the trial does not end")
    return client.config_trial()


def healthy(client: AgentClient) -> None:
    until(lambda: client.config_trial()["phase"] not in {"watching", "restarting"}, "its health is watched for ever")
    assert client.config_trial()["phase"] == "healthy", client.config_trial()


def configuration(client: AgentClient) -> JsonObject:
    found: JsonObject = client.status()["configuration"]
    return found


def events(t: Terminal) -> list[JsonObject]:
    return [dict(event.data) for event in t.agent.bus._kept if event.kind == "configuration"]


# -- reading the file again -------------------------------------------------------------------------------------------


def test_a_reload_takes_what_can_change_and_names_what_needs_a_restart(running: Terminal, client: AgentClient) -> None:
    changed = running.text(
        terminal_id="pos-9", gate={"max_yaw_deg": 7.0}, outbox={"max_items": 3}, log={"level": "error"}
    )
    running.file.write_text(changed)
    assert client.reload()["restart_needed"] == ["terminal_id"]
    config = running.agent.config
    assert (config.gate.max_yaw_deg, config.terminal_id) == (7.0, "pos-0001")
    assert running.run(running.agent.keeper.run(lambda store: store.limits.max_items)) == 3
    found = configuration(client)
    assert (found["last_reload"]["ok"], found["reloads"]) == (True, {"succeeded": 1, "failed": 0})
    assert found["restart_needed"] == ["terminal_id"]
    assert events(running) == [
        {
            "state": "reloaded",
            "restart_needed": ["terminal_id"],
            "problems": [],
            "trial": None,
            "keys": [],
            "reason": None,
        }
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sesion: {}\n", "unknown key (did you mean session?)"),
        ("gate: [", "is not valid YAML"),
        (None, "cannot read the configuration"),
    ],
)
def test_a_bad_file_leaves_the_old_configuration_running_and_says_so(
    running: Terminal, client: AgentClient, caplog: pytest.LogCaptureFixture, content: str | None, said: str
) -> None:
    before = running.agent.config
    good = running.file.read_text()
    running.file.unlink()
    if content is not None:
        running.file.write_text(good + content if content.startswith("sesion") else content)
    with pytest.raises(ApiError) as refused, caplog.at_level(logging.ERROR):
        client.reload()
    assert (refused.value.code, refused.value.status) == ("configuration_refused", 422)
    assert running.agent.config == before
    found = configuration(client)
    assert (found["last_reload"]["ok"], found["reloads"]["failed"]) == (False, 1)
    assert said in found["last_reload"]["problems"][0]
    assert events(running)[-1]["state"] == "refused"
    assert "the old configuration goes on" in caplog.text
    assert client.verify("alice", wait_s=10).approved


def test_models_that_cannot_be_loaded_leave_the_old_ones_at_work(running: Terminal, client: AgentClient) -> None:
    running.vision_error = ModelError("cannot find the pack open-lite")
    running.file.write_text(running.text(models={"pack": "open-lite"}, gate={"max_yaw_deg": 7.0}))
    with pytest.raises(ApiError, match="cannot find the pack"):
        client.reload()
    assert running.agent.config.gate.max_yaw_deg == 20.0, "half of a file was taken"
    assert client.verify("alice", wait_s=10).approved
    running.vision_error = None
    client.reload()
    assert running.packs[-1] == "open-lite"


def test_a_reload_looks_for_what_was_missing(tmp_path: Path, sandbox: SandboxServer) -> None:
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)
    t.vision_error = ModelError("cannot find the models")
    with t, t.client() as client:
        assert not client.ready()
        t.vision_error = None
        client.reload()
        assert client.ready()


def test_a_running_session_keeps_the_configuration_it_started_with(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    running.eyes.sees = measurement(luminance=0.1)  # too dark for the gate it began with
    started = client.verify("alice", search_timeout_s=2.0)
    until(lambda: running.agent.frames["refused"] > 2, "nothing was filmed")
    running.file.write_text(running.text(gate={"min_luminance": 0.05}))
    client.reload()
    record = client.get(started.id, wait_s=10)
    assert (record.state, record.reasons) == (State.REJECTED, ["too_dark"])
    assert client.verify("alice", wait_s=10).approved, "the next session does not use the new limits"


def test_a_session_that_runs_ends_at_the_service_it_began_with(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    """Captures keep the environment they were made for, and the old way stays open until they are through."""
    running.eyes.sees = measurement(luminance=0.1)
    started = client.verify("alice", search_timeout_s=5.0)
    with SandboxServer() as other:
        other.enrol("alice", b"somebody else")
        address = {"base_url": other.base_url, "upload_hosts": [other.host],
                   "merchant_id": other.credentials.merchant_id}  # fmt: skip
        running.file.write_text(running.text(cypherface=address))
        old = running.agent.forwarder
        client.reload()
        assert running.agent.forwarder is not old
        running.eyes.sees = measurement()
        assert client.get(started.id, wait_s=10).approved
        assert (len(sandbox.judged), other.judged) == (1, ())
        until(lambda: len(running.agent._services._open) == 1, "the old client is never closed")
        assert old is not None and old._over


def test_sequences_under_way_finish_when_the_service_changes(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.5))
    started = client.verify("alice")
    until(lambda: any(seen.step == "match" for seen in sandbox.requests), "it was not forwarded")
    running.file.write_text(running.text(cypherface={"match_settle_s": 0.1}))
    client.reload()
    assert client.get(started.id, wait_s=10).approved
    assert [seen.step for seen in sandbox.requests].count("match") == 1
    assert client.verify("alice", wait_s=10).approved


def test_the_backlog_of_another_service_waits_until_that_is_configured_again(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    sandbox.inject(Fault(step="token", kind="reset", times=None))
    with terminal(tmp_path, sandbox) as t, t.client() as client, SandboxServer() as other:
        before = t.file.read_text()
        record = client.verify("alice", wait_s=10)
        assert record.state is State.PENDING
        t.file.write_text(t.text(cypherface={"base_url": other.base_url, "upload_hosts": [other.host]}))
        client.reload()
        time.sleep(0.3)
        assert other.judged == ()
        sandbox.clear_faults()
        t.file.write_text(before)
        client.reload()
        assert until_final(client, record).state is State.VERIFIED


def test_a_longer_validity_brings_no_approval_back(running: Terminal, client: AgentClient) -> None:
    running.file.write_text(running.text(session={"result_valid_s": 1.0}))
    client.reload()
    first = client.verify("alice", wait_s=10)
    assert first.approved
    until(lambda: not client.get(first.id).approved, "approved does not end")
    running.file.write_text(running.text(session={"result_valid_s": 60.0}))
    client.reload()
    assert not client.get(first.id).approved
    second = client.verify("alice", wait_s=10)
    time.sleep(1.1)
    assert client.get(second.id).approved


def test_what_was_reconfigured_is_in_the_audit_log_by_its_keys(running: Terminal, client: AgentClient) -> None:
    running.file.write_text(running.text(cypherface={"min_similarity": 80.0}))
    client.reload()
    entries = running.run(running.agent.keeper.run(_audited))
    uid = f"uid:{os.geteuid()}"
    assert ("configured", {"keys": ["cypherface.min_similarity"], "actor": uid}) in entries


def _audited(store: Store) -> list[tuple[str, Any]]:
    rows = store._database.execute("SELECT * FROM audit ORDER BY seq").fetchall()
    return [(row["event"], yaml.safe_load(row["detail"] or "null")) for row in rows]


# -- trials -----------------------------------------------------------------------------------------------------------


def keep(t: Terminal, client: AgentClient) -> JsonObject:
    """What ``config confirm`` does."""
    t.file.write_text(client.confirm_config()["text"])
    client.reload()
    return client.config_trial()


def test_a_healthy_candidate_that_is_confirmed_in_time_stays(running: Terminal, client: AgentClient) -> None:
    text = running.text(gate={"max_yaw_deg": 7.0})
    assert client.apply_config(text, **QUICK)["changes"] == [{"key": "gate.max_yaw_deg", "old": 20.0, "new": 7.0}]
    assert running.agent.config.gate.max_yaw_deg == 7.0
    healthy(client)
    assert keep(running, client)["phase"] == "kept"
    assert running.agent.config.gate.max_yaw_deg == 7.0
    assert [event["state"] for event in events(running)] == ["trial", "healthy", "kept", "reloaded"]


def test_a_candidate_that_nobody_confirms_is_forgotten(running: Terminal, client: AgentClient) -> None:
    client.apply_config(running.text(gate={"max_yaw_deg": 7.0}), watch_s=0.1, confirm_within_s=1.0)
    trial = ended(client)
    assert (trial["phase"], trial["reason"]) == ("rolled_back", "nobody confirmed it in time")
    assert running.agent.config.gate.max_yaw_deg == 20.0
    with pytest.raises(ApiError) as late:
        client.confirm_config()
    assert late.value.code == "config_not_pending"


def test_a_candidate_that_was_put_in_place_stays_although_the_last_word_is_missing(
    running: Terminal, client: AgentClient
) -> None:
    text = running.text(gate={"max_yaw_deg": 7.0})
    client.apply_config(text, watch_s=0.1, confirm_within_s=1.0)
    healthy(client)
    running.file.write_text(text)
    assert ended(client)["phase"] == "kept"
    assert running.agent.config.gate.max_yaw_deg == 7.0


def broken_models(t: Terminal) -> str:
    t.vision_error = ModelError("cannot find the pack typo", code="pack_unknown")
    return t.text(models={"pack": "typo"})


UNHEALTHY: list[tuple[str, Callable[[Terminal], str], str]] = [
    ("models", broken_models, "cannot find the pack typo"),
    ("ca_bundle", lambda t: t.text(cypherface={"ca_bundle": "/no/such.pem"}), "cannot use cypherface.ca_bundle"),
    ("api key", lambda t: t.text(cypherface={"api_key": {"file": "/no/such"}}), "forwarding stopped: secret_missing"),
    ("wrong key", lambda t: t.text(cypherface={"api_key": {"file": str(t.folder / "device.key")}}),
     "forwarding stopped: unauthenticated"),
    ("address", lambda t: t.text(cypherface={"base_url": "http://127.0.0.1:9/"}), "CypherFace cannot be reached"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "candidate", "why"), UNHEALTHY, ids=[name for name, _, _ in UNHEALTHY])
def test_an_unhealthy_candidate_is_rolled_back_with_the_reason(
    running: Terminal, client: AgentClient, name: str, candidate: Callable[[Terminal], str], why: str
) -> None:
    del name
    before = running.agent.config
    client.apply_config(candidate(running), **QUICK)
    trial = ended(client)
    assert trial["phase"] == "rolled_back"
    assert why in trial["reason"]
    assert running.agent.config == before
    assert events(running)[-1]["state"] == "rolled_back"
    running.vision_error = None
    assert client.verify("alice", wait_s=10).approved


def test_a_cable_that_is_pulled_meanwhile_rolls_back_nothing(running: Terminal, client: AgentClient) -> None:
    client.apply_config(running.text(gate={"max_yaw_deg": 7.0}), **QUICK)
    running.camera.cannot_open = True
    with pytest.raises(ApiError, match="unplugged"):
        client.verify("alice")
    assert not client.ready()
    healthy(client)
    assert running.agent.config.gate.max_yaw_deg == 7.0


def test_a_camera_that_cannot_be_opened_rolls_back(running: Terminal, client: AgentClient) -> None:
    running.camera_devices = {None}
    client.apply_config(running.text(camera={"device": "/dev/video9"}), **QUICK)
    assert "the camera cannot be opened" in ended(client)["reason"]
    assert running.agent.config.camera.device is None


def test_what_was_broken_before_is_not_held_against_a_candidate(tmp_path: Path, sandbox: SandboxServer) -> None:
    t = Terminal(tmp_path, "http://127.0.0.1:9/", sandbox.credentials)
    t.vision_error = ModelError("cannot find the models")
    with t, t.client() as client:
        client.apply_config(t.text(gate={"max_yaw_deg": 7.0}), **QUICK)
        healthy(client)


def test_a_bad_candidate_is_refused_with_every_problem(running: Terminal, client: AgentClient) -> None:
    with pytest.raises(ApiError) as refused:
        client.apply_config(running.text() + "sesion: {}\ngait: {}\n")
    assert (refused.value.code, len(refused.value.problem["problems"])) == ("configuration_refused", 2)
    assert client.status()["configuration"]["trial"] is None


def test_one_candidate_at_a_time(running: Terminal, client: AgentClient) -> None:
    client.apply_config(running.text(gate={"max_yaw_deg": 7.0}), watch_s=30)
    with pytest.raises(ApiError) as refused:
        client.apply_config(running.text(gate={"max_yaw_deg": 8.0}))
    assert refused.value.code == "config_pending"
    with pytest.raises(ApiError) as watched:
        client.confirm_config()
    assert watched.value.code == "config_watching"
    assert client.revert_config()["phase"] == "rolled_back"
    assert running.agent.config.gate.max_yaw_deg == 20.0


def test_a_reload_in_the_window_goes_back_to_the_file(running: Terminal, client: AgentClient) -> None:
    client.apply_config(running.text(gate={"max_yaw_deg": 7.0}), watch_s=30)
    running.file.write_text(running.text(gate={"max_yaw_deg": 9.0}))
    client.reload()
    assert running.agent.config.gate.max_yaw_deg == 9.0
    assert client.config_trial()["phase"] == "rolled_back"


def test_a_file_that_broke_in_the_window_leads_back_to_what_ran_before(running: Terminal, client: AgentClient) -> None:
    client.apply_config(running.text(gate={"max_yaw_deg": 7.0}), watch_s=30)
    running.file.write_text("gate: [")
    client.revert_config()
    assert running.agent.config.gate.max_yaw_deg == 20.0


def test_the_record_of_a_trial_is_on_the_disk_before_its_candidate_runs(running: Terminal, client: AgentClient) -> None:
    text = running.text(models={"pack": "open-lite"})
    seen: list[str] = []

    def look() -> None:
        found = read(running.folder / "state")
        seen.append(found.text if found else "")

    running.on_vision = look
    client.apply_config(text, watch_s=30)
    assert seen == [text]


@pytest.mark.parametrize(("restart", "code"), [(False, "restart_needed"), (True, None)])
def test_a_key_that_needs_a_restart_is_tried_out_with_one_only(
    running: Terminal, client: AgentClient, restart: bool, code: str | None
) -> None:
    text = running.text(terminal_id="pos-9", gate={"max_yaw_deg": 7.0})
    if code is not None:
        with pytest.raises(ApiError) as refused:
            client.apply_config(text, restart=restart)
        assert refused.value.code == code
    else:
        assert client.apply_config(text, restart=restart)["phase"] == "restarting"
    assert running.restarts == int(restart)
    assert running.agent.config.gate.max_yaw_deg == 20.0, "a part of it was taken at once"


def test_nobody_is_interrupted_by_a_restart_for_a_candidate(running: Terminal, client: AgentClient) -> None:
    running.eyes.sees = measurement(luminance=0.1)
    client.verify("alice")
    with pytest.raises(ApiError) as refused:
        client.apply_config(running.text(terminal_id="pos-9"), restart=True)
    assert (refused.value.code, running.restarts) == ("busy", 0)


def test_signals_that_come_together_read_the_file_at_most_twice(running: Terminal, client: AgentClient) -> None:
    async def hup() -> None:
        for _ in range(5):
            running.settings.reload_soon()
            await asyncio.sleep(0)

    running.run(hup())
    until(lambda: running.settings.current.reloads["succeeded"] == 2, "it was not read again")
    assert client.status()["configuration"]["reloads"] == {"succeeded": 2, "failed": 0}
