"""Whether CypherFace can be used now, and what that means for forwarding as a whole. No IO: told what happened, it says.

Four states. *unknown*: nothing was tried yet. *online*. *offline*: nothing usable answered; one capture (or a token
request) at a time is the probe, with a back-off of its own, however many captures wait. *stopped*: the service answers
but our credentials or settings do not fit it; everything stays queued and one capture is tried every 15 minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from edge_agent.errors import CypherFaceError, Transient
from edge_agent.retry import Retry, decide

PROBE_S = 900.0
"""A stopped forwarder tries one capture this often."""
MAX_PROBE_S = 30.0
"""While the network is down something is tried at least this often."""
SAME_ERROR_USERS = 3
"""The same permanent error for so many users, with no success between, is our fault and not theirs."""
REBUILD_AFTER = 5
"""So many failed probes in a row: the HTTP client itself may be what is stuck (its pool, its resolver, its TLS)."""

Network = Literal["unknown", "online", "offline", "stopped"]


@dataclass(slots=True)
class ForwarderStatus:
    """What the forwarder can say of itself (for status and metrics)."""

    network: Network = "unknown"
    stopped_code: str | None = None
    """Why forwarding stopped, while it is stopped."""
    last_error: str | None = None
    last_success_at: datetime | None = None
    active: int = 0


@dataclass(slots=True)
class _Suspects:
    """Captures parked with one permanent error since the last success, per user."""

    code: str = ""
    parked: dict[str, set[str]] = field(default_factory=dict)
    """Verification ids by user."""


class Availability:
    """Told of every answer and failure; ``status`` is what others read."""

    def __init__(
        self, *, on_change: Callable[[Network, Network], None], rng: random.Random, clock: Callable[[], float]
    ) -> None:
        """``on_change``: (before, now). ``clock``: monotonic seconds."""
        self.status = ForwarderStatus()
        self._on_change = on_change
        self._rng = rng
        self._clock = clock
        self._suspects = _Suspects()
        self._next_probe_s = 0.0
        self._held_until_s = 0.0
        self._failed_probes = 0

    @property
    def down(self) -> bool:
        """Offline or stopped: one at a time."""
        return self.status.network in {"offline", "stopped"}

    @property
    def begin_in_s(self) -> float:
        """Seconds until the backlog may be touched again."""
        at_s = max(self._held_until_s, self._next_probe_s) if self.down else self._held_until_s
        return max(0.0, at_s - self._clock())

    @property
    def wants_fresh_client(self) -> bool:
        """True at every ``REBUILD_AFTER``-th failed probe in a row."""
        return self._failed_probes > 0 and self._failed_probes % REBUILD_AFTER == 0

    def try_now(self) -> None:
        """An operator or a reload: no more waiting, also when forwarding had stopped."""
        self._next_probe_s = self._held_until_s = 0.0

    def network_came_up(self) -> None:
        """An address or a route came: an outage may be over, so the next probe is due. A stop is not about the network."""
        if self.status.network == "offline":
            self._next_probe_s = 0.0

    def succeeded(self) -> None:
        """A verdict came."""
        self._suspects = _Suspects()
        self.status.last_success_at = datetime.now(UTC)
        self.set("online")

    def answered(self) -> None:
        """The service was reached; what it said, or was too slow to say, is about one capture only."""
        self.set("online")

    def unreachable(self, error: CypherFaceError) -> None:
        """Nothing usable answered."""
        self._failed_probes += 1
        decision = decide(error, self._failed_probes, rng=self._rng)
        pause_s = min(decision.after_s, MAX_PROBE_S) if isinstance(decision, Retry) else MAX_PROBE_S
        self._next_probe_s = self._clock() + pause_s
        if self.status.network != "stopped":  # an outage does not lift a stop
            self.set("offline")

    def hold(self, seconds: float) -> None:
        """A plea to wait is about the service: the whole backlog heeds it; a customer's capture is tried all the same."""
        self._held_until_s = max(self._held_until_s, self._clock() + seconds)

    def stop(self, code: str) -> bool:
        """Stop forwarding; True when it had not been stopped before."""
        before = self.status.network
        self.status.stopped_code = code
        self._next_probe_s = self._clock() + PROBE_S
        self.set("stopped")
        return before != "stopped"

    def suspect(self, user_hmac: str, verification_id: str, code: str) -> set[str] | None:
        """Note a permanent error of one capture.

        At the third user with the same one it is our fault: the ids suspected so far, to be queued again. Until then None.
        """
        if self._suspects.code != code:
            self._suspects = _Suspects(code)
        self._suspects.parked.setdefault(user_hmac, set()).add(verification_id)
        if len(self._suspects.parked) < SAME_ERROR_USERS:
            return None
        suspects, self._suspects = self._suspects, _Suspects()
        return set().union(*suspects.parked.values())

    def set(self, network: Network) -> None:
        """Change the state, and say so when it is another one."""
        before, self.status.network = self.status.network, network
        if network == "online":
            self.status.stopped_code = None
            self._failed_probes = 0
        if network != before:
            self._on_change(before, network)


def unreachable(error: CypherFaceError, *, uploaded: bool) -> bool:
    """True when CypherFace was not reached: no answer at all, or one of somebody in between.

    ``uploaded``: the picture was taken in this very sequence. A match that then times out is slow, not cut off: one
    capture that always times out must not pass for an outage again and again.
    """
    if not isinstance(error, Transient) or (uploaded and error.code == "timeout"):
        return False
    return error.code == "captive_portal" or error.status is None
