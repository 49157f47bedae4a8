"""``edge-agent simulate`` as a process: its line, its banner, what it loads, what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from edge_agent.cli.simulate import simulate
from edge_agent.client import AgentClient
from edge_agent.errors import InputError
from edge_agent.simulator import outcomes

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
