"""Restart, housekeeping and erasure: what ends captures other than a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edge_agent.errors import StorageError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.aside_retention import AsideRetention
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.core import QUERIES
from edge_agent.outbox.crypto import mac
from edge_agent.outbox.records import Destruction, Recovery, VerificationRecord
from edge_agent.outbox.rows import Row, lease_of
from edge_agent.types import State

_EXPIRED_PER_TICK = 200
_BATCH = 50
"""Rows per transaction where many may change: with ``_BATCH_BYTES`` it bounds what a full disk must have room for."""
_BATCH_BYTES = 1 << 20
"""Bytes of pictures per such transaction: deleted pages are overwritten, so they go through the write-ahead log."""
_PAGE_BYTES = 4096
_SHRINK_PAGES = 2560
"""10 MB per tick go back to the file system."""
_LOG_KEPT_BYTES = 1 << 20
"""A write-ahead log up to this size is left to be written over; a larger one is emptied by the next tick."""
FAILURE_KEPT_S = 24 * 3600.0


class Retention(AsideRetention):
    """Operations of the daemon itself and of the security officer."""

    def recover(self) -> Recovery:
        """Once after ``open``, before anything else: end what only a running daemon can be in the middle of."""
        finished = self._resume_erasures()
        recovery = self._reserve.insist(lambda: self._end_interrupted(finished))
        self._reserve.insist(self._tend_asides)
        self._keys_changed()  # the last instance may have died right after a rotation
        self._wipe()
        return recovery

    def _end_interrupted(self, finished: int) -> Recovery:
        with self._change() as now:
            seqs = [row["seq"] for row in self._query("left_by_crash").fetchall()]
            rows = [row for seq in seqs if self._readable(row := self._by_seq(seq), now)]
            leased = [row for row in rows if row["lease_token"]]
            for row in leased:
                self._apply("void_lease", row, now)
            interrupted = [r for row in rows if (r := self._interrupt(row, now))]
            resumed = [r for row in rows if (r := self._apply("pend", self._by_seq(row["seq"]), now))]
            self._extend_quarantines(now)
            self._rebuild_lanes(now)
            self._recount()
            recovery = Recovery(
                interrupted=tuple(record.id for record in interrupted),
                resumed=tuple(record.id for record in resumed),
                leases_voided=len(leased),
                erasures_finished=finished,
            )
            counts = {"interrupted": len(interrupted), "resumed": len(resumed), "leases_voided": len(leased)}
            self._chain.append(Entry("start", detail=counts), now)
            return recovery

    def tick(self) -> None:
        """Every 60 s: persist the running time, end what is too old, wipe traces, give space back, restore the reserve.

        Files that were set aside are among what may be too old.

        Raises StorageError ``storage_full`` only where the reserve is used up.
        """
        self._reserve.insist(self._keep_time)
        after = done = 0
        while done < _EXPIRED_PER_TICK:
            seqs = self._reserve.insist(partial(self._expire_after, after))
            if not seqs:
                break
            after, done = seqs[-1], done + len(seqs)
        while self._reserve.insist(self._expire_templates):
            pass
        self._reserve.insist(self._tend_asides)
        self._give_space_back()

    def _keep_time(self) -> None:
        with self._change() as now:
            self._save_clock(now)
            self._query("prune_upload_marks", running_s=now.running_s)
            self._query("prune_failures", before_s=now.running_s - FAILURE_KEPT_S)
            self._prune_answers(now)

    def _expire_after(self, after: int) -> list[int]:
        """Expire a batch of what is too old and comes after this row; returns the rows it looked at."""
        with self._change() as now:
            rows = _batch(self._too_old(now, after))
            for row in rows:
                if self._readable(row, now):
                    self._apply("unpark" if row["parked"] else "expire", row, now, {"max_age_s": self.limits.max_age_s})
            return [row["seq"] for row in rows]

    def withdraw(self, verification_id: str, *, actor: str | None = None) -> VerificationRecord:
        """Consent withdrawn: an open verification becomes ``deleted``; of any, everything personal is destroyed.

        A verification that ended keeps its state. The user's key goes with the last of its verifications. Copies
        that were set aside go first, whole: nothing that is told to be erased may be left in them. A lease ends: its
        result is not taken any more, and the quarantine of a PUT that was under way begins. ``actor`` is audited.

        Raises InputError ``not_found``, StorageError ``tampered``.
        """
        with self._database.reading():
            self._find(verification_id)
        self._reserve.insist(lambda: self._destroy_asides("erasure"))
        record = self._reserve.insist(lambda: self._erase(verification_id, actor))
        self._wipe()
        return record

    def _erase(self, verification_id: str, actor: str | None) -> VerificationRecord:
        with self._change() as now:
            row = self._find(verification_id)
            self._end_uploads(row, now)
            record = self._apply("erase", row, now, _by(actor))
            if record is None:  # retention stripped it, and may have left templates of the consent that ends now
                self._wipe_templates(row["user_hmac"], "erasure", now)
                record = self._record(row, now)
            if self._is_idle(row["user_hmac"]):
                self._delete_user(row["user_hmac"])
                self._rewrite_users()
            return record

    def delete_user(self, user_id: str, *, actor: str | None = None) -> Destruction:
        """Destroy everything about a user but tombstones, lock-outs and the audit's keyed name.

        Copies that were set aside go first, whole. Then the user's key, in a transaction of its own: from then on
        nothing can be read again, and a crash in between is resumed by ``recover``. ``actor`` is audited.
        """
        user_hmac = self._keys.user_hmac(user_id)
        self._reserve.insist(lambda: self._destroy_asides("erasure"))
        audit_seq = self._reserve.insist(lambda: self._destroy_key(user_hmac, actor))
        captures, records = self._erase_rows(user_hmac)
        self._wipe()
        return Destruction(user_hmac.hex(), captures, records, audit_seq, traces_left=self.erasure_pending)

    # -- parts

    def _is_idle(self, user_hmac: bytes) -> bool:
        """Whether nothing is left that the user's key is needed for."""
        verification = self._query("to_erase", user_hmac=user_hmac, limit=1).fetchone()
        return verification is None and not self._templates_of(user_hmac)

    def _drop_idle_users(self, gone: Sequence[Row]) -> None:
        """A user's key goes with the last of its verifications and templates."""
        users = {row["user_hmac"] for row in gone}
        idle = [user for user in users if self._is_idle(user)]
        for user_hmac in idle:
            self._delete_user(user_hmac)
        if idle:
            self._rewrite_users()

    def _expire_templates(self) -> bool:
        """Destroy a batch of those without a purpose; True when there may be more.

        That is those that are too old, and all of them where the policy is another one.
        """
        with self._change() as now:
            rows = self._query("template_ages").fetchall()
            why = "policy"
            if self.limits.provisional is not None:
                why, rows = "expired", [row for row in rows if self._template_is_old(row, now)]
            self._destroy_templates(rows[:_BATCH], why, now)
            self._drop_idle_users(rows[:_BATCH])
            return len(rows) > _BATCH

    def _by_seq(self, seq: int) -> Row:
        row: Row = self._query("by_seq", seq=seq).fetchone()
        return row

    def _interrupt(self, row: Row, now: Moment) -> VerificationRecord | None:
        if row["state"] != State.SEARCHING:
            return None
        return self._apply("fail", row, now, {"code": "interrupted"}, code="interrupted", error_detail=None)

    def _extend_quarantines(self, now: Moment) -> None:
        """How long the device was down is unknown: every quarantine that still runs begins anew."""
        until_s = now.running_s + self.limits.upload_quarantine_s
        for mark in self._query("upload_marks").fetchall():
            if mark["until_running_s"] > now.running_s and self._mac_fits("upload_marks", mark):
                values = {**dict(mark), "lease_token": None, "until_running_s": float(until_s)}
                del values["mac"]
                self._query("set_upload_mark", **self._sealed_values("upload_marks", values))

    def _rebuild_lanes(self, now: Moment) -> None:
        self._query("drop_lanes")
        for lane in self._query("lanes_to_build").fetchall():
            values = {"user_hmac": lane["user_hmac"], "environment": lane["environment"], "running_s": now.running_s}
            self._query("set_lane", **values)

    def _recount(self) -> None:
        self._query("drop_state_counts")
        self._query("count_states_anew")
        self._query("total_anew")

    def _too_old(self, now: Moment, after: int) -> list[Row]:
        """Nothing is older than what was made before it, so the first that is young enough ends the search."""
        found: list[Row] = []
        for row in self._query("oldest_first", after=after):
            whole = self._by_seq(row["seq"])
            if self._age_s(row, now) >= self.limits.max_age_s:
                found.append(whole)
            # a row that was made younger from outside must not keep the others
            elif self._readable(whole, now):
                break
            if len(found) == _BATCH:
                break
        return found

    def _save_clock(self, now: Moment) -> None:
        saved = replace(self._running, boottime_s=now.instant.boottime_s).to_json()
        sealed = mac(self._keys.row, "meta", "clock", saved)
        self._database.execute(QUERIES["set_meta"], name="clock", value=saved, mac=sealed)

    def _end_uploads(self, row: Row, now: Moment) -> None:
        """Whoever held the lease lets go now: what it was sending may still land, and may not a minute later."""
        lease = lease_of(row)
        if lease is not None:
            self._settle_uploads(row, lease, now)

    def _destroy_key(self, user_hmac: bytes, actor: str | None) -> int:
        with self._change() as now:
            audit_seq = self._chain.append(Entry("user_destroyed", user_hmac=user_hmac, detail=_by(actor)), now)
            self._query("begin_erasure", user_hmac=user_hmac, audit_seq=audit_seq)
            self._delete_user(user_hmac)
            return audit_seq

    def _erase_rows(self, user_hmac: bytes) -> tuple[int, int]:
        """Strip the rows of a user whose key is gone; returns (pictures, records)."""
        captures = records = 0
        while rows := self._reserve.insist(lambda: self._erase_batch(user_hmac)):
            captures += sum(row["image_bytes"] > 0 for row in rows)
            records += len(rows)
        self._reserve.insist(lambda: self._finish_erasure(user_hmac, {"captures": captures, "records": records}))
        return captures, records

    def _erase_batch(self, user_hmac: bytes) -> list[Row]:
        """Strip some rows of the user; returns them as they were."""
        with self._change() as now:
            rows = _batch(self._query("to_erase", user_hmac=user_hmac, limit=_BATCH).fetchall())
            for row in rows:
                # a row that was tampered with is erased all the same, and the log says so
                genuine = self._mac_fits("verifications", row)
                self._end_uploads(row, now)
                self._apply("erase", row, now, None if genuine else {"tampered": True})
            return rows

    def _finish_erasure(self, user_hmac: bytes, counts: dict[str, int]) -> None:
        with self._change() as now:
            self._chain.append(Entry("user_destruction_finished", user_hmac=user_hmac, detail=counts), now)
            self._query("end_erasure", user_hmac=user_hmac)
            self._rewrite_users()

    def _resume_erasures(self) -> int:
        with self._database.reading():
            unfinished = [row["user_hmac"] for row in self._query("erasures").fetchall()]
        if unfinished:
            self._destroy_asides("erasure")
        for user_hmac in unfinished:
            self._erase_rows(user_hmac)
        return len(unfinished)

    def _give_space_back(self) -> None:
        """Shorten the files after a backlog has drained, then bring the reserve back to its size."""
        # moving a page to the front costs one in the write-ahead log and then one in the database
        pages = max(1, min(_SHRINK_PAGES, self._reserve.free_bytes() // (2 * _PAGE_BYTES)))
        try:
            shorter = self._database.shrink(pages)
        except StorageError as exc:
            _only_full(exc)
            shorter = False
        if shorter or self.erasure_pending or self._database.log_bytes() > _LOG_KEPT_BYTES:
            self._wipe()
        self._reserve.adapt(self.limits.reserve_bytes)

    def _wipe(self) -> None:
        """Empty the write-ahead log: deleted pages live on in it until then. A full disk leaves it pending."""
        self.erasure_pending = True
        try:
            self.erasure_pending = not self._reserve.insist(self._database.truncate_log)
        except StorageError as exc:
            _only_full(exc)


def _by(actor: str | None) -> dict[str, str] | None:
    return None if actor is None else {"actor": actor}


def _batch(rows: list[Row]) -> list[Row]:
    """The first of the rows, as many as one transaction may take; at least one of them."""
    taken: list[Row] = []
    picture_bytes = 0
    for row in rows:
        picture_bytes += row["image_bytes"]
        if taken and picture_bytes > _BATCH_BYTES:
            break
        taken.append(row)
    return taken


def _only_full(exc: StorageError) -> None:
    """On a full disk housekeeping can wait; any other error of the storage is raised again."""
    if exc.code != "storage_full":
        raise exc
