"""Verifications of a running daemon, timed from the request to the capture that is durable."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edge_agent.api.wire import VerificationBody
from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import EnvironmentFault
from edge_agent.types import State
from scripts.benches.daemons import DEADLINE_S, Daemon

BUSY_S = 0.01
Seen = tuple[float, str, str]
"""Monotonic time of its arrival, verification, state."""


@dataclass(frozen=True, slots=True)
class Filmed:
    """One verification."""

    id: str
    seconds: float
    """From before the request to the event that tells of the capture, which comes after its commit."""
    answered_s: float
    """Of it until the request was answered: the camera is open then, and the record stored."""


class Sessions:
    """Begins verifications and hears of their states."""

    def __init__(self, client: AgentClient, seen: queue.Queue[Seen]) -> None:
        self.client = client
        self._seen = seen
        self._states: list[Seen] = []

    def film(self, user: str) -> Filmed:
        """Raises TimeoutError; RuntimeError where nothing qualifies."""
        began_s, record = self._begin(user)
        answered_s = time.monotonic() - began_s
        captured_s = self.wait(record.id, {State.CAPTURED})
        return Filmed(record.id, captured_s - began_s, answered_s)

    def _begin(self, user: str) -> tuple[float, VerificationBody]:
        """When the request was made that was taken: the session before may still be closing its camera."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            began_s = time.monotonic()
            try:
                return began_s, self.client.verify(user, wait_s=0.0)
            except ApiError as exc:
                if exc.code != "busy" or began_s > deadline_s:
                    raise
                time.sleep(BUSY_S)

    def wait(self, verification_id: str, states: set[State]) -> float:
        """When the verification came to one of ``states``."""
        wanted = {state.value for state in states}
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            for at_s, of, state in self._states:
                if of == verification_id and state in wanted:
                    return at_s
                if of == verification_id and state == State.REJECTED.value:
                    raise RuntimeError("the gate refuses the picture")
            try:
                self._states.append(self._seen.get(timeout=max(0.0, deadline_s - time.monotonic())))
            except queue.Empty:
                raise TimeoutError from None


@contextmanager
def sessions(running: Daemon) -> Iterator[Sessions]:
    """With an ear on the events of all verifications."""
    seen: queue.Queue[Seen] = queue.Queue()
    with running.client() as client, running.client() as ear:
        listening = threading.Thread(target=_listen, args=(ear, seen), name="events", daemon=True)
        listening.start()
        yield Sessions(client, seen)


def _listen(client: AgentClient, seen: queue.Queue[Seen]) -> None:
    """Until the daemon ends, or the client is closed."""
    try:
        for event in client.events():
            if event.kind == "state":
                data: dict[str, Any] = event.data
                seen.put((time.monotonic(), str(data["verification_id"]), str(data["state"])))
    except (EnvironmentFault, RuntimeError):
        return
