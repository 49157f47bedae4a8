"""``edge-agent config apply`` as a process, against the daemon as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import AgentError, EnvironmentFault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import JsonObject
from tests.test_daemon import daemon, edge_agent, wait_for, write_config

WATCH = ("--watch-s", "0.5")
PATIENCE_S = 30.0


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with SandboxServer() as sandbox:
        path = write_config(tmp_path, sandbox.base_url)
        values = yaml.safe_load(path.read_text())
        values["cypherface"] |= {"merchant_id": sandbox.credentials.merchant_id, "upload_hosts": [sandbox.host]}
        values["outbox"]["reserve_bytes"] = 0
        (tmp_path / "api.key").write_text(sandbox.credentials.api_key)
        path.write_text(yaml.safe_dump(values))
        path.chmod(0o640)
        yield path


@pytest.fixture
def running(config: Path) -> Iterator[subprocess.Popen[str]]:
    with daemon(config) as process:
        wait_for(process, socket(config))
        yield process


def socket(config: Path) -> Path:
    return config.parent / "api.sock"


def candidate(config: Path, **sections: Any) -> Path:
    """A changed copy of the configuration, as a file of its own."""
    values = yaml.safe_load(config.read_text())
    for section, change in sections.items():
        values[section] = {**values.get(section, {}), **change} if isinstance(change, dict) else change
    path = config.parent / "candidate.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def apply(config: Path, file: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return edge_agent("config", "apply", file, "--config", config, *options)


@contextmanager
def applying(config: Path, file: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command, running."""
    command = [sys.executable, "-m", "edge_agent", "config", "apply", str(file), "--config", str(config), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def trial(config: Path) -> JsonObject | None:
    try:
        with AgentClient(socket(config)) as client:
            return client.config_trial()
    except (ApiError, EnvironmentFault):
        return None


def reaches(config: Path, *phases: str) -> JsonObject:
    """The trial in one of these phases."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = trial(config)
        if found is not None and found["phase"] in phases:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def runs_yaw(config: Path) -> float:
    """What the daemon itself says of the difference between ``max_yaw_deg: 1`` and what it runs."""
    with AgentClient(socket(config)) as client:
        client.apply_config(candidate(config, gate={"max_yaw_deg": 1.0}).read_text())
        changes = {change["key"]: change["old"] for change in client.config_trial()["changes"]}
        client.revert_config()
    return float(changes["gate.max_yaw_deg"])


def test_a_healthy_configuration_is_applied_and_put_in_place(running: Any, config: Path) -> None:
    before = config.read_text()
    file = candidate(config, gate={"max_yaw_deg": 7.0}, cypherface={"min_similarity": 80.0})
    done = apply(config, file, *WATCH)
    assert (done.returncode, done.stdout) == (0, "applied\n"), done.stderr
    assert "gate.max_yaw_deg: 20.0 -> 7.0" in done.stderr
    assert "cypherface.min_similarity: (none) -> 80.0" in done.stderr
    assert config.read_text() == file.read_text()
    assert config.stat().st_mode & 0o777 == 0o640
    assert (config.parent / "config.yaml.previous").read_text() == before
    assert runs_yaw(config) == 7.0


@pytest.mark.parametrize(
    ("section", "key", "value", "why"),
    [
        ("cypherface", "api_key", {"file": "/no/such/key"}, "forwarding stopped: secret_missing"),
        ("cypherface", "ca_bundle", "/no/such.pem", "cannot use cypherface.ca_bundle /no/such.pem"),
        ("cypherface", "base_url", "http://127.0.0.1:9/", "CypherFace cannot be reached any more"),
        ("models", "pack", "no-such-pack", "no-such-pack"),
    ],
)
def test_an_unhealthy_configuration_is_rolled_back_and_never_in_the_file(
    running: Any, config: Path, section: str, key: str, value: Any, why: str
) -> None:
    before = config.read_text()
    file = candidate(config, **{section: {key: value}, "gate": {"max_yaw_deg": 7.0}})
    done = apply(config, file, *WATCH, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["outcome"]) == (1, "rolled_back")
    assert why in answer["reason"]
    changed = next(change for change in answer["changes"] if change["key"] == f"{section}.{key}")
    assert changed["new"] == value
    assert config.read_text() == before
    assert not (config.parent / "config.yaml.previous").exists()
    assert runs_yaw(config) == 20.0


def test_an_invalid_file_is_refused_before_anything_happens(running: Any, config: Path) -> None:
    file = config.parent / "candidate.yaml"
    file.write_text(config.read_text() + "sesion: {}\n")
    done = apply(config, file)
    assert done.returncode == 2
    assert "sesion: unknown key (did you mean session?)" in done.stderr
    as_json = apply(config, file, "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["problems"][0]["key"]) == (2, "sesion")
    assert trial(config) is None


def test_a_key_that_needs_a_restart_is_refused_without_one(running: Any, config: Path) -> None:
    done = apply(config, candidate(config, terminal_id="pos-9"))
    assert done.returncode == 2
    assert "cannot apply without a restart: terminal_id" in done.stderr
    assert "--restart" in done.stderr


def test_a_restart_is_not_asked_for_where_nobody_would_start_it_again(running: Any, config: Path) -> None:
    done = apply(config, candidate(config, terminal_id="pos-9"), "--restart")
    assert done.returncode == 3
    assert "does not run under systemd" in done.stderr


def test_an_agent_of_another_file_is_left_alone(running: Any, config: Path) -> None:
    other = config.parent / "other.yaml"
    other.write_text(config.read_text())
    done = apply(other, candidate(config, gate={"max_yaw_deg": 7.0}))
    assert done.returncode == 3
    assert f"the agent runs {config}" in done.stderr


def test_without_a_daemon_the_file_is_only_put_in_place(config: Path) -> None:
    file = candidate(config, gate={"max_yaw_deg": 7.0})
    done = apply(config, file)
    assert (done.returncode, done.stdout) == (0, "put in place: no agent runs: nothing was tried out\n")
    assert "gate.max_yaw_deg: 20.0 -> 7.0" in done.stderr
    assert config.read_text() == file.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["watching", "healthy"])
def test_an_interrupted_command_rolls_back_at_once(
    running: Any, config: Path, signum: signal.Signals, phase: str
) -> None:
    before = config.read_text()
    options = ("--watch-s", "60") if phase == "watching" else (*WATCH, "--confirm-within", "60")
    with applying(config, candidate(config, gate={"max_yaw_deg": 7.0}), *options) as command:
        assert command.stderr is not None
        assert "gate.max_yaw_deg" in command.stderr.readline()
        reaches(config, phase)
        command.send_signal(signum)
        out, _ = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, out) == (1, "rolled back: it was called off\n")
    assert config.read_text() == before
    assert runs_yaw(config) == 20.0


def test_a_killed_command_is_rolled_back_by_the_daemon(running: Any, config: Path) -> None:
    before = config.read_text()
    options = ("--watch-s", "0.2", "--confirm-within", "2")
    with applying(config, candidate(config, gate={"max_yaw_deg": 7.0}), *options) as command:
        reaches(config, "watching", "healthy")
        command.kill()
        command.wait()
    assert reaches(config, "rolled_back")["reason"] == "nobody confirmed it in time"
    assert config.read_text() == before
    assert runs_yaw(config) == 20.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see test_daemon
def test_a_daemon_that_is_killed_in_the_window_starts_with_the_file(config: Path) -> None:
    with daemon(config) as first:
        wait_for(first, socket(config))
        with applying(config, candidate(config, gate={"max_yaw_deg": 7.0}), "--watch-s", "60") as command:
            assert command.stderr is not None
            assert "gate.max_yaw_deg" in command.stderr.readline()
            first.kill()
            first.wait()
            with daemon(config) as second:
                wait_for(second, socket(config))
                out, _ = command.communicate(timeout=PATIENCE_S)
                assert (command.returncode, out) == (1, "rolled back: the agent was restarted meanwhile\n")
                assert runs_yaw(config) == 20.0


def test_a_confirmation_in_time_keeps_it(running: Any, config: Path) -> None:
    file = candidate(config, gate={"max_yaw_deg": 7.0})
    with applying(config, file, *WATCH, "--confirm-within", "60") as command:
        reaches(config, "watching", "healthy")
        confirmed = edge_agent("config", "confirm", "--config", config)
        assert (confirmed.returncode, confirmed.stdout) == (0, "applied\n"), confirmed.stderr
        out, err = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, out) == (0, "applied\n")
    assert "edge-agent config confirm" in err
    assert config.read_text() == file.read_text()
    assert runs_yaw(config) == 7.0


def test_a_missing_confirmation_rolls_back_and_one_that_comes_late_says_so(running: Any, config: Path) -> None:
    before = config.read_text()
    file = candidate(config, gate={"max_yaw_deg": 7.0})
    done = apply(config, file, *WATCH, "--confirm-within", "1")
    assert (done.returncode, done.stdout) == (1, "rolled back: nobody confirmed it in time\n")
    late = edge_agent("config", "confirm", "--config", config)
    assert late.returncode == 1
    assert "no configuration is on trial" in late.stderr
    assert config.read_text() == before


# -- with a restart ---------------------------------------------------------------------------------------------------


class ServiceManager(threading.Thread):
    """Starts the daemon again whenever it ends, as systemd does with Restart=always."""

    def __init__(self, config: Path) -> None:
        super().__init__(daemon=True)
        self._config = config
        self._ended = False
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(self._config)]
        while not self._ended:
            self.process = subprocess.Popen(
                command, env={**os.environ, "INVOCATION_ID": "1"}, stderr=subprocess.DEVNULL
            )
            self.starts += 1
            self.process.wait()

    def end(self) -> None:
        self._ended = True
        if self.process is not None:
            self.process.terminate()
        self.join(PATIENCE_S)


@pytest.fixture
def managed(config: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(config)
    manager.start()
    until_it_answers(socket(config))
    yield manager
    manager.end()


def until_it_answers(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with AgentClient(path) as client:
                client.status()
                return
        except AgentError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def terminal_id(path: Path) -> str:
    with AgentClient(path) as client:
        return str(client.status()["terminal_id"])


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see test_daemon


def test_a_restart_runs_the_candidate_and_keeps_it_when_it_is_healthy(managed: ServiceManager, config: Path) -> None:
    file = candidate(config, terminal_id="pos-9", api={"socket": str(config.parent / "moved.sock")})
    done = apply(config, file, *WATCH, "--restart")
    assert (done.returncode, done.stdout) == (0, "applied\n"), done.stderr
    assert config.read_text() == file.read_text()
    assert terminal_id(config.parent / "moved.sock") == "pos-9"
    assert managed.starts == 2


UNHEALTHY: list[tuple[str, dict[str, Any], str]] = [
    ("device key", {"outbox": {"key": {"env": "NO_SUCH_KEY"}}}, "store is missing: secret_missing"),
    ("socket", {"api": {"socket": "/proc/none/api.sock"}}, "cannot listen on /proc/none/api.sock"),
]


@pytest.mark.parametrize(("name", "changes", "why"), UNHEALTHY, ids=[name for name, _, _ in UNHEALTHY])
def test_a_candidate_that_is_unhealthy_after_its_restart_is_rolled_back(
    managed: ServiceManager, config: Path, name: str, changes: dict[str, Any], why: str
) -> None:
    del name
    before = config.read_text()
    done = apply(config, candidate(config, terminal_id="pos-9", **changes), *WATCH, "--restart")
    assert done.returncode == 1, done.stderr
    assert why in done.stdout
    until_it_answers(socket(config))
    assert terminal_id(socket(config)) == "pos-0001"
    assert config.read_text() == before


def test_a_candidate_that_is_killed_after_its_restart_is_rolled_back(managed: ServiceManager, config: Path) -> None:
    with applying(config, candidate(config, terminal_id="pos-9"), "--watch-s", "60", "--restart") as command:
        reaches(config, "watching")
        assert terminal_id(socket(config)) == "pos-9"
        assert managed.process is not None
        managed.process.kill()
        out, _ = command.communicate(timeout=PATIENCE_S)
    assert (command.returncode, out) == (1, "rolled back: the agent was restarted meanwhile\n")
    assert terminal_id(socket(config)) == "pos-0001"


def test_nobody_confirming_after_a_restart_restarts_again_with_the_file(managed: ServiceManager, config: Path) -> None:
    file = candidate(config, terminal_id="pos-9")
    done = apply(config, file, *WATCH, "--restart", "--confirm-within", "1")
    assert (done.returncode, done.stdout) == (1, "rolled back: nobody confirmed it in time\n")
    wait: Callable[[], bool] = lambda: managed.starts == 3  # noqa: E731
    deadline = time.monotonic() + PATIENCE_S
    while not wait():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    until_it_answers(socket(config))
    assert terminal_id(socket(config)) == "pos-0001"


def test_sighup_reads_the_file_again(running: subprocess.Popen[str], config: Path) -> None:
    config.write_text(candidate(config, gate={"max_yaw_deg": 7.0}).read_text())
    running.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_S
    with AgentClient(socket(config)) as client:
        while client.status()["configuration"]["reloads"]["succeeded"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert runs_yaw(config) == 7.0
