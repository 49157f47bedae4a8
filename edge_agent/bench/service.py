"""The sandbox as a process of its own, deciding by rule: the service for the drain."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.config import CypherFaceSection
from edge_agent.errors import EnvironmentFault

MERCHANT_ID = "0123456789abcdef01234567"
_STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Service:
    """A running sandbox."""

    base_url: str
    upload_host: str
    api_key: str = field(repr=False)

    def settings(self, folder: Path) -> CypherFaceSection:
        """For a client of it; the API key is put into a file in ``folder``."""
        file = folder / "api.key"
        file.write_text(self.api_key, encoding="ascii")
        file.chmod(0o600)
        return CypherFaceSection.model_validate(
            {
                "base_url": self.base_url,
                "merchant_id": MERCHANT_ID,
                "api_key": {"file": str(file)},
                "upload_hosts": [self.upload_host],
            }
        )


@contextmanager
def running(folder: Path) -> Iterator[Service]:
    """Started, and stopped in the end; its log goes into ``folder``."""
    api_key = secrets.token_hex(16)
    command = [sys.executable, "-m", "edge_agent", "sandbox", "--port", "0", "--matcher", "rule"]
    command += ["--merchant-id", MERCHANT_ID, "--api-key", api_key]
    with (folder / "sandbox.log").open("wb") as log, _process(command, log.fileno()) as process:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise EnvironmentFault("cannot measure the drain: the sandbox did not start", code="sandbox_failed")
        ready = json.loads(line)
        yield Service(ready["base_url"], ready["upload_host"], api_key)


@contextmanager
def _process(command: list[str], stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=_STOP_S)
