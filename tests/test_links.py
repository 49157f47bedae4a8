"""The kernel's word that the network changed, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import links
from edge_agent.links import LinkWatch, something_came

ROOT = Path(__file__).resolve().parents[1]

WATCHER = """
import asyncio
from edge_agent.links import LinkWatch

async def main():
    changed = asyncio.Event()
    watch = LinkWatch(changed.set)
    assert watch.start()
    print("listening", flush=True)
    async with asyncio.timeout(10):
        await changed.wait()
    print("changed", flush=True)
    watch.close()

asyncio.run(main())
"""


def message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=LHHLL", 16 + len(body), kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("messages", "came"),
    [
        (message(20), True),
        (message(24, b"x" * 12), True),
        (message(16) + message(24), True),
        (message(17, b"odd") + b"\0" + message(20), True),
        (message(21), False),
        (message(25), False),
        (b"", False),
        (b"\0" * 16, False),
        (b"short", False),
    ],
)
def test_only_what_came_counts(messages: bytes, came: bool) -> None:
    assert something_came(messages) is came


def test_an_interface_that_comes_up_is_told() -> None:
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if not unshare or not ip or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare, ip and permission for a network namespace")
    script = 'exec 3< <("$1" -c "$2"); read line <&3; echo "$line"; ip link set lo up; cat <&3'
    found = subprocess.run(
        [unshare, "-rn", "bash", "-c", script, "bash", sys.executable, WATCHER],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=True,
    )
    assert found.stdout.split() == ["listening", "changed"], found.stderr


def test_a_closed_watch_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_SETTLE_S", 0.01)
    calls: list[int] = []

    async def scenario() -> None:
        watch = LinkWatch(lambda: calls.append(1))
        if not watch.start():
            pytest.skip("no netlink here")
        watch._pending = asyncio.get_running_loop().call_later(0.01, watch._settled)
        watch.close()
        await asyncio.sleep(0.03)

    asyncio.run(scenario())
    assert calls == []


def test_where_the_kernel_does_not_tell_the_probes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    async def scenario() -> None:
        monkeypatch.setattr("socket.socket", refuse)
        watch = LinkWatch(lambda: None)
        assert watch.start() is False
        watch.close()
        monkeypatch.undo()

    asyncio.run(scenario())
