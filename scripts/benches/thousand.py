"""Sessions of a whole agent on a made-up clock, in a process of its own: ``python -m scripts.benches.thousand``.

Real are the API, the sessions, the outbox, the forwarder and HTTP to a sandbox; made up are the clock, which every
frame turns on, and what the models see. Arguments: FOLDER, SESSIONS, the sandbox's URL and its API key. Prints one
JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from edge_agent.bench import service
from edge_agent.bench.ground import resident_mb
from edge_agent.client import AgentClient
from edge_agent.types import Frame, State
from tests.outbox.fakes import FakeClock
from tests.terminal import NoiseCamera, Terminal

FPS = 30.0
USERS = tuple(f"bench-{number}" for number in range(20))
"""Enrolled already."""
PATIENCE_S = 30.0


class TurningCamera(NoiseCamera):
    """Every read is a frame, and the time that lies between two."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def read(self, timeout_s: float) -> Frame:
        del timeout_s
        self._index += 1
        self._clock.advance(1.0 / FPS)
        return Frame(self._pixels, self._clock.monotonic_s(), self._index)


def run(folder: Path, count: int, url: str, api_key: str) -> dict[str, list[float]]:
    """Of every session the processor's seconds of this process and its memory afterwards, MB."""
    clock, credentials = FakeClock(), SimpleNamespace(api_key=api_key, merchant_id=service.MERCHANT_ID)
    rules = {"search_timeout_s": 20.0, "capture_window_s": 1.0, "hint_hold_s": 0.5}
    terminal = Terminal(folder, url, credentials, session=rules)
    terminal.clock, terminal.camera = clock, TurningCamera(clock)
    cpu_s, memory_mb = [], []
    with terminal, terminal.client() as client:
        for number in range(count):
            began_s = time.process_time()
            _verify(client, USERS[number % len(USERS)])
            cpu_s.append(time.process_time() - began_s)
            memory_mb.append(resident_mb())
    return {"cpu_s": cpu_s, "memory_mb": memory_mb}


def _verify(client: AgentClient, user: str) -> None:
    """Until the verdict. Raises RuntimeError for any but a positive one."""
    record = client.verify(user, wait_s=PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S
    while not record.final and time.monotonic() < deadline_s:
        record = client.get(record.id, wait_s=PATIENCE_S)
    if record.state is not State.VERIFIED:
        raise RuntimeError(f"cannot measure: a session is {record.state.value}: {record.reasons} {record.error}")


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])))
