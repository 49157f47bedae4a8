"""When to try again after CypherFace failed: pure arithmetic, returned as a decision.

Back-off is exponential with full jitter (a wait drawn evenly between a floor and a growing, capped ceiling), which
spreads a fleet that lost its network together; see Marc Brooker, "Exponential Backoff And Jitter", AWS, 2015.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.errors import CaptureRefused, CypherFaceError, SequenceConflict, Transient


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the whole sequence again after this time."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Park:
    """Give this capture up; only an operator reopens it."""

    code: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop forwarding altogether, keep everything queued, alert."""

    code: str


Decision = Retry | Park | Stop


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between floor_s and base_s * 2 ** (attempts - 1), the latter capped."""

    floor_s: float
    base_s: float
    cap_s: float

    def ceiling_s(self, attempts: int) -> float:
        """The longest wait after this many failures (1 = the first)."""
        doublings = min(max(attempts - 1, 0), 32)  # the cap is reached long before; 2 ** attempts would overflow
        return min(self.cap_s, self.base_s * 2.0**doublings)

    def wait_s(self, attempts: int, rng: random.Random) -> float:
        """A wait drawn evenly between the floor and the ceiling."""
        return rng.uniform(self.floor_s, self.ceiling_s(attempts))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The numbers of ``decide``."""

    transient: Backoff = Backoff(floor_s=0.5, base_s=2.0, cap_s=300.0)
    """Server or network: for as long as the capture may live."""
    conflict: Backoff = Backoff(floor_s=0.25, base_s=1.0, cap_s=30.0)
    """Out of step: the service may still be processing the picture, a short wait often suffices."""
    max_conflicts: int = 5
    """Sequences of one capture that may end in a conflict; the last one parks it."""
    max_retry_after_s: float = 3600.0
    """A longer ``Retry-After`` is cut to this."""


DEFAULT_POLICY = RetryPolicy()


def decide(
    error: CypherFaceError, attempts: int, *, rng: random.Random, policy: RetryPolicy = DEFAULT_POLICY
) -> Decision:
    """What to do after a sequence of one capture failed.

    ``attempts``: how many sequences of this capture have failed in the *same way* as this one, this one included (at
    least 1): for Transient those in a row, for SequenceConflict all of them. Keep the two counts apart, or a long
    outage would use up the few conflicts that a capture may have.
    """
    if attempts < 1:
        raise ValueError(f"cannot decide after {attempts} attempts: at least one has failed")
    if isinstance(error, Transient):
        return Retry(_obeying(error, policy.transient.wait_s(attempts, rng), policy))
    if isinstance(error, SequenceConflict):
        if attempts >= policy.max_conflicts:
            return Park(error.code)
        return Retry(_obeying(error, policy.conflict.wait_s(attempts, rng), policy))
    if isinstance(error, CaptureRefused):
        return Park(error.code)
    return Stop(error.code)


def _obeying(error: CypherFaceError, wait_s: float, policy: RetryPolicy) -> float:
    """Never earlier than ``Retry-After`` asks; our own jitter comes on top, or the whole fleet returns at once."""
    if error.retry_after_s is None:
        return wait_s
    return min(max(error.retry_after_s, 0.0), policy.max_retry_after_s) + wait_s
