"""Leases, uploads, verdicts: the forwarder's operations.

Leasing a live capture makes it ``matching``, releasing it makes it ``captured`` again; a backlog capture stays
``pending`` throughout. Every result is a compare-and-set on the lease.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection
from typing import Literal

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.core import QUEUED
from edge_agent.outbox.crypto import Place, tampered, unseal
from edge_agent.outbox.provisional import Provisional
from edge_agent.outbox.records import Environment, Lease, Leased, LeaseLost, Verdict, VerificationRecord
from edge_agent.outbox.rows import Row, columns_of, environment_text
from edge_agent.types import State


class Forwarding(Provisional):
    """Operations of the forwarder."""

    def lease_next(
        self, environment: Environment, *, lease_s: float, exclude_users: Collection[str] = ()
    ) -> Leased | None:
        """The next capture to forward: live ones first, then the oldest, of users with no lease.

        Skipped are users (``user_hmac`` in hex) in ``exclude_users``, users that stand before the camera (their
        backlog waits), captures whose back-off runs, and users with a PUT of another capture in quarantine.
        ``lease_s`` must outlast the whole sequence.
        """
        with self._change() as now:
            row = self._next_row(environment, exclude_users, now)
            return None if row is None else self._lease(row, lease_s, now)

    def lease_one(self, verification_id: str, *, lease_s: float) -> Leased | None:
        """Lease this capture, back-off or not; None when it is not waiting, or its user is leased or quarantined."""
        with self._change() as now:
            row = self._find(verification_id)
            if State(row["state"]) not in QUEUED or self._user_is_busy(row, now):
                return None
            return self._lease(row, lease_s, now)

    def next_ready_in_s(self, environment: Environment) -> float | None:
        """Seconds until a back-off or quarantine ends (0 = now), None when nothing waits. A lease may add to it."""
        with self._database.reading():
            ready_s = self._query("next_ready", environment=environment_text(environment)).fetchone()["ready_s"]
            return None if ready_s is None else max(0.0, float(ready_s) - self._now().running_s)

    def renew(self, verification_id: str, lease: Lease, *, lease_s: float) -> Lease:
        """Hold on for another ``lease_s`` from now. Raises LeaseLost."""
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            until_s = now.running_s + lease_s
            self._apply("renew", row, now, token=lease.token, until_s=until_s)
            for mark in self._marks(row, lease):
                self._mark_upload(row, mark["image_name"], until_s + self.limits.upload_quarantine_s, lease.token)
            return Lease(lease.token, lease.instance_id, until_s)

    def payload(self, verification_id: str) -> bytes:
        """The picture, decrypted and authenticated. Raises InputError ``not_found``, StorageError ``tampered``."""
        with self._database.reading():
            return self._picture(self._find(verification_id))

    def record_upload(self, verification_id: str, lease: Lease, image_name: str) -> None:
        """A PUT to ``image_name`` (fresh per attempt) begins: until its outcome is known, it may land any time.

        Raises LeaseLost.
        """
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            self._settle_uploads(row, lease, now)
            until_s = row["lease_until_running_s"] + self.limits.upload_quarantine_s
            self._mark_upload(row, image_name, until_s, lease.token)
            detail = {"image_name": image_name}
            self._apply("upload", row, now, detail, token=lease.token, image_name=image_name)

    def commit_verdict(self, verification_id: str, lease: Lease, verdict: Verdict) -> VerificationRecord:
        """The final word of CypherFace; the picture is destroyed with it.

        Raises LeaseLost, and StorageError ``evidence_mismatch`` when the verdict is not about the stored picture
        under an ``image_name`` that ``record_upload`` announced: such a verdict is never believed.
        """
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            self._check_evidence(row, lease, verdict)
            self._query("drop_upload_mark", image_name=verdict.image_name)
            self._settle_uploads(row, lease, now)
            detail = {
                "similarity": verdict.similarity,
                "matched_field": verdict.matched_field,
                "http_status": verdict.http_status,
                "image_name": verdict.image_name,
                "image_sha256": verdict.image_sha256,
            }
            record = self._apply(
                "verdict",
                row,
                now,
                detail,
                token=lease.token,
                positive=int(verdict.positive),
                answered=int(self._was_answered(row)),
                similarity=verdict.similarity,
                matched_field=verdict.matched_field,
                http_status=verdict.http_status,
                image_name=verdict.image_name,
            )
            record = self._kept(record, row, now)
            if not verdict.positive:
                self._count_failure(row["user_hmac"], "not_verified", now, terminal=not record.late)
            return record

    def release(
        self,
        verification_id: str,
        lease: Lease,
        *,
        next_attempt_in_s: float,
        code: str,
        detail: str | None = None,
        status: int | None = None,
        upload_settled: bool = False,
        failure: Literal["transient", "conflict", "other"] = "other",
    ) -> VerificationRecord:
        """Give the capture back for a later attempt. ``upload_settled``: it is known whether this PUT landed.

        ``failure`` counts this attempt among the record's ``transients`` (in a row) or ``conflicts`` (in all).
        Raises LeaseLost.
        """
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            self._settle_uploads(row, lease, now, known=upload_settled)
            facts = {"code": code, "status": status, "next_attempt_in_s": next_attempt_in_s}
            record = self._apply(
                "release",
                row,
                now,
                facts,
                token=lease.token,
                next_attempt_s=now.running_s + next_attempt_in_s,
                code=code,
                error_detail=self._seal_text(row, "error_detail", detail),
                status=status,
                failure=failure,
            )
            return self._kept(record, row, now)

    def park(
        self,
        verification_id: str,
        lease: Lease,
        *,
        code: str,
        detail: str | None = None,
        status: int | None = None,
        upload_settled: bool = False,
    ) -> VerificationRecord:
        """-> failed, set aside with its picture until ``reopen`` or the end of retention. Raises LeaseLost."""
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            self._settle_uploads(row, lease, now, known=upload_settled)
            record = self._apply(
                "park",
                row,
                now,
                {"code": code, "status": status},
                token=lease.token,
                code=code,
                error_detail=self._seal_text(row, "error_detail", detail),
                status=status,
            )
            return self._kept(record, row, now)

    def destroy(self, verification_id: str, code: str, detail: str | None = None) -> VerificationRecord:
        """``captured``, ``matching``, pending -> failed, the picture destroyed (offline policy ``deny``).

        Raises StateConflict.
        """
        with self._change() as now:
            row = self._find(verification_id)
            sealed = self._seal_text(row, "error_detail", detail)
            record = self._apply("destroy", row, now, {"code": code}, code=code, error_detail=sealed)
            return self._must(record, row, now, "destroy the capture of")

    def reopen(self, verification_id: str, *, actor: str) -> VerificationRecord:
        """A parked capture goes back into the queue; ``actor`` is audited. Raises StateConflict."""
        with self._change() as now:
            row = self._find(verification_id)
            return self._must(self._apply("reopen", row, now, {"actor": actor}), row, now, "reopen")

    def retry_now(self, environment: Environment) -> int:
        """End the back-off of every lane's head of this environment; returns how many were waiting."""
        with self._change() as now:
            rows = self._query("waiting", environment=environment_text(environment), running_s=now.running_s)
            ready = [row for row in rows.fetchall() if self._readable(row, now)]
            return sum(self._apply("hurry", row, now) is not None for row in ready)

    # -- parts

    def _next_row(self, environment: Environment, exclude_users: Collection[str], now: Moment) -> Row | None:
        values = {"environment": environment_text(environment), "running_s": now.running_s}
        self._query("ready_lanes", **values)
        cursor = self._query("claimable", **values)
        try:
            for head in cursor:
                row = columns_of(self._query("by_seq", seq=head["head_seq"]).fetchone())
                if row["user_hmac"].hex() in exclude_users:
                    continue
                if self._readable(row, now):
                    return row
        finally:
            cursor.close()
        return None

    def _user_is_busy(self, row: Row, now: Moment) -> bool:
        for other in self._query("leased_of_user", user_hmac=row["user_hmac"]).fetchall():
            if other["lease_until_running_s"] > now.running_s:
                return True
        values = {"user_hmac": row["user_hmac"], "id": row["id"], "running_s": now.running_s}
        return self._query("quarantined", **values).fetchone()["until_s"] is not None

    def _lease(self, row: Row, lease_s: float, now: Moment) -> Leased:
        stale = self._query("leased_of_user", user_hmac=row["user_hmac"]).fetchall()
        for held in stale:
            self._apply("void_lease", self._authentic(held), now)
        if stale:
            row = self._query("by_seq", seq=row["seq"]).fetchone()
        until_s = now.running_s + lease_s
        token = uuid.uuid4().hex
        record = self._apply("lease", row, now, token=token, instance_id=self.instance_id, until_s=until_s)
        record = self._must(record, row, now, "lease")
        if record.lease is None:
            raise AssertionError("a leased row without a lease")
        return Leased(record, record.lease)

    def _kept(self, record: VerificationRecord | None, row: Row, now: Moment) -> VerificationRecord:
        if record is None:
            raise LeaseLost(f"cannot take the result: the verification is {row['state']}", self._record(row, now))
        return record

    def _picture(self, row: Row) -> bytes:
        stored = self._query("payload", seq=row["seq"]).fetchone()
        if stored is None and not row["image_bytes"]:
            raise InputError("cannot read the capture: none is stored (any more)", code="not_found")
        user_key = self._user_key(row["user_hmac"])
        if stored is None or user_key is None:
            raise tampered("payload", row["id"], "it is missing")
        row_key = unseal(user_key, stored["row_key"], Place("payloads", row["id"], "row key", row["user_hmac"]))
        picture = unseal(row_key, stored["picture"], Place("payloads", row["id"], "picture", row["user_hmac"]))
        if hashlib.sha256(picture).hexdigest() != row["image_sha256"]:
            raise tampered("payload", row["id"], "it is not the picture that was captured")
        return picture

    def _check_evidence(self, row: Row, lease: Lease, verdict: Verdict) -> None:
        marks = [mark for mark in self._marks(row, lease) if mark["image_name"] == verdict.image_name]
        ours = any(mark["verification_id"] == row["id"] and self._mac_fits("upload_marks", mark) for mark in marks)
        if not ours or verdict.image_sha256 != row["image_sha256"]:
            raise StorageError(
                f"cannot take the verdict for {row['id']}: it is not about the picture stored for it",
                code="evidence_mismatch",
            )

    def _marks(self, row: Row, lease: Lease) -> list[Row]:
        """The PUTs made under this lease whose outcome is open."""
        return self._query("upload_marks_of_lease", user_hmac=row["user_hmac"], token=lease.token).fetchall()

    def _mark_upload(self, row: Row, image_name: str, until_s: float, token: str | None) -> None:
        values = {
            "image_name": image_name,
            "user_hmac": row["user_hmac"],
            "verification_id": row["id"],
            "lease_token": token,
            "until_running_s": float(until_s),
        }
        self._query("set_upload_mark", **self._sealed_values("upload_marks", values))

    def _settle_uploads(self, row: Row, lease: Lease, now: Moment, *, known: bool = False) -> None:
        """End the PUTs of this lease: forget them when their outcome is known, else the quarantine begins now."""
        for mark in self._marks(row, lease):
            if known:
                self._query("drop_upload_mark", image_name=mark["image_name"])
            else:
                self._mark_upload(row, mark["image_name"], now.running_s + self.limits.upload_quarantine_s, None)
