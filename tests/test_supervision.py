"""What the service manager is told: ready when the API answers, alive only while every loop turns."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import supervision
from edge_agent.health import Heartbeats
from edge_agent.sandbox.server import SandboxServer
from edge_agent.supervision import Supervisor
from tests.terminal import terminal
from tests.test_daemon import write_config


class Manager:
    """The other end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(20)

    def hear(self) -> str:
        return self._socket.recv(4096).decode()

    def heard(self) -> list[str]:
        """Everything that is waiting."""
        self._socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.hear())
        except BlockingIOError:
            return found
        finally:
            self._socket.settimeout(20)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    try:
        yield made
    finally:
        made.close()


class Loops:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.hearts = Heartbeats(clock=lambda: self.now_s)


def test_a_loop_that_turns_is_not_late_and_one_that_hangs_is() -> None:
    loops = Loops()
    fast = loops.hearts.expect("fast", within_s=10)
    loops.hearts.expect("slow", within_s=100)
    for _ in range(5):
        loops.now_s += 9
        fast()
    assert loops.hearts.late() == {}
    loops.now_s += 11
    assert loops.hearts.late() == {"fast": 11.0}


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_what_it_is_told(tmp_path: Path, abstract: bool) -> None:
    with manager(f"@edge-agent-test-{os.getpid()}" if abstract else str(tmp_path / "notify")) as listener:
        told = Supervisor(listener.environment)
        told.ready()
        told.status("ready;\n online")
        told.status("ready; online")
        told.status("degraded")
        told.stopping()
        assert listener.heard() == [
            "READY=1",
            "STATUS=ready; online",
            "STATUS=degraded",
            "STOPPING=1\nSTATUS=stopping",
        ]


def test_without_a_manager_nothing_happens() -> None:
    told = Supervisor({})
    told.ready()
    told.alive()
    assert told.watchdog_s is None


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).alive()


@pytest.mark.parametrize(
    ("environment", "expected_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_is_meant_for_us(
    environment: dict[str, str], expected_s: float | None
) -> None:
    assert Supervisor(environment).watchdog_s == expected_s


def test_the_watchdog_is_fed_only_while_every_loop_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FEED_S", 0.01)
    loops = Loops()
    beat = loops.hearts.expect("forwarder", within_s=120)

    async def scenario(listener: Manager) -> None:
        feeding = asyncio.create_task(Supervisor(listener.environment).feed(loops.hearts, lambda: "ready"))
        await asyncio.sleep(0.05)
        assert set(listener.heard()) == {"STATUS=ready", "WATCHDOG=1"}
        loops.now_s += 121
        await asyncio.sleep(0.03)
        listener.heard()
        await asyncio.sleep(0.05)
        assert listener.heard() == []
        beat()
        await asyncio.sleep(0.05)
        assert set(listener.heard()) == {"STATUS=ready", "WATCHDOG=1"}
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)

    with manager(str(tmp_path / "notify")) as listener:
        asyncio.run(scenario(listener))


def test_a_daemon_without_camera_and_network_is_ready_fed_and_says_what_is_missing(tmp_path: Path) -> None:
    config = write_config(tmp_path, models={"pack": "open", "dir": str(tmp_path / "nothing")})
    with manager(str(tmp_path / "notify")) as listener:
        environment = {**os.environ, **listener.environment, "WATCHDOG_USEC": "300000"}
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            said: list[str] = []
            while not any(text.startswith("STATUS=degraded") for text in said) or said.count("WATCHDOG=1") < 3:
                said.append(listener.hear())
            process.terminate()
            assert process.wait(20) == 0
        assert "READY=1" in said
        assert any("models (models_missing)" in text for text in said)
        assert "STOPPING=1\nSTATUS=stopping" in listener.heard()


def test_the_loops_of_a_running_agent_beat(tmp_path: Path) -> None:
    with SandboxServer() as sandbox, terminal(tmp_path, sandbox) as t:
        hearts: Any = t.agent.heartbeats
        assert set(hearts._limits_s) == {"outbox", "forwarder", "camera"}
        before = {
            loop: beaten_s for loop, beaten_s in hearts._beaten_s.items() if loop != "camera"
        }  # that turns in 5 s
        forwarder = t.agent.forwarder
        assert forwarder is not None
        t._loop.call_soon_threadsafe(forwarder.wake)
        t._loop.call_soon_threadsafe(t.agent.keeper._wake.set)
        for _ in range(1000):
            if all(hearts._beaten_s[loop] > before[loop] for loop in before):
                break
            t.run(asyncio.sleep(0.005))
        assert all(hearts._beaten_s[loop] > before[loop] for loop in before)
        assert t.agent.describe().startswith("ready; CypherFace")
