"""Whether the running agent is well: it answers, and misses nothing that it did not miss before."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 1.0
CALM_S = 5.0
"""It must be well for so long: one that dies right after its first answer is not."""
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """What /v1/ready said."""

    ready: bool
    missing: frozenset[str]
    """Parts that are missing; not ready and nothing missing = it still starts."""

    def no_worse_than(self, before: Health | None) -> bool:
        """Without a before, an answer after the start is enough: camera, models and network may come later."""
        if self.ready:
            return True
        if not self.missing:
            return False
        return before is None or (not before.ready and self.missing <= before.missing)

    def __str__(self) -> str:
        if self.ready:
            return "ready"
        return f"degraded (missing: {', '.join(sorted(self.missing))})" if self.missing else "starting"


Look = Callable[[], Health | None]
"""None: nobody answers."""


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("edge-agent", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def look(path: Path) -> Health | None:
    """Ask the agent behind the socket; None when it does not answer, or with something else."""
    connection = _OverSocket(path)
    try:
        connection.request("GET", "/v1/ready")
        body = json.loads(connection.getresponse().read())
        return Health(bool(body["ready"]), frozenset(body["missing"]))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Doctor:
    """Waits for health; the clock and the waiting can be replaced."""

    look: Look
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self, before: Health | None, within_s: float) -> str | None:
        """None once it has been well for CALM_S; else why it is not well after ``within_s``."""
        end_s = self.clock() + within_s
        well_since_s: float | None = None
        seen: Health | None = None
        while self.clock() <= end_s:
            seen = self.look()
            well = seen is not None and seen.no_worse_than(before)
            well_since_s = (self.clock() if well_since_s is None else well_since_s) if well else None
            if well_since_s is not None and self.clock() - well_since_s >= CALM_S:
                return None
            self.sleep(POLL_S)
        if seen is None:
            return f"its API did not answer within {within_s:.0f} s"
        return f"it is {seen} after {within_s:.0f} s, and was {before or 'not running'} before"
