"""A store in all its states, ways to damage its files, and what a salvage of them must hold."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edge_agent.outbox import Store
from edge_agent.outbox.records import AuditHead, SalvageReport
from edge_agent.outbox.salvage import salvage
from edge_agent.types import State
from tests.outbox.fakes import (
    ENVIRONMENT,
    KEY,
    FakeClock,
    capture,
    finish,
    lease,
    open_store,
    pending,
    picture,
    search,
    upload,
)

PAGE = 4096
PICTURE_BYTES = 6000
OPEN = {State.CAPTURED, State.MATCHING, State.PENDING}


@dataclass
class Known:
    """What the store said before the damage."""

    states: dict[str, State] = field(default_factory=dict)
    pictures: set[str] = field(default_factory=set)
    users: dict[str, str | None] = field(default_factory=dict)
    head: AuditHead | None = None
    records: int = 0


def populate(store: Store, users: int = 6) -> None:
    """About 40 captures, in every state that the store can bring them into."""
    for number in range(36):
        if number == 18:
            store._database.truncate_log()
        user = f"user-{number % users}"
        jpeg = picture(f"jpeg {number}", PICTURE_BYTES)
        pending(store, user, jpeg=jpeg, reference=f"order {number}")
        if number % 6 == 0:
            finish(store, lease(store), positive=number % 12 == 0)
    park(store, "user-parked")
    store.reject(search(store, "user-rejected").id, ["spoof_suspected"])
    store.cancel(search(store, "user-cancelled").id)
    store.fail(search(store, "user-failed").id, "camera_unavailable", "it hung")
    store.withdraw(pending(store, "user-withdrawn").id)
    pending(store, "user-deleted")
    store.delete_user("user-deleted")
    upload(store, lease(store), "image of the leased one")
    capture(store, "user-captured", picture("captured", PICTURE_BYTES))
    search(store, "user-searching")


def park(store: Store, user: str) -> None:
    record = capture(store, user, picture("parked", PICTURE_BYTES))
    leased = store.lease_one(record.id, lease_s=600)
    assert leased is not None
    store.park(record.id, leased.lease, code="unknown_user")


def know(store: Store) -> Known:
    records = store.list(limit=10_000)
    report = store.verify_audit()
    assert store.verify().ok and report.ok
    return Known(
        states={record.id: record.state for record in records},
        pictures={record.id for record in records if record.image_bytes},
        users={record.id: record.user_id for record in records},
        head=report.head,
        records=report.records,
    )


@cache
def jpegs() -> frozenset[bytes]:
    numbered = {picture(f"jpeg {number}", PICTURE_BYTES) for number in range(36)}
    return frozenset(numbered) | {picture(name, PICTURE_BYTES) for name in ("parked", "captured")}


# -- damage


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def garbage(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def root_page(database: Path, name: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        page: int = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
    return page


def pages_of(database: Path, blobs: list[bytes]) -> set[int]:
    """Pages (from 1) that hold the blobs, found by slices and not through any structure."""
    content = database.read_bytes()
    slices = [blob[at : at + 64] for blob in blobs for at in range(0, max(1, len(blob) - 64), 256)]
    places = [(content.find(piece), len(piece)) for piece in slices]
    return {(at + n) // PAGE + 1 for at, size in places if at >= 0 for n in (0, size - 1)}


def pages_by_capture(store: Store, database: Path) -> dict[str, set[int]]:
    """For every capture that waits: the pages its row, its picture and its user's key are on."""
    sql = (
        "SELECT v.id, v.mac, p.row_key, p.picture, u.wrapped_key, u.user_id FROM verifications v"
        " JOIN payloads p USING (seq) JOIN users u USING (user_hmac)"
    )
    rows: list[Any] = store._database.execute(sql).fetchall()
    return {row["id"]: pages_of(database, list(row)[1:]) for row in rows}


@dataclass(frozen=True)
class Wreck:
    """Two copies of one store, as a crash leaves them, to be damaged."""

    flat: Path
    """Everything in the database file."""
    logged: Path
    """About half of it in the write-ahead log only."""
    known: Known
    pages: dict[str, set[int]]
    """By capture, in ``flat``."""

    def copy(self, to: Path, *, logged: bool = False) -> Path:
        shutil.copytree(self.logged if logged else self.flat, to)
        return to


def build(folder: Path) -> Wreck:
    clock = FakeClock()
    with open_store(folder / "live", clock) as store:
        store.recover()
        populate(store)
        known = know(store)
        # copied while it is open: the last connection would empty the log when it closes
        shutil.copytree(folder / "live", folder / "logged")
        assert store._database.truncate_log()
        shutil.copytree(folder / "live", folder / "flat")
        pages = pages_by_capture(store, folder / "flat" / "outbox.db")
    return Wreck(folder / "flat", folder / "logged", known, pages)


# -- the oracle


def salvaged(state_dir: Path, clock: FakeClock, **options: Any) -> SalvageReport:
    return salvage(state_dir, KEY, clock=clock, **options)


def check_sound(store: Store, known: Known, report: SalvageReport) -> None:
    """What holds after any salvage, whatever was damaged."""
    assert store.verify().problems == {}
    audit = store.verify_audit()
    assert (audit.ok, audit.problem) == (True, None)
    assert set(report.audit_gaps) <= set(audit.gaps)
    records = {record.id: record for record in store.list(limit=10_000)}
    assert set(records) <= set(known.states)
    assert report.tables["verifications"].kept == len(records)
    assert report.captures_kept == store.queue().payload_items + sum(
        records[key].state is State.FAILED and not records[key].image_bytes for key in report.states_lost
    )
    for key, record in records.items():
        if record.image_bytes:
            assert store.payload(key) in jpegs()
        if key in report.captures_lost:
            assert (record.state, record.error_code, record.image_bytes) == (State.FAILED, "capture_lost", 0)
        elif key in report.states_lost:
            assert (record.state, record.error_code) == (State.FAILED, "state_lost")


def check_intact(store: Store, known: Known, keys: set[str]) -> None:
    """These captures came through as they were (a lease is void after any restart)."""
    for key in keys:
        record = store.get(key)
        before = State.CAPTURED if known.states[key] is State.MATCHING else known.states[key]
        assert (record.state, record.user_id) == (before, known.users[key])
        assert len(store.payload(key)) == PICTURE_BYTES


def forward_some(store: Store, clock: FakeClock, most: int = 5) -> None:
    """Forward the first few of what waits (each costs several syncs), and see that nothing was in their way."""
    clock.advance(10_000)
    waiting = store.queue().depth
    for _ in range(min(most, waiting)):
        leased = store.lease_next(ENVIRONMENT, lease_s=60)
        assert leased is not None
        assert store.payload(leased.record.id) in jpegs()
        finish(store, leased)
    assert store.queue().depth == max(0, waiting - most)
