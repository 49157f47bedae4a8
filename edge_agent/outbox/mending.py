"""Saying what a salvage could not save, where it will be seen.

In the row (``failed`` with ``capture_lost`` or ``state_lost``), in the audit log, and in the counts. Every change is a
statement of transitions.sql with its audit record; nothing is sealed again that did not authenticate before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_agent.outbox.ages import Moment, RunningClock
from edge_agent.outbox.aside import Aside, Progress
from edge_agent.outbox.aside_retention import aside_fact
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.clock import instant
from edge_agent.outbox.copying import Copying, in_batches
from edge_agent.outbox.core import QUEUED, TRANSITIONS
from edge_agent.outbox.crypto import mac
from edge_agent.outbox.database import read_sql, statements
from edge_agent.outbox.records import AuditGap, SalvageReport, TableCount
from edge_agent.types import FINAL_STATES, State

_BATCH = 500


class Mending(Copying):
    """A new database out of the old one: ``fill`` it, then ``conclude``."""

    def fill(self, progress: Progress) -> None:
        """Copy what authenticates and mend the rows that lost something."""
        self._copy_all(progress)
        self._resume_clock()
        self.captures_lost: list[str] = []
        self.states_lost: list[str] = []
        for batch in in_batches(self._newest, _BATCH):
            with self._database.transaction():
                for seq in batch:
                    self._mend(self._by_seq(seq), self._now())
        with self._database.transaction():
            self._name_the_missing(self._now())
            self._make_lease_index()
        progress("rows mended")

    def conclude(self, aside: Aside, keys_from: str) -> SalvageReport:
        """Write the last record: what was kept, what was lost, where the damaged files are."""
        with self._database.transaction():
            now = self._now()
            self._set_fact("clock", replace(self._running, boottime_s=now.instant.boottime_s).to_json())
            self._set_fact(*aside_fact(aside, now, erased=bool(self._doomed)))
            report = self._report(aside, keys_from)
            self._chain.append(Entry("salvaged", detail=_summary(report)), now)
        return report

    # -- rows

    def _mend(self, row: sqlite3.Row, now: Moment) -> None:
        last = self._query("last_audit_of", id=row["id"]).fetchone()
        newer = last if last is not None and last["seq"] > row["audit_seq"] else None
        lost_capture = self._lost_capture(row, newer)
        intact = newer is None and self._is_audited(row)
        if row["seq"] in self._doomed:
            self._change_row("erase", row, now)
            return
        if row["lease_token"] is not None:
            row, intact = self._change_row("void_lease", row, now), True
        if self._lost_private(row):
            row, intact = self._change_row("lose_private", row, now), True
        if newer is not None and newer["to_state"] in FINAL_STATES:
            self._lose_state(row, newer, now)
        elif lost_capture:
            self._change_row("lose_capture", row, now, {"code": "capture_lost"})
            self.captures_lost.append(row["id"])
        elif not intact:
            self._finish("resealed", row, now, row["state"], {"lost_record": row["audit_seq"]})

    def _lost_capture(self, row: sqlite3.Row, newer: sqlite3.Row | None) -> bool:
        if row["image_bytes"]:
            return row["seq"] not in self._pictures
        # a row from before the capture, of which only the audit log tells
        return newer is not None and row["state"] == State.SEARCHING and newer["to_state"] in QUEUED

    def _lose_state(self, row: sqlite3.Row, newer: sqlite3.Row, now: Moment) -> None:
        """It ended, and how is in the audit log only. What was parked stays so, for an operator to decide."""
        parked = newer["event"] == "park" and row["seq"] in self._pictures
        detail = {"code": "state_lost", "ended": newer["to_state"], "audit_seq": newer["seq"]}
        self._change_row("lose_state", row, now, detail, parked=int(parked))
        self.states_lost.append(row["id"])

    def _lost_private(self, row: sqlite3.Row) -> bool:
        """Sealed under a user key that is gone."""
        sealed = row["private"] is not None or row["error_detail"] is not None
        return sealed and not row["erased"] and row["user_hmac"] not in self._opened_keys

    def _is_audited(self, row: sqlite3.Row) -> bool:
        known = self._query("audit_record", seq=row["audit_seq"]).fetchone()
        return known is not None and (known["verification_id"], known["to_state"]) == (row["id"], row["state"])

    def _change_row(
        self, name: str, row: sqlite3.Row, now: Moment, detail: Mapping[str, Any] | None = None, **values: Any
    ) -> sqlite3.Row:
        """One statement of transitions.sql with its audit record; without a listener and without a user's key."""
        self._database.execute(TRANSITIONS[name], seq=row["seq"], now=now.iso, **values)
        after = self._by_seq(row["seq"])
        if row["image_bytes"] and not after["image_bytes"]:
            self._query("delete_payload", seq=row["seq"])
        self._finish(name, after, now, row["state"], detail)
        return self._by_seq(row["seq"])

    # -- what has no row

    def _name_the_missing(self, now: Moment) -> None:
        """One record for each verification that only the log, or only its idempotency key, still knows."""
        audited = [row for row in self._query("audited_without_row").fetchall() if row["event"] != "lost_row"]
        for row in audited:
            entry = Entry("lost_row", row["verification_id"], row["user_hmac"], row["to_state"])
            self._chain.append(entry, now)
            if row["to_state"] in QUEUED or row["event"] == "park":
                self.captures_lost.append(row["verification_id"])
        promised = [row["verification_id"] for row in self._query("promised_without_row").fetchall()]
        for verification_id in promised:
            self._chain.append(Entry("lost_row", verification_id), now)
        self.captures_lost += promised  # they may have waited
        self.lost["verifications"] = len(audited) + len(promised)
        self.lost["idempotency"] = self._query("without_idempotency").fetchone()["number"]

    # -- parts

    def _resume_clock(self) -> None:
        """From what was saved; if that is lost, at least not before anything that is there."""
        now = instant(self._clock)
        running = RunningClock.resume(self._seen_clocks, now)
        base_s = max(running.base_s, self._latest_running_s - now.boottime_s)
        self._running = replace(running, base_s=base_s)

    def _make_lease_index(self) -> None:
        (statement,) = (text for text in statements(read_sql("schema.sql")) if "INDEX one_lease_per_user" in text)
        self._database.execute(statement)

    def _set_fact(self, name: str, value: bytes) -> None:
        sealed = mac(self._keys.row, "meta", name, value)
        self._query("set_meta", name=name, value=value, mac=sealed)

    def _report(self, aside: Aside, keys_from: str) -> SalvageReport:
        gaps: tuple[AuditGap, ...] = tuple(self._audit.gaps) if self._audit else ()
        return SalvageReport(
            aside=aside.path,
            tables={table: TableCount(self.kept[table], self.lost[table]) for table in sorted(self._shapes)},
            captures_kept=len(self._pictures),
            captures_lost=tuple(self.captures_lost),
            states_lost=tuple(self.states_lost),
            audit_gaps=gaps,
            keys_from=keys_from,
        )


def _summary(report: SalvageReport) -> dict[str, Any]:
    """Counts for the audit log; the ids have records of their own."""
    return {
        "aside": report.aside.name,
        "kept": {table: count.kept for table, count in report.tables.items()},
        "lost": {table: count.lost for table, count in report.tables.items() if count.lost},
        "captures_kept": report.captures_kept,
        "captures_lost": len(report.captures_lost),
        "states_lost": len(report.states_lost),
        "audit_gaps": [[gap.first, gap.last] for gap in report.audit_gaps],
        "keys_from": report.keys_from,
    }
