"""``edge-agent sandbox`` as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from edge_agent.cli.sandbox import sandbox
from edge_agent.errors import AgentError, ConfigurationError, EnvironmentFault
from edge_agent.sandbox.server import SandboxServer, bind

COMMAND = [sys.executable, "-m", "edge_agent", "sandbox", "--port", "0", "--matcher", "rule"]


@contextmanager
def running(*options: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[dict[str, Any]]:
    """The process, once it is ready; stopped at the end, with exit code 0 unless it was killed."""
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(stop)
            rest, errors = process.communicate(timeout=20)
    assert rest == "", "one line on stdout and no more"
    assert "Traceback" not in errors
    assert process.returncode == (-stop if stop == signal.SIGKILL else 0)


def log_in(ready: dict[str, Any], http: httpx.Client) -> httpx.Response:
    headers = {"merchantId": ready["merchant_id"], "x-api-key": "secret-key"}
    return http.post("/api/access-token/", headers=headers)


def test_it_announces_itself_serves_and_stops_cleanly():
    options = ["--api-key", "secret-key", "--merchant-id", "b" * 24, "--set", "token_field=token"]
    fault = ["--fault", '{"step": "token", "kind": "status", "status": 503}']
    with running(*options, *fault) as ready, httpx.Client(base_url=ready["base_url"], trust_env=False) as http:
        assert ready["event"] == "ready"
        assert ready["base_url"] == f"http://{ready['upload_host']}/"
        assert ready["merchant_id"] == "b" * 24
        assert ready["matcher"] == "rule"
        assert log_in(ready, http).status_code == 503
        assert list(log_in(ready, http).json()) == ["token"]
        assert http.get(ready["docs"]).status_code == 200


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_enrolled_people_are_still_there_after_a_restart(tmp_path: Path, stop: signal.Signals):
    body = {"userId": "alice", "imageName": "a.jpg", "contentType": "image/jpeg", "type": "upload"}
    options = ["--state", str(tmp_path), "--api-key", "secret-key"]
    with running(*options, stop=stop) as ready, httpx.Client(base_url=ready["base_url"], trust_env=False) as http:
        token = log_in(ready, http).json()["accessToken"]
        answer = http.post("/api/upload/generate-url/", headers={"authorization": token}, json=body)
        http.put(answer.json()["url"], content=b"source", headers={"content-type": "image/jpeg"})
    with running(*options) as ready, httpx.Client(base_url=ready["base_url"], trust_env=False) as http:
        answer = http.post("/api/upload/generate-url/", headers={"authorization": token}, json=body)
        assert answer.status_code == 409


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "token_field"], "write NAME=VALUE"),
        (["--set", "token_field=jwt"], "token_field: Input should be"),
        (["--set", "tokenfield=token"], "tokenfield: Extra inputs"),
        (["--set", "url_valid_s=[60"], "not valid YAML"),
        (["--fault", "{}"], "step: Field required; kind: Field required"),
        (["--fault", "hang"], "Invalid JSON"),
    ],
)
def test_wrong_options_are_usage_errors(options: list[str], message: str):
    result = CliRunner().invoke(sandbox, ["--port", "0", "--matcher", "rule", *options])
    assert isinstance(result.exception, ConfigurationError)
    assert message in result.exception.message


def test_a_missing_pack_is_an_environment_error_and_frees_the_port(tmp_path: Path):
    result = CliRunner().invoke(sandbox, ["--port", "0", "--models-dir", str(tmp_path)])
    assert isinstance(result.exception, AgentError)
    assert result.exception.exit_code == 3
    assert "edge-agent models fetch" in (result.exception.hint or "")


def test_a_taken_port_is_an_environment_error():
    with SandboxServer() as server, pytest.raises(EnvironmentFault, match="Address already in use") as caught:
        bind("127.0.0.1", server.port)
    assert caught.value.hint == "give another port with --port; 0 takes a free one"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_other_addresses_are_refused(host: str):
    with pytest.raises(ConfigurationError, match=r"this machine only|not a loopback address"):
        bind(host, 0).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_addresses_are_accepted(host: str):
    with bind(host, 0) as listener:
        assert listener.getsockname()[0].startswith("127.")


def test_the_variants_can_be_listed():
    result = CliRunner().invoke(sandbox, ["--variants"])
    assert result.exit_code == 0
    assert "mismatch_style" in result.output
