"""``edge-agent simulate`` as a process: its line, its banner, what it loads, what it leaves behind."""

from __future__ import annotations

import json
import os
import socket as socketlib
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.cli.simulate import simulate
from edge_agent.client import AgentClient
from edge_agent.errors import EnvironmentFault, InputError
from edge_agent.simulator import outcomes
from tests.simulator.conftest import simulator

TELLING = """
import atexit, sys
atexit.register(lambda: print(*sorted(m for m in sys.modules if m.startswith(("onnx", "edge_agent.vision"))), sep="\\n"))
from edge_agent.cli import main
main()
"""


def test_it_announces_itself_serves_and_leaves_nothing_behind_when_its_parent_ends(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    socket = tmp_path / "s.sock"
    command = [sys.executable, "-c", TELLING, "simulate", "--json", "--stop-with-stdin", "--speed", "20"]
    with subprocess.Popen(
        [*command, "--socket", str(socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        assert ready == {
            "event": "ready",
            "simulator": True,
            "ready": True,
            "socket": str(socket),
            "tcp": None,
            "tokens": {},
            "default": "verified",
            "speed": 20.0,
            "lockout": False,
            "state_dir": None,
        }
        assert len(list(folder.iterdir())) == 1
        with AgentClient(socket) as client:
            assert client.verify("alice", wait_s=30).captured_at is not None
        try:
            loaded, said = process.communicate(timeout=30)  # closes its standard input
        finally:
            process.kill()  # in vain, when all is well
    assert process.returncode == 0
    assert not {"onnxruntime", "edge_agent.vision.runtime", "edge_agent.vision.pipeline"} & set(loaded.split())
    assert "edge_agent.vision.capture" in loaded.split()
    assert "SIMULATOR: nobody is filmed" in said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []
    assert not socket.exists()


def test_the_outcomes_are_listed_and_an_unknown_default_is_refused() -> None:
    listed = CliRunner().invoke(simulate, ["--outcomes"])
    assert listed.output.strip() == outcomes.table()
    refused = CliRunner().invoke(simulate, ["--default", "sure"])
    assert isinstance(refused.exception, InputError)
    assert refused.exception.exit_code == 2


@pytest.mark.parametrize("address", ["0.0.0.0:8470", "8470", "localhost:8470", ""])
def test_an_address_that_no_terminal_would_take_is_a_mistake_of_usage(address: str, tmp_path: Path) -> None:
    refused = CliRunner().invoke(simulate, ["--socket", str(tmp_path / "s.sock"), "--tcp", address])
    assert isinstance(refused.exception, InputError)
    assert refused.exception.exit_code == 2
    assert refused.exception.message.startswith(f"cannot listen on {address!r}: it must be a")


def test_what_another_simulator_has_is_not_announced(tmp_path: Path) -> None:
    """Its port would answer with the other one's tokens, and its state cannot be opened twice."""
    with simulator(tmp_path) as socket, socketlib.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for options in (["--tcp", taken], ["--state-dir", str(socket.parent / "kept")]):
            refused = subprocess.run(
                [sys.executable, "-m", "edge_agent", "simulate", "--json", "--socket", str(tmp_path / "b.sock"), *options],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert (refused.returncode, refused.stdout) == (EnvironmentFault.exit_code, ""), refused
            assert "edge-agent: cannot " in refused.stderr
            assert "SIMULATOR" not in refused.stderr
            assert not (tmp_path / "b.sock").exists()
