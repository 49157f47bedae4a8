"""Proof: the audit chain, and a check that every row and every picture still is what was committed."""

from __future__ import annotations

from typing import Any

from edge_agent.errors import StorageError
from edge_agent.outbox.audit import Entry, Walk
from edge_agent.outbox.records import AuditHead, AuditReport, StoreReport
from edge_agent.outbox.retention import Retention
from edge_agent.outbox.rows import Row

_OTHER_TABLES = (
    ("idempotency", "verification_id"),
    ("upload_marks", "image_name"),
    ("failures", "seq"),
    ("templates", "id"),
    ("provisional_answers", "seq"),
    ("provisional_blocks", "verification_id"),
)

_PART = 50
"""Rows, perhaps with their pictures, that are checked in one go: about 0.1 s with 100 KB each."""


class Proof(Retention):
    """Operations that change nothing but the audit log."""

    def note(self, event: str, /, **detail: Any) -> AuditHead:
        """Append a record of its own (an operator's act, a refused request). No secrets, no raw user ids."""
        with self._change() as now:
            self._chain.append(Entry(event, detail=detail), now)
            head = self._chain.head()
        if head is None:
            raise AssertionError("an audit record without a head")
        return head

    def audit_head(self) -> AuditHead | None:
        """The end of the chain, to be kept elsewhere; None while it is empty."""
        with self._database.reading():
            return self._chain.head()

    def verify_audit(self, expect_head: AuditHead | None = None) -> AuditReport:
        """Walk the whole chain; with ``expect_head`` a cut-off end is found too."""
        with self._database.reading():
            return self._chain.verify(expect_head)

    def walk_audit(self, walked: Walk | None, expect_head: AuditHead | None) -> Walk | AuditReport:
        """As ``verify_audit``, a part at a time: between two parts others get their turn in this thread."""
        with self._database.reading():
            return self._chain.walk(walked, expect_head)

    def verify(self) -> StoreReport:
        """Authenticate every row and picture, and compare each state with the audit record it came from."""
        report = self.verify_part(None)
        while report.next_after is not None:
            report = self.verify_part(report)
        return report

    def verify_part(self, before: StoreReport | None) -> StoreReport:
        """As ``verify``, a part at a time: ``before`` with the next rows added; ``next_after`` None ends it."""
        before = before or StoreReport(0, 0)
        problems = dict(before.problems)
        with self._database.reading():
            rows = self._query("verifications_after", after=before.next_after or 0, limit=_PART).fetchall()
            for row in rows:
                problem = self._problem_of(row)
                if problem:
                    problems[row["id"]] = problem
            more = len(rows) == _PART
            if not more:
                problems |= self._other_problems()
            payloads = self._query("totals").fetchone()["items"]
        next_after = rows[-1]["seq"] if more else None
        return StoreReport(before.verifications + len(rows), payloads, problems, next_after)

    def _other_problems(self) -> dict[str, str]:
        return {
            f"{table}:{row[key]}": "its mac is wrong"
            for table, key in _OTHER_TABLES
            for row in self._query(f"all_{table}")
            if not self._mac_fits(table, row)
        }

    def _problem_of(self, row: Row) -> str | None:
        try:
            self._record(self._authentic(row), self._now())
            if row["image_bytes"]:
                self._picture(row)
        except StorageError as exc:
            return exc.message
        known = self._query("audit_record", seq=row["audit_seq"]).fetchone()
        if known is None:
            return "the audit record of its last change is missing"
        if known["verification_id"] != row["id"] or known["to_state"] != row["state"]:
            return "it was put back to an earlier state"
        if self._query("later_audit", id=row["id"], seq=row["audit_seq"]).fetchone():
            return "it was put back to an earlier state"
        return None
