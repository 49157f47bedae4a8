"""Provisional answers: whether one may be given, counting it before it is, and what a later verdict does to it.

Everything that limits an answer is looked at in the transaction that gives it, and what is counted is committed with
it: however many captures come at once, and whenever the power fails, none is answered beyond a limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge_agent.outbox.ages import Moment, age_s, from_iso
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.crypto import mac, same, tampered
from edge_agent.outbox.provisional_records import (
    TEMPLATE_SCOPE,
    Consideration,
    Likeness,
    ProvisionalLimits,
    ProvisionalSummary,
    VerdictSummary,
    Withheld,
)
from edge_agent.outbox.records import Lease, VerificationRecord
from edge_agent.outbox.rows import Row
from edge_agent.outbox.templates import Templates
from edge_agent.types import State

_OUTAGE = "outage"
"""The row of ``meta`` that tells since when CypherFace was not heard, and the answers given since."""
_REFUSED = "refused"
"""The row of ``meta`` that is there from when CypherFace refused us (a revoked key) until its next verdict."""
_DAY_S = 24 * 3600.0
RETIRED = "verdict"
"""The purpose that is over, where retention erases a verification."""
_LIVE = frozenset({State.CAPTURED, State.MATCHING})
_NOT_CONCERNED = frozenset({Withheld.UNAVAILABLE, Withheld.NOT_LIVE, Withheld.NO_CONSENT, Withheld.NO_TEMPLATE})
"""Customers who could not have been answered: the line may come back before their deadline."""
_ENDED_UNCONFIRMED = frozenset({State.FAILED, State.EXPIRED, State.EVICTED, State.DELETED})


@dataclass(frozen=True, slots=True)
class _Outage:
    """Since the first attempt that did not get through after the last verdict."""

    boot_id: str
    running_s: float
    answers: int = 0

    def length_s(self, now: Moment) -> float:
        return age_s(now, running_s=self.running_s, boot_id=self.boot_id)


class Provisional(Templates):
    """Operations of the offline policy ``provisional``."""

    def consider(self, verification_id: str, lease: Lease, model: str) -> Consideration:
        """After a connect-level failure of this attempt: what to compare the capture with, or why not to.

        ``model``: as of the templates. A refusal is committed as the record's reason. Raises LeaseLost.
        """
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            self._begin_outage(now)
            why = self._refusal(row, now)
            usable = self._usable(row, model, now) if self.limits.provisional is not None else []
            if why is None and not usable:
                why = Withheld.NO_TEMPLATE
            if why is not None:
                self._withhold(row, lease, why, now)
                return Consideration(withheld=why)
            return Consideration(tuple(self._open_template(known) for known in usable))

    def answer(self, verification_id: str, lease: Lease, likeness: Likeness) -> VerificationRecord:
        """-> provisionally_verified, if everything still allows it and the face is the template's; else the reason.

        The lease goes on: the attempt is given back as any other. Raises LeaseLost, StateConflict.
        """
        with self._change() as now:
            row = self._held(verification_id, lease, now)
            why = self._refusal(row, now) or self._doubt(row, likeness, now)
            if why is not None:
                return self._withhold(row, lease, why, now)
            self._count_answer(row, now)
            record = self._apply("answer", row, now, _evidence(likeness), token=lease.token)
            return self._must(record, row, now, "answer")

    def withhold(self, verification_id: str, lease: Lease, why: Withheld) -> VerificationRecord:
        """Note why the capture is not answered provisionally. Raises LeaseLost."""
        with self._change() as now:
            return self._withhold(self._held(verification_id, lease, now), lease, why, now)

    def begin_outage(self) -> None:
        """An attempt got no connection: unless one was noted since the last verdict, the outage begins now."""
        with self._change() as now:
            self._begin_outage(now)

    def note_refused(self) -> None:
        """CypherFace answers and refuses our credentials or settings: nothing is answered until its next verdict.

        The forwarder knows it too, until it is restarted.
        """
        with self._change():
            self._query("set_meta", name=_REFUSED, value=b"", mac=mac(self._keys.row, "meta", _REFUSED, b""))

    def provisional_summary(self) -> ProvisionalSummary:
        """How the policy stands, for the status. Raises StorageError ``tampered``."""
        with self._database.reading():
            outage, templates = self._outage(), self._query("count_templates").fetchone()
            return ProvisionalSummary(
                templates=templates["templates"],
                users=templates["users"],
                blocked=self._query("count_provisional_blocks").fetchone()["users"],
                unconfirmed=self._unconfirmed(),
                answers=outage.answers if outage is not None else 0,
                offline_s=outage.length_s(self._now()) if outage is not None else None,
            )

    def verdict_summary(self) -> VerdictSummary:
        """What is remembered of CypherFace's verdicts, for the status."""
        with self._database.reading():
            counts = {row["state"]: row["number"] for row in self._query("count_states")}
            newest = [self._newest_verdict(state) for state in (State.VERIFIED, State.NOT_VERIFIED)]
            return VerdictSummary(
                verified=counts.get(State.VERIFIED, 0),
                not_verified=counts.get(State.NOT_VERIFIED, 0),
                newest_at=max((at for at in newest if at is not None), default=None),
            )

    # -- what allows an answer

    def _refusal(self, row: Row, now: Moment) -> Withheld | None:
        """The first thing that forbids an answer for this capture now, whatever the face."""
        limits = self.limits.provisional
        if limits is None or self._query("meta", name=_REFUSED).fetchone() is not None:
            return Withheld.UNAVAILABLE
        record = self._record(row, now)
        if not self._is_live(record, now):
            return Withheld.NOT_LIVE
        if record.consent is None or TEMPLATE_SCOPE not in record.consent.scopes:
            return Withheld.NO_CONSENT
        if not (now.synchronised and record.clock_synchronised):
            return Withheld.CLOCK_UNTRUSTED
        if self._blocked(row["user_hmac"]):
            return Withheld.BLOCKED
        return _amount_refusal(record, limits) or self._limit_refusal(row, limits, now)

    def _is_live(self, record: VerificationRecord, now: Moment) -> bool:
        """The customer waits, and nothing was tried before that could have had an outcome."""
        if record.state not in _LIVE or record.attempts != 1 or record.deadline is None or record.erased:
            return False
        left_s = record.deadline.seconds_since(now.instant)
        return left_s is not None and left_s >= 0

    def _limit_refusal(self, row: Row, limits: ProvisionalLimits, now: Moment) -> Withheld | None:
        outage = self._outage()
        if outage is None or outage.length_s(now) >= limits.max_offline_s:
            return Withheld.OFFLINE_TOO_LONG
        if max(outage.answers, self._unconfirmed()) >= limits.max_answers:
            return Withheld.COUNT_LIMIT
        if self._answers_today(row["user_hmac"], now) >= limits.max_answers_per_user_day:
            return Withheld.USER_LIMIT
        return None

    def _doubt(self, row: Row, likeness: Likeness, now: Moment) -> Withheld | None:
        """The template may have been destroyed since it was read."""
        usable = self._usable(row, likeness.model, now) if self.limits.provisional is not None else []
        if likeness.template_id not in {known["id"] for known in usable}:
            return Withheld.NO_TEMPLATE
        return None if likeness.same_person else Withheld.FACE_DIFFERS

    def _unconfirmed(self) -> int:
        return int(self._query("unconfirmed").fetchone()["number"])

    def _answers_today(self, user_hmac: bytes, now: Moment) -> int:
        """In the last 24 hours, of which the running clock is a lower bound: a row that was changed counts as well."""
        rows = self._query("provisional_answers_of_user", user_hmac=user_hmac).fetchall()
        ages = [age_s(now, running_s=row["at_running_s"], boot_id=row["at_boot_id"]) for row in rows]
        genuine = [self._mac_fits("provisional_answers", row) for row in rows]
        return sum(age < _DAY_S or not fits for age, fits in zip(ages, genuine, strict=True))

    # -- what is counted

    def _count_answer(self, row: Row, now: Moment) -> None:
        values = {
            "user_hmac": row["user_hmac"],
            "verification_id": row["id"],
            "at_boot_id": now.instant.boot_id,
            "at_running_s": float(now.running_s),
        }
        self._query("insert_provisional_answer", **self._sealed_values("provisional_answers", values))
        outage = self._outage()
        if outage is None:
            raise AssertionError("a provisional answer without an outage")
        self._set_outage(_Outage(outage.boot_id, outage.running_s, outage.answers + 1))

    def _begin_outage(self, now: Moment) -> None:
        if self._outage() is None:
            self._set_outage(_Outage(now.instant.boot_id, now.running_s))

    def _outage(self) -> _Outage | None:
        """None while CypherFace was heard after the last failure. Raises StorageError ``tampered``."""
        row = self._query("meta", name=_OUTAGE).fetchone()
        if row is None:
            return None
        if not any(same(row["mac"], mac(key, "meta", _OUTAGE, row["value"])) for key in self._keys.rows.values()):
            raise tampered("meta", _OUTAGE, "its mac is wrong")
        return _Outage(**json.loads(row["value"]))

    def _set_outage(self, outage: _Outage) -> None:
        known = {"boot_id": outage.boot_id, "running_s": outage.running_s, "answers": outage.answers}
        value = json.dumps(known).encode()
        self._query("set_meta", name=_OUTAGE, value=value, mac=mac(self._keys.row, "meta", _OUTAGE, value))

    def _prune_answers(self, now: Moment) -> None:
        """What is older than any day counts for nothing any more."""
        self._query("prune_provisional_answers", before_s=now.running_s - 2 * _DAY_S)

    def _was_answered(self, row: Row) -> bool:
        """Whether a provisional yes was given, also where the capture was set aside and queued again since."""
        if row["state"] == State.PROVISIONALLY_VERIFIED:
            return True
        return self._query("audited_answer", id=row["id"]).fetchone() is not None

    # -- what follows from a change

    def _apply(
        self, name: str, row: Row, now: Moment, detail: Mapping[str, Any] | None = None, **values: Any
    ) -> VerificationRecord | None:
        record = super()._apply(name, row, now, detail, **values)
        if record is not None:
            self._follow(name, row, record, now, detail)
        return record

    def _follow(
        self, name: str, before: Row, record: VerificationRecord, now: Moment, detail: Mapping[str, Any] | None
    ) -> None:
        """In the transaction of the change itself."""
        retired = detail is not None and detail.get("purpose") == RETIRED
        user_hmac = before["user_hmac"]
        if name == "verdict":
            self._follow_verdict(user_hmac, record, now)
        elif name == "erase" and not retired:  # templates have a period of their own
            self._wipe_templates(user_hmac, "erasure", now)
        if before["state"] == State.PROVISIONALLY_VERIFIED and record.state in _ENDED_UNCONFIRMED:
            self._block(user_hmac, record, "unconfirmed", now)

    def _follow_verdict(self, user_hmac: bytes, record: VerificationRecord, now: Moment) -> None:
        if record.contradicted:
            wiped = self._wipe_templates(user_hmac, "contradicted", now)
            detail = {"verification": record.id, "templates": wiped}
            self._chain.append(Entry("contradicted", user_hmac=user_hmac, detail=detail), now)
            self._block(user_hmac, record, "contradicted", now)
        elif record.state is State.NOT_VERIFIED and self._templates_of(user_hmac):
            self._block(user_hmac, record, "not_verified", now)
        elif record.state is State.VERIFIED and not record.late:
            self._query("lift_provisional_block", user_hmac=user_hmac)
        self._query("forget_meta", name=_REFUSED)
        if not self._unconfirmed():  # whoever lets a single answer through must not reset what is counted
            self._query("forget_meta", name=_OUTAGE)

    def _block(self, user_hmac: bytes, record: VerificationRecord, why: str, now: Moment) -> None:
        values = {"user_hmac": user_hmac, "why": why, "verification_id": record.id, "at": now.iso}
        self._query("set_provisional_block", **self._sealed_values("provisional_blocks", values))

    # -- parts

    def _withhold(self, row: Row, lease: Lease, why: Withheld, now: Moment) -> VerificationRecord:
        """Pending at once, unless the policy is nothing to this customer, who waits as under the policy ``queue``.

        A capture that went on meanwhile keeps what it has.
        """
        if why is Withheld.NOT_LIVE and row["reasons"]:
            return self._record(row, now)  # a later attempt: the first one said why
        pending = int(why not in _NOT_CONCERNED)
        detail = {"reason": why.value}
        record = self._apply("withhold", row, now, detail, token=lease.token, reasons=why.value, pending=pending)
        return record or self._record(row, now)

    def _newest_verdict(self, state: State) -> datetime | None:
        row = self._query("newest_verdict_of_state", state=state).fetchone()
        return from_iso(row["verdict_at"]) if row is not None and row["verdict_at"] else None


def _amount_refusal(record: VerificationRecord, limits: ProvisionalLimits) -> Withheld | None:
    if record.amount is None:
        return None if limits.without_amount else Withheld.AMOUNT_UNKNOWN
    most = limits.max_amounts.get(record.currency or "")
    if most is None:
        return Withheld.AMOUNT_UNKNOWN
    return Withheld.AMOUNT_OVER_LIMIT if record.amount > most else None


def _evidence(likeness: Likeness) -> dict[str, Any]:
    """For the audit record; the cosine is a score, not a face."""
    return {
        "template": likeness.template_id,
        "cosine": round(likeness.cosine, 4),
        "threshold": likeness.threshold,
        "model": likeness.model,
        "evidence": likeness.evidence,
    }
