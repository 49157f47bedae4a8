"""Claim time and memory as the queue grows: a short queue and a long one by turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bench.figures import Spread, spread, timed
from edge_agent.bench.ground import resident_mb
from edge_agent.bench.queue import ENVIRONMENT, BenchStore

SHORT_ROWS = 10
ROW_BYTES = 1000
_ROWS_PER_USER = 20
_FEWEST_USERS = 5
LEASE_S = 600.0
_AN_HOUR_S = 3600.0
_WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Depth:
    """With so many rows queued."""

    rows: int
    claim: Spread
    """``lease_next`` and ``release``, two commits."""
    short: Spread
    """The same in the queue of ten rows, in between."""
    backed_off: Spread
    """The same while half of the users (at most as many as claims) wait for their back-off."""
    begin_s: float
    """Opening and recovering the store, as at the start of the daemon."""
    resident_mb: float
    """Of the measuring process, after all that."""

    @property
    def ratio(self) -> float:
        """Claiming from this queue to claiming from the short one, of the medians."""
        return self.claim.median_ms / self.short.median_ms


def measure(
    folder: Path, key: bytes, rows: Sequence[int], claims: int, tell: Callable[[str], None] = lambda _: None
) -> list[Depth]:
    """Grow one queue through ``rows`` (ascending)."""
    short = BenchStore.begin(folder / "short", key)
    with short:
        short.fill(SHORT_ROWS, _users(SHORT_ROWS), ROW_BYTES)
        depths, queued = [], 0
        for wanted in rows:
            tell(f"queueing {wanted} rows")
            queued = _grow(folder / "long", key, queued, wanted)
            depths.append(_depth(folder / "long", key, short, queued, claims))
        return depths


def _users(rows: int) -> int:
    return max(_FEWEST_USERS, rows // _ROWS_PER_USER)


def _grow(state_dir: Path, key: bytes, queued: int, wanted: int) -> int:
    with BenchStore.begin(state_dir, key) as store:
        store.fill(wanted - queued, _users(wanted), ROW_BYTES)
    return wanted


def _depth(state_dir: Path, key: bytes, short: BenchStore, rows: int, claims: int) -> Depth:
    begin_s, long = timed(lambda: BenchStore.begin(state_dir, key))
    with long:
        pairs = [(_claim(long), _claim(short)) for _ in range(claims + _WARM_UP)][_WARM_UP:]
        for _ in range(min(claims, _users(rows) // 2)):
            _claim(long, back_off_s=_AN_HOUR_S)
        backed_off = [_claim(long) for _ in range(claims)]
        long.retry_now(ENVIRONMENT)
        return Depth(
            rows,
            spread([pair[0] for pair in pairs]),
            spread([pair[1] for pair in pairs]),
            spread(backed_off),
            begin_s,
            resident_mb(),
        )


def _claim(store: BenchStore, back_off_s: float = 0.0) -> float:
    """Seconds for one lease and its release."""
    return timed(lambda: _lease_and_release(store, back_off_s))[0]


def _lease_and_release(store: BenchStore, back_off_s: float) -> None:
    leased = store.lease_next(ENVIRONMENT, lease_s=LEASE_S)
    if leased is None:
        raise AssertionError("a queue with nothing to claim")
    store.release(leased.record.id, leased.lease, next_attempt_in_s=back_off_s, code="bench")
