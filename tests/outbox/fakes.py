"""A clock under the test's control, and short ways to make and drive captures."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge_agent.outbox import Store
from edge_agent.outbox.records import Environment, Leased, Limits, NewVerification, Verdict, VerificationRecord

KEY = bytes(range(32))
ENVIRONMENT = Environment("https://staging.example/", "0123456789abcdef01234567")
OTHER_ENVIRONMENT = Environment("https://production.example/", "0123456789abcdef01234567")
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass
class FakeClock:
    """Starts 100 s after a boot, wall clock right and synchronised."""

    wall_now: datetime = NOON
    boottime: float = 100.0
    boot: str = "boot-1"
    sync: bool = True
    boots: int = field(default=1, repr=False)
    asleep_s: float = 0.0
    """Of this boot, in suspend: CLOCK_BOOTTIME counts it, ``time.monotonic()`` does not."""

    def wall(self) -> datetime:
        return self.wall_now

    def boottime_s(self) -> float:
        return self.boottime

    def monotonic_s(self) -> float:
        return self.boottime - self.asleep_s

    def boot_id(self) -> str:
        return self.boot

    def synchronised(self) -> bool:
        return self.sync

    def advance(self, seconds: float) -> None:
        self.boottime += seconds
        self.wall_now += timedelta(seconds=seconds)

    def suspend(self, seconds: float) -> None:
        self.advance(seconds)
        self.asleep_s += seconds

    def reboot(self, *, off_s: float = 0.0, wall: datetime | None = None, sync: bool = True) -> None:
        """Another boot after ``off_s`` without power; ``wall`` is what the board then believes."""
        self.boots += 1
        self.boot = f"boot-{self.boots}"
        self.boottime = 5.0
        self.asleep_s = 0.0
        self.wall_now = wall or self.wall_now + timedelta(seconds=off_s)
        self.sync = sync


def plenty(_: Path) -> int:
    return 1 << 40


def open_store(folder: Path, clock: FakeClock, *, reserve_bytes: int = 0, **options: Any) -> Store:
    """``reserve_bytes`` is what counts, not that of ``limits``: hundreds of tests need no 32 MB file each."""
    options = {"machine": "this machine", "free_bytes": plenty, "limits": Limits(), **options}
    options["limits"] = replace(options["limits"], reserve_bytes=reserve_bytes)
    return Store.open(folder, options.pop("key", KEY), clock=clock, **options)


def reopen(store: Store, folder: Path, clock: FakeClock, **options: Any) -> Store:
    """As after a crash: nothing of the old instance is used, then the start as the daemon does it."""
    crash(store)
    fresh = open_store(folder, clock, **options)
    fresh.recover()
    return fresh


def crash(store: Store) -> None:
    """Let the connection and the lock go without the orderly end of ``close``."""
    store._closing.close()


def request(user: str = "alice", **values: Any) -> NewVerification:
    defaults: dict[str, Any] = {
        "user_id": user,
        "caller": "uid:1000",
        "idempotency_key": f"key-{next(_numbers)}",
        "body": b'{"user_id": "..."}',
        "environment": ENVIRONMENT,
        "search_timeout_s": 20.0,
        "verdict_timeout_s": 15.0,
    }
    return NewVerification(**(defaults | values))


def picture(name: str = "a", size: int = 2000) -> bytes:
    """Bytes without any repetition, so that a slice of them is found only where they are."""
    blocks = (hashlib.sha256(f"{name}/{n}".encode()).digest() for n in itertools.count())
    return b"".join(itertools.islice(blocks, size // 32 + 1))[:size]


def search(store: Store, /, user: str = "alice", **values: Any) -> VerificationRecord:
    return store.create(request(user, **values))[0]


def capture(store: Store, /, user: str = "alice", jpeg: bytes | None = None, **values: Any) -> VerificationRecord:
    record = search(store, user, **values)
    return store.commit_capture(record.id, jpeg or picture(record.id), quality_score=0.8, liveness_score=0.97)


def pending(store: Store, /, user: str = "alice", **values: Any) -> VerificationRecord:
    return store.pend(capture(store, user, **values).id)


def lease(store: Store, /, **values: Any) -> Leased:
    leased = store.lease_next(ENVIRONMENT, **{"lease_s": 600.0, **values})
    assert leased is not None
    return leased


def upload(store: Store, leased: Leased, name: str | None = None) -> str:
    name = name or f"image-{next(_numbers)}"
    store.record_upload(leased.record.id, leased.lease, name)
    return name


def verdict(leased: Leased, image_name: str, *, positive: bool = True, **values: Any) -> Verdict:
    sha256 = leased.record.image_sha256
    assert sha256
    defaults: dict[str, Any] = {"http_status": 200, "matched_field": "match", "similarity": 99.5}
    return Verdict(positive, image_name=image_name, image_sha256=sha256, **(defaults | values))


def finish(store: Store, leased: Leased, *, positive: bool = True) -> VerificationRecord:
    """Upload and verdict."""
    name = upload(store, leased)
    return store.commit_verdict(leased.record.id, leased.lease, verdict(leased, name, positive=positive))
