"""A camera that goes away and comes back, as the POS, the technician and the service manager see it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent import camerakeeper, verifications
from edge_agent.camera.guard import CameraFrozen, FrameFault, FrameLoop
from edge_agent.camerakeeper import Camerakeeper
from edge_agent.cli.run import run
from edge_agent.client import AgentClient, ApiError
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import Frame, JsonObject, State
from tests.terminal import Terminal, terminal
from tests.test_daemon import write_config


@pytest.fixture
def running(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(camerakeeper, "PROBE_S", 0.05)
    with terminal(tmp_path, sandbox) as t:
        yield t


@pytest.fixture
def client(running: Terminal) -> Iterator[AgentClient]:
    with running.client() as c:
        yield c


def until(true: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


def events(t: Terminal, verification_id: str | None) -> list[JsonObject]:
    kept = list(t.agent.bus._kept)
    return [dict(e.data) for e in kept if e.kind == "camera" and e.verification_id == verification_id]


def test_a_camera_lost_between_sessions_is_a_fault_everywhere_until_it_is_back(
    running: Terminal, client: AgentClient
) -> None:
    assert client.ready(), "a camera that nobody tried is no fault"
    assert client.status()["camera"] == {
        "state": "unknown", "step": "none", "failures": 0, "code": None, "detail": "", "hint": None,
        "steps_taken": {"reopen": 0, "respawn": 0, "exit": 0}, "watched": False, "still_s": None,
    }  # fmt: skip
    running.camera.cannot_open = True
    with pytest.raises(ApiError) as refused:
        client.verify("alice")
    assert (refused.value.code, refused.value.status) == ("camera_unavailable", 503)
    assert not client.ready()
    body = client.status()
    assert [fault["part"] for fault in body["faults"]] == ["camera"]
    assert (body["camera"]["state"], body["camera"]["detail"]) == ("lost", "cannot open noise: unplugged")
    assert running.agent.describe() == "degraded: camera (camera_unavailable)"
    until(lambda: bool(client.status()["camera"]["steps_taken"]["reopen"]), "nobody looks after it")
    running.camera.cannot_open = False
    until(client.ready, "it does not come back")
    assert client.status()["faults"] == []
    assert not running.camera.is_open
    told = events(running, None)
    assert [told[0][key] for key in ("state", "step", "code")] == ["lost", "reopen", "camera_unavailable"]
    assert [told[-1][key] for key in ("state", "code", "detail")] == ["ok", None, "noise"]
    assert client.verify("alice", wait_s=10).approved


def test_a_camera_lost_in_a_session_comes_back_by_the_ladder_and_the_session_captures(
    running: Terminal, client: AgentClient
) -> None:
    running.camera.broken = "camera_unavailable"
    record = client.verify("alice", search_timeout_s=30)
    until(lambda: [e["state"] for e in events(running, record.id)] == ["lost"], "the loss was not noticed")
    running.camera.broken = None
    assert client.get(record.id, wait_s=30).approved
    assert client.status()["camera"]["steps_taken"]["reopen"] >= 1
    assert [e["state"] for e in events(running, record.id)] == ["lost", "ok"]
    assert [e["state"] for e in events(running, None)] == ["lost", "ok"]
    assert client.ready()


@pytest.mark.parametrize(
    ("fault", "pause_s"),
    [pytest.param(FrameLoop, 60, id="a recording is played, which is not mended by opening"),
     pytest.param(CameraFrozen, 0.1, id="frozen for good")],
)  # fmt: skip
def test_pictures_that_no_sensor_delivers_fail_the_session_with_their_code_and_count_against_nobody(
    running: Terminal,
    client: AgentClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: type[FrameFault],
    pause_s: float,
) -> None:
    def faulty(_timeout_s: float) -> Frame:
        raise fault("cannot use the pictures of noise: made up", retryable=True)

    monkeypatch.setattr("edge_agent.filming.LOST_S", 3 * pause_s)
    monkeypatch.setattr("edge_agent.filming.REOPEN_PAUSE_S", pause_s)
    monkeypatch.setattr(running.camera, "read", faulty)
    for _ in range(2):  # the terminal is no further from a lock-out than before
        record = client.verify("alice", search_timeout_s=40, wait_s=20)
        assert record.error is not None
        assert (record.state, record.error.code, record.reasons) == (State.FAILED, fault.code, [])
    assert [e["state"] for e in events(running, record.id)] == ["lost"]
    assert events(running, None)[0]["code"] == fault.code
    assert running.agent.tally.failures[fault.code] == 2
    assert any(
        getattr(r, "event", "") == "camera_lost" and getattr(r, "fields", {}) == {"code": fault.code}
        for r in caplog.records
    )
    monkeypatch.undo()
    assert client.verify("alice", wait_s=10).approved


def test_a_frozen_camera_that_opening_mends_goes_on(
    running: Terminal, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_timeout_s: float) -> Frame:
        monkeypatch.undo()
        raise CameraFrozen("cannot use the pictures of noise: made up", retryable=True)

    monkeypatch.setattr(running.camera, "read", faulty)
    record = client.verify("alice", search_timeout_s=30, wait_s=30)
    assert record.approved
    assert [e["state"] for e in events(running, record.id)] == ["lost", "ok"]
    assert running.camera.opened >= 2


def test_a_session_that_never_ends_fails_and_the_terminal_goes_on(
    running: Terminal, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.filming.OVERTIME_S", 0.1)
    monkeypatch.setattr(camerakeeper, "HUNG_S", 0.2)
    released = threading.Event()
    monkeypatch.setattr(running.camera, "read", lambda _: released.wait(10))
    record = client.verify("alice", search_timeout_s=1, wait_s=10)
    assert record.state is State.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.detail) == ("camera_unavailable", "filming did not end in time")
    until(lambda: not client.ready(), "a driver that hangs is no fault")
    assert "has not returned" in client.status()["camera"]["detail"]
    assert running.agent.heartbeats.late() == {}
    monkeypatch.undo()
    released.set()
    until(client.ready, "it does not come back")
    assert client.verify("alice", wait_s=10).approved


def test_another_camera_by_a_reload_leaves_the_session_its_own(running: Terminal, client: AgentClient) -> None:
    running.camera_devices = {None}
    started = client.verify("alice", search_timeout_s=5)
    running.file.write_text(running.text(camera={"device": "/dev/video9"}))
    client.reload()
    assert client.get(started.id, wait_s=10).approved
    with pytest.raises(ApiError, match="cannot open /dev/video9"):
        client.verify("alice")


@pytest.mark.parametrize("state", ["idle", "searching", "waiting"])
def test_the_end_for_the_camera_waits_for_whoever_is_served(running: Terminal, client: AgentClient, state: str) -> None:
    if state == "searching":
        running.camera.broken = "camera_stalled"
        client.verify("alice", search_timeout_s=3)
    if state == "waiting":
        assert client.verify("alice", wait_s=10).approved

    async def asked() -> bool:
        return running.agent._verifications.end_if_idle()

    assert running.run(asked()) is (state == "idle")
    if state == "idle":
        with pytest.raises(ApiError) as refused:
            client.verify("alice")
        assert refused.value.code == "stopping"
        running.agent._verifications.go_on()
        assert client.verify("alice", wait_s=10).approved


@pytest.mark.parametrize("managed", [True, False])
def test_the_daemon_ends_in_order_with_the_code_of_a_faulty_device_where_systemd_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, managed: bool
) -> None:
    async def turn(keeper: Camerakeeper) -> None:
        assert (keeper.ending is not None) is managed
        if keeper.ending is None:
            os.kill(os.getpid(), 15)
        elif keeper.ending.hold():
            keeper.ending.end()

    monkeypatch.setattr(Camerakeeper, "turn", turn)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    if managed:
        monkeypatch.setenv("INVOCATION_ID", "5a9db0c0")
    monkeypatch.setattr("edge_agent.daemon.setup_logging", lambda _: None)
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    done = CliRunner().invoke(run, ["--config", str(write_config(tmp_path))], catch_exceptions=False)
    assert (done.exit_code, left) == (0, [3] if managed else [])
    assert not (tmp_path / "api.sock").exists()


def test_a_camera_that_is_watched_is_open_for_whoever_comes_and_its_loss_is_known_before(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camerakeeper, "PROBE_S", 0.05)
    watch = {"between_sessions": "watch", "watch_fps": 20.0}

    with terminal(tmp_path, sandbox, camera=watch) as t, t.client() as pos:

        def watched() -> bool:
            told = pos.status()["camera"]
            return bool(told["watched"]) and told["still_s"] is not None

        until(watched, "it is not watched")
        assert (t.camera.opened, sum(t.agent.frames.values())) == (1, 0), "nothing is judged"
        assert pos.verify("alice", wait_s=10).approved
        until(watched, "it is not watched after a session")
        assert t.camera.opened == 2, "the session had the open one, and the watch opened it again"
        t.camera.broken = "camera_unavailable"
        until(lambda: not pos.ready(), "nobody noticed")
        assert not pos.status()["camera"]["watched"]
        t.camera.broken = None
        until(lambda: pos.ready() and watched(), "it does not come back")
    assert not t.camera.is_open


@pytest.mark.parametrize("patience_s", [30.0, 0.05])
def test_a_slow_driver_keeps_nobodys_capture_from_being_durable_nor_for_long_from_its_verdict(
    running: Terminal, client: AgentClient, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    closing, closed, close = threading.Event(), threading.Event(), running.camera.close

    def slow() -> None:
        closing.set()
        closed.wait(20)
        close()

    monkeypatch.setattr(verifications, "CLOSING_S", patience_s)
    monkeypatch.setattr(running.camera, "close", slow)
    record = client.verify("alice")
    assert closing.wait(20)
    if patience_s < 1:
        until(lambda: client.get(record.id).approved, "its verdict waits for the driver")
    else:
        until(lambda: client.get(record.id).state is State.CAPTURED, "it waits for the driver")
    with pytest.raises(ApiError) as refused:
        client.verify("bob")
    assert refused.value.code == "busy", "nobody else begins until it has closed"
    closed.set()
    assert client.get(record.id, wait_s=20).approved
    until(lambda: not running.camera.is_open, "it is not closed")
