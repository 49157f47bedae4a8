"""What an operator does with the queue: look, retry, purge, take a picture out. Everything but looking is audited.

``actor`` is who does it: ``uid:1000`` through the API, ``uid:0 via files`` on the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edge_agent.errors import InputError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.core import QUEUED
from edge_agent.outbox.records import Environment, VerificationRecord
from edge_agent.outbox.rotation import Rotating
from edge_agent.outbox.rows import Row
from edge_agent.types import State

_MAX_SEQ = (1 << 63) - 1
_BATCH = 200
"""Rows per transaction where many may change: bounds the write-ahead log."""


@dataclass(frozen=True, slots=True)
class WaitingList:
    """One page of what holds a picture, the newest first."""

    items: tuple[VerificationRecord, ...]
    running_s: float
    """The running clock now: what ``next_attempt_running_s`` is compared with."""
    next_before: int | None = None
    """Give this as ``before`` for the next page; None on the last one."""
    unreadable: tuple[str, ...] = ()
    """Ids of this page that did not authenticate: ``verify`` says why, ``purge`` removes them."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One audit record about a verification."""

    seq: int
    at: str
    """Wall clock, ISO 8601 UTC."""
    event: str
    from_state: str | None
    to_state: str | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """One verification and all that happened to it."""

    record: VerificationRecord
    running_s: float
    history: tuple[HistoryEntry, ...]


@dataclass(frozen=True, slots=True)
class Retried:
    """What an operator's retry changed."""

    hurried: int = 0
    """Captures whose back-off was ended."""
    reopened: int = 0
    """Parked captures that are queued again."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge destroyed."""

    captures: int
    bytes: int
    traces_left: bool
    """True when a reader kept old pages in the write-ahead log; ``tick`` tries again."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A picture in clear: biometric data."""

    record: VerificationRecord
    picture: bytes = field(repr=False)


def history_entry(row: Row) -> HistoryEntry:
    """An audit row as people read it."""
    detail = json.loads(row["detail"])
    return HistoryEntry(row["seq"], row["at"], row["event"], row["from_state"], row["to_state"], detail)


class Custody(Rotating):
    """Operations of the operator."""

    def waiting_list(self, *, limit: int = 100, before: int | None = None, parked: bool | None = None) -> WaitingList:
        """What holds a picture, the newest first; ``parked`` picks those set aside, or those that are not."""
        values = {"before": _MAX_SEQ if before is None else before, "limit": limit + 1}
        only = None if parked is None else int(parked)
        with self._database.reading():
            now = self._now()
            rows = self._query("with_picture", only_parked=only, **values).fetchall()
            page = rows[:limit]
            records = {row["id"]: self._record(row, now) for row in page if self._readable(row, now)}
            return WaitingList(
                items=tuple(records.values()),
                running_s=now.running_s,
                next_before=page[-1]["seq"] if len(rows) > limit else None,
                unreadable=tuple(row["id"] for row in page if row["id"] not in records),
            )

    def describe(self, verification_id: str) -> Description:
        """Any verification with its history. Raises InputError ``not_found``, StorageError ``tampered``."""
        with self._database.reading():
            now = self._now()
            record = self._record(self._find(verification_id), now)
            history = self._query("audit_of", id=verification_id).fetchall()
            return Description(record, now.running_s, tuple(history_entry(row) for row in history))

    def retry(self, verification_id: str, *, actor: str) -> Retried:
        """A parked capture is queued again; the back-off of a waiting one ends. Raises StateConflict for others."""
        with self._change() as now:
            row = self._find(verification_id)
            if row["parked"]:
                return Retried(reopened=self._changes("reopen", row, now, actor))
            if State(row["state"]) not in QUEUED:
                self._must(None, row, now, "retry")
            return Retried(hurried=self._changes("hurry", row, now, actor))

    def retry_all(self, environment: Environment, *, actor: str, parked: bool = False) -> Retried:
        """End the back-off of everything that waits for ``environment``; with ``parked`` queue what was set aside."""
        reopened = sum(self._reopen_batch(batch, actor) for batch in self._batches(only_parked=1)) if parked else 0
        hurried = self.retry_now(environment)
        self.note("retry", actor=actor, hurried=hurried, reopened=reopened)
        return Retried(hurried=hurried, reopened=reopened)

    def purge(self, verification_id: str, *, actor: str) -> Purged:
        """An open or parked verification -> deleted; its picture and everything personal are destroyed.

        One that is being forwarded too: its result will have lost the lease. One that was tampered with too: this is
        how it is got rid of. Raises InputError ``not_found``, and StateConflict for one that ended.
        """
        row = self._reserve.insist(lambda: self._purge_one(verification_id, actor))
        self._reserve.insist(lambda: self._destroy_asides("erasure"))
        self._wipe()
        return Purged(1, row["image_bytes"], traces_left=self.erasure_pending)

    def purge_all(self, *, actor: str, parked_only: bool) -> Purged:
        """As ``purge``, of everything with a picture, or of what is parked; a batch at a time, so it can be resumed."""
        captures = size = 0
        for batch in self._batches(only_parked=1 if parked_only else None):
            gone = self._reserve.insist(partial(self._purge_batch, batch, actor))
            captures += len(gone)
            size += sum(row["image_bytes"] for row in gone)
        self.note("purge_all", actor=actor, parked_only=parked_only, captures=captures)
        if captures:
            self._reserve.insist(lambda: self._destroy_asides("erasure"))
        self._wipe()
        return Purged(captures, size, traces_left=self.erasure_pending)

    def export(self, verification_id: str, *, actor: str) -> Exported:
        """The picture in clear; that it was taken out is on the disk before this returns.

        Raises InputError ``not_found``, StorageError ``tampered``.
        """
        with self._change() as now:
            row = self._find(verification_id)
            picture = self._picture(row)
            detail = {"actor": actor, "image_sha256": row["image_sha256"], "image_bytes": len(picture)}
            # sealed again, because a row names its last audit record
            sealed = self._finish("exported", row, now, row["state"], detail)
            return Exported(self._record(sealed, now), picture)

    def adopted_by(self, actor: str) -> None:
        """Who accepted a moved state directory; ``open(adopt=True)`` has recorded that it was accepted."""
        self.note("adopted_by", actor=actor)

    # -- parts

    def _changes(self, name: str, row: Row, now: Moment, actor: str) -> int:
        return int(self._apply(name, row, now, {"actor": actor}) is not None)

    def _batches(self, *, only_parked: int | None) -> Iterator[list[Row]]:
        """Rows with a picture, the newest first. Each batch is read when it is its turn."""
        before = _MAX_SEQ
        while True:
            with self._database.reading():
                rows = self._query("with_picture", only_parked=only_parked, before=before, limit=_BATCH).fetchall()
            if rows:
                yield rows
            if len(rows) < _BATCH:
                return
            before = rows[-1]["seq"]

    def _reopen_batch(self, rows: list[Row], actor: str) -> int:
        with self._change() as now:
            return sum(self._changes("reopen", row, now, actor) for row in rows if self._readable(row, now))

    def _purge_one(self, verification_id: str, actor: str) -> Row:
        with self._change() as now:
            row: Row | None = self._query("by_id", id=verification_id).fetchone()
            if row is None:
                raise InputError("cannot purge the verification: there is none with this id", code="not_found")
            if not self._purge_row(row, now, actor):
                self._must(None, self._authentic(row), now, "purge")
            self._drop_idle_users([row])
            return row

    def _purge_batch(self, rows: list[Row], actor: str) -> list[Row]:
        with self._change() as now:
            gone = [row for row in rows if self._purge_row(row, now, actor)]
            self._drop_idle_users(gone)
            return gone

    def _purge_row(self, row: Row, now: Moment, actor: str) -> bool:
        """False when its state does not allow it. A row that was tampered with is purged too, and the log says so."""
        genuine = self._mac_fits("verifications", row)
        detail = {"actor": actor} if genuine else {"actor": actor, "tampered": True}
        return self._apply("purge", row, now, detail) is not None
