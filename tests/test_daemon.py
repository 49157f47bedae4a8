"""The daemon as a process: start, signals, the command line as its client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from skimage import data

from edge_agent.client import AgentClient
from edge_agent.errors import EnvironmentFault
from edge_agent.outbox import Store
from edge_agent.outbox.clock import SystemClock
from edge_agent.sandbox.server import SandboxServer
from tests.outbox.fakes import pending, picture
from tests.outbox.wreck import garbage, overwrite

START_S = 60.0


def write_config(folder: Path, url: str = "http://127.0.0.1:9/", **sections: Any) -> Path:
    (folder / "device.key").write_text("33" * 32)
    (folder / "api.key").write_text("5a9db0c0-ffee-4000-8000-5a9db0c0ffee")
    for name in ("device.key", "api.key"):
        (folder / name).chmod(0o600)
    config: dict[str, Any] = {
        "state_dir": str(folder / "state"),
        "api": {"socket": str(folder / "api.sock")},
        "camera": {"source": "none"},
        "cypherface": {
            "base_url": url,
            "merchant_id": "5a9db0c0ffee5a9db0c0ffee",
            "api_key": {"file": str(folder / "api.key")},
            "upload_hosts": ["127.0.0.1:9"],
        },
        "outbox": {"key": {"file": str(folder / "device.key")}},
        **sections,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def edge_agent(*arguments: object, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", "--config", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], socket: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            with AgentClient(socket) as client:
                if client.status()["started"]:
                    return
                time.sleep(0.05)
        except EnvironmentFault:
            time.sleep(0.05)
    raise AssertionError("the daemon did not answer")


def test_it_serves_degraded_without_camera_models_and_network_and_says_what_is_missing(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")
        shown = edge_agent("status", "--config", config)
        assert shown.returncode == 1
        assert "degraded" in shown.stdout
        assert "edge-agent models fetch open" in shown.stdout
        refused = edge_agent("verify", "alice", "--config", config)
        assert (refused.returncode, refused.stdout) == (3, "")
        assert "edge-agent models fetch open" in refused.stderr


def test_logs_can_be_json_lines(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, log={"format": "json"})) as process:
        wait_for(process, tmp_path / "api.sock")
        process.terminate()
        _, errors = process.communicate(timeout=20)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert any(line["level"] == "error" and line["code"] == "models_missing" for line in lines)
    assert {"at", "level", "logger", "message"} <= lines[0].keys()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, signum: signal.Signals) -> None:
    with daemon(write_config(tmp_path)) as process:
        wait_for(process, tmp_path / "api.sock")
        process.send_signal(signum)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert not (tmp_path / "api.sock").exists()


# httpcore forgets to close a Unix socket whose connect was refused; the garbage collector does it, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_daemon_starts_again_over_its_stale_socket(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")
        process.kill()
        process.wait()
    assert (tmp_path / "api.sock").exists()
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")
        second = edge_agent("run", "--config", config)
    assert second.returncode == 3
    assert "another agent answers there" in second.stderr


def test_nothing_but_the_state_directory_and_the_socket_is_written(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")
        written = {path.name for path in tmp_path.iterdir()} - before
    assert written == {"state", "api.sock"}
    assert list(home.iterdir()) == []
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "state").rglob("*") if p.is_file()} == {"0o600"}


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("run",), 2, "cannot read the configuration"),
        (("config", "check"), 2, "cannot read the configuration"),
        (("status",), 2, "cannot read the configuration"),
    ],
)
def test_a_missing_configuration_is_a_usage_error(
    tmp_path: Path, command: tuple[str, ...], code: int, said: str
) -> None:
    done = edge_agent(*command, "--config", tmp_path / "none.yaml")
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_that_does_not_run_is_an_environment_error(tmp_path: Path) -> None:
    done = edge_agent("verify", "alice", "--socket", tmp_path / "none.sock")
    assert done.returncode == 3
    assert "cannot reach the agent" in done.stderr
    assert "is it running?" in done.stderr


@pytest.mark.packs
def test_verify_shows_hints_live_and_ends_with_the_verdict(tmp_path: Path, open_pack_dir: Path) -> None:
    scene = tmp_path / "scene.png"
    face = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR), (973, 973), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(scene), (face * 0.12).astype(np.uint8))
    with SandboxServer() as sandbox:
        sandbox.enrol("alice", b"source")
        config = write_config(
            tmp_path,
            sandbox.base_url,
            camera={"source": "replay", "path": str(scene), "size": [1024, 1024], "fps": 15.0},
            models={"pack": "open", "dir": str(open_pack_dir)},
            session={"search_timeout_s": 60.0, "capture_window_s": 0.3},
            gate={"max_track_gap_s": 30.0},
        )
        settings = yaml.safe_load(config.read_text())
        settings["cypherface"]["upload_hosts"] = [sandbox.host]
        config.write_text(yaml.safe_dump(settings))
        with daemon(config) as process:
            wait_for(process, tmp_path / "api.sock")
            command = [sys.executable, "-m", "edge_agent", "verify", "alice", "--json", "--config", str(config)]
            verifying = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert verifying.stderr is not None
            hints = []
            for line in verifying.stderr:
                hints.append(line.strip())
                if "too dark" in line:
                    brighter = tmp_path / "brighter.png"
                    cv2.imwrite(str(brighter), face)
                    os.replace(brighter, scene)  # noqa: PTH105 - the rename is the point
            answer = json.loads(verifying.stdout.read() if verifying.stdout else "")
            verifying.communicate()
    assert "It is too dark: please turn towards the light." in hints
    assert hints[-1] == "verified"
    assert verifying.returncode == 0
    assert (answer["state"], answer["approved"]) == ("verified", True)


def test_a_daemon_over_a_corrupt_outbox_salvages_it_and_serves(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with Store.open(tmp_path / "state", b"33" * 32, clock=SystemClock()) as store:
        made = pending(store)
    overwrite(tmp_path / "state/outbox.db", 0, garbage(4096))
    with daemon(config) as process:
        wait_for(process, tmp_path / "api.sock")
        with AgentClient(tmp_path / "api.sock") as client:
            status = client.status()
        assert status["storage"]["salvaged"] == {"kept": 1, "lost": []}
        assert status["queue"]["depth"] == 1
        verified = edge_agent("outbox", "verify", "--json", "--config", config)
        assert (verified.returncode, json.loads(verified.stdout)["pictures"]) == (0, 1)
        audited = edge_agent("audit", "verify", "--json", "--config", config)
        assert json.loads(audited.stdout)["ok"]
    with Store.open(tmp_path / "state", b"33" * 32, clock=SystemClock()) as store:
        assert store.payload(made.id) == picture(made.id)
