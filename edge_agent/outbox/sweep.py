"""Keeping the retention periods of what outlives its capture: verdicts, and the audit log.

Pictures are ended by ``Retention.tick``. Here, a verification that ended ``verdict_age_s`` ago is stripped of everything
that says something of a person, as if its consent were withdrawn; with the last one the user's key is destroyed. Each
leaves an audit record. When that record gets ``audit_age_s`` old, the log is cut off there with a signed anchor, and the
stripped row goes with its last record: a row without its record, or a record without its row, is tampering or damage.
The idempotency tombstone stays, without the id that it led to.

Another purpose is another method that ``tick`` calls; holdings.py has the line that reports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from edge_agent.outbox.ages import Moment, age_s
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.custody import Custody
from edge_agent.outbox.provisional import RETIRED
from edge_agent.outbox.rows import Row

SWEEP_EVERY_S = 3600.0
"""Of running time. The users' keys are written anew by a sweep that destroys one: rarely, for the card's sake."""
_SLICE = 5000
"""Rows that a tick looks at: a customer's capture waits for it."""
_DESTROYED_AT_ONCE = 100
_BATCH = 50
"""Verifications per transaction: what a full disk must have room for."""
_PRUNED_AT_ONCE = 500
_PRUNINGS_PER_TICK = 4
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep destroyed, pictures apart."""

    verdicts: int
    """Ended verifications that were stripped."""
    audit_records: int
    traces_left: bool
    """True when a reader kept old pages in the write-ahead log; ``tick`` tries again."""


class Sweeping(Custody):
    """``tick``, with the retention periods kept."""

    _next_sweep_s: float = 0.0
    _swept_to = 0
    """The row that this sweep has come to."""

    def tick(self) -> None:
        """As before, and destroy what is kept for longer than its purpose allows; a slice of it at a time."""
        super().tick()
        if self._moment().running_s >= self._next_sweep_s:
            self._sweep_on()

    def sweep(self) -> Swept:
        """Housekeeping at once and to its end, for a terminal whose agent does not run. Raises as ``tick``.

        A user's destruction that was cut short is finished too.
        """
        self._resume_erasures()
        self._next_sweep_s = self._swept_to = 0
        super().tick()
        verdicts = records = 0
        while self._next_sweep_s == 0:
            done = self._sweep_on()
            verdicts, records = verdicts + done.verdicts, records + done.audit_records
        return Swept(verdicts, records, traces_left=self.erasure_pending)

    def _sweep_on(self) -> Swept:
        """The next part; after the last one there is a rest."""
        now = self._moment()
        destroyed = self._sweep_verdicts(now)
        pruned, more = self._prune_audit(now)
        if destroyed or pruned:
            self._wipe()
        if not more and self._swept_to == 0:
            self._next_sweep_s = now.running_s + SWEEP_EVERY_S
        return Swept(destroyed, pruned, traces_left=self.erasure_pending)

    # -- verdicts

    def _sweep_verdicts(self, now: Moment) -> int:
        """The next slice of the rows; returns how many were stripped."""
        with self._database.reading():
            span = self._query("span").fetchone()
            after = max(self._swept_to, span["first"] - 1)
            upto = after + _SLICE
            found = self._query("ended_between", after=after, upto=upto).fetchall()
        old = [row["seq"] for row in found if self._is_over(row, self.limits.verdict_age_s, now)]
        if len(old) > _DESTROYED_AT_ONCE:
            old = old[:_DESTROYED_AT_ONCE]
            upto = old[-1]
        for start in range(0, len(old), _BATCH):
            self._reserve.insist(partial(self._forget, old[start : start + _BATCH]))
        self._swept_to = upto if upto < span["last"] else 0
        return len(old)

    def _forget(self, seqs: list[int]) -> None:
        with self._change() as now:
            rows = [self._by_seq(seq) for seq in seqs]
            for row in rows:
                # one that was tampered with goes too, and the log says so
                genuine = self._mac_fits("verifications", row)
                detail = {"purpose": RETIRED, "max_age_s": self.limits.verdict_age_s}
                self._apply("erase", row, now, detail if genuine else {**detail, "tampered": True})
            self._drop_idle_users(rows)
            self._changed.clear()  # nobody is told: each ended long ago, and its end is the same

    # -- the audit log

    def _prune_audit(self, now: Moment) -> tuple[int, bool]:
        """Cut off what is too old; returns how many records went, and whether there are more."""
        pruned = 0
        for _ in range(_PRUNINGS_PER_TICK):
            last = self._last_to_prune(now)
            done = self._reserve.insist(partial(self._prune_up_to, last)) if last else 0
            if not done:
                return pruned, False
            pruned += done
        return pruned, True

    def _last_to_prune(self, now: Moment) -> int | None:
        """Once the oldest record is over its age, all that will be within a day go: each cut leaves a record too."""
        limit_s = self.limits.audit_age_s
        with self._database.reading():
            rows = self._query("oldest_audit", limit=_PRUNED_AT_ONCE).fetchall()
            if not rows or not self._is_over(rows[0], limit_s, now):
                return None
            in_use = self._query("first_audit_in_use").fetchone()["seq"]
        soon_s = limit_s - min(_DAY_S, limit_s / 10)
        old = [row["seq"] for row in rows if self._is_over(row, soon_s, now)]
        return max((seq for seq in old if in_use is None or seq < in_use), default=None)

    def _prune_up_to(self, last: int) -> int:
        with self._change() as now:
            outlived = [row["seq"] for row in self._query("outlived", last=last).fetchall()]
            tombstones = self._query("tombstones_of_outlived", last=last).fetchall()
            records = self._chain.prune(last, now.iso)
            if not records:
                return 0
            for row in tombstones:
                self._unlink(row)
            for seq in outlived:
                self._query("drop_verification", seq=seq)
            detail = {"purpose": "audit", "max_age_s": self.limits.audit_age_s, "last": last, "records": records}
            self._chain.append(Entry("audit_pruned", detail={**detail, "verifications": len(outlived)}), now)
            return records

    def _unlink(self, tombstone: Row) -> None:
        if self._mac_fits("idempotency", tombstone):
            values = {**dict(tombstone), "verification_id": ""}
            del values["mac"]
            sealed = self._sealed_values("idempotency", values)
            marks = {name: sealed[name] for name in ("key_hmac", "mac_generation", "mac")}
            self._query("unlink_tombstone", **marks)

    # -- parts

    def _moment(self) -> Moment:
        with self._database.reading():
            return self._now()

    def _is_over(self, row: Row, limit_s: float, now: Moment) -> bool:
        return age_s(now, running_s=row["running_s"], boot_id=row["boot_id"]) >= limit_s
