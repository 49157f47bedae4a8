"""Proof: the audit chain, and a check that every row and every picture still is what was committed."""

from __future__ import annotations

from typing import Any

from edge_agent.errors import StorageError
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.records import AuditHead, AuditReport, StoreReport
from edge_agent.outbox.retention import Retention
from edge_agent.outbox.rows import Row

_OTHER_TABLES = (("idempotency", "verification_id"), ("upload_marks", "image_name"), ("failures", "seq"))


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

    def verify(self) -> StoreReport:
        """Authenticate every row and picture, and compare each state with the audit record it came from."""
        problems: dict[str, str] = {}
        verifications = 0
        with self._database.reading():
            for row in self._query("all_verifications"):
                verifications += 1
                problem = self._problem_of(row)
                if problem:
                    problems[row["id"]] = problem
            for table, key in _OTHER_TABLES:
                for row in self._query(f"all_{table}"):
                    if not self._mac_fits(table, row):
                        problems[f"{table}:{row[key]}"] = "its mac is wrong"
            payloads = self._query("totals").fetchone()["items"]
        return StoreReport(verifications, payloads, problems)

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
