"""``edge-agent run`` as a child: on a camera that replays, beside a service that cannot be reached or a sandbox."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_agent.client import AgentClient
from edge_agent.errors import AgentError
from scripts.benches.stage import Stage

DEADLINE_S = 60.0
NOBODY = {"base_url": "http://127.0.0.1:9/", "merchant_id": "0" * 24, "upload_hosts": ["127.0.0.1:9"]}
"""A service that cannot be reached."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running one."""

    pid: int
    socket: Path
    log: Path
    began_s: float
    """Wall clock at the creation of its process."""

    def cpu_s(self) -> float:
        """Processor time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, key: str = "VmRSS") -> float:
        """MB of 10^6 bytes."""
        found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found.group(1)) * 1024 / 1e6 if found else 0.0

    def client(self) -> AgentClient:
        return AgentClient(self.socket)


@contextmanager
def daemon(
    stage: Stage, pack: str, *, camera: dict[str, Any] | None = None, service: dict[str, Any] | None = None
) -> Iterator[Daemon]:
    """Started, not yet waited for; ended in the end. ``service`` holds keys of the section cypherface."""
    with tempfile.TemporaryDirectory(dir=stage.folder) as name:
        folder = Path(name)
        config = _configuration(folder, stage, pack, camera or {}, {**NOBODY, **(service or {})})
        began_s = time.time()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(config)],
                cwd=folder,
                env=stage.environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield Daemon(process.pid, folder / "api.sock", folder / "log", began_s)
        except TimeoutError as exc:
            raise SystemExit(f"bench: the daemon does not do it\n{(folder / 'log').read_text()}") from exc
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(running: Daemon) -> None:
    """Raises TimeoutError."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(AgentError), running.client() as client:
            if client.ready():
                return
        time.sleep(0.05)
    raise TimeoutError


def _configuration(folder: Path, stage: Stage, pack: str, camera: dict[str, Any], service: dict[str, Any]) -> Path:
    """A replay for a camera, an outbox on this disk."""
    api_key = str(service.pop("api_key", "11" * 32))
    for name, text in (("device.key", "11" * 32), ("api.key", api_key)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    settings = {
        "state_dir": str(folder / "state"),
        "api": {"socket": str(folder / "api.sock")},
        "camera": {"source": "replay", "path": str(stage.clip), **camera},
        "models": {"pack": pack, "dir": str(stage.models)},
        "cypherface": {**service, "api_key": {"file": str(folder / "api.key")}},
        "outbox": {"key": {"file": str(folder / "device.key")}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
