"""Face templates: kept from confirmed captures, few per user, and destroyed as soon as there is no reason for them.

A template is sealed under its user's key, so that the user's deletion makes it unreadable before its row is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from edge_agent.outbox.ages import Moment, age_s
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.crypto import Place, seal, tampered, unseal
from edge_agent.outbox.provisional_records import TEMPLATE_SCOPE, NewTemplate, ProvisionalLimits, Template
from edge_agent.outbox.rows import Row
from edge_agent.outbox.sessions import Sessions
from edge_agent.types import State


class Templates(Sessions):
    """Kept, read and destroyed; what may be answered with them is provisional.py's."""

    def keep_template(self, verification_id: str, new: NewTemplate) -> bool:
        """Keep a template of a capture that CypherFace confirmed; False where there is no right or reason to.

        It needs the policy, a positive verdict with a reported similarity, consent with the scope ``template``, and a
        user who is not blocked. Of too many, what is worst and closest in time to another is destroyed.
        Raises InputError ``not_found``, StorageError ``tampered``.
        """
        with self._change() as now:
            row, limits = self._find(verification_id), self.limits.provisional
            if limits is None or not self._may_keep(row, now):
                return False
            template_id = self._insert_template(row, new, now)
            detail = {"template": template_id, "verification": row["id"], "model": new.model, "quality": new.quality}
            self._chain.append(Entry("template_kept", user_hmac=row["user_hmac"], detail=detail), now)
            self._thin_out(row["user_hmac"], new.model, limits, now)
            return True

    # -- parts

    def _may_keep(self, row: Row, now: Moment) -> bool:
        record = self._record(row, now)
        verdict = record.verdict
        return (
            record.state is State.VERIFIED
            and not record.erased
            and verdict is not None
            and verdict.positive
            and verdict.similarity is not None
            and record.consent is not None
            and TEMPLATE_SCOPE in record.consent.scopes
            and not self._blocked(row["user_hmac"])
            and all(known["verification_id"] != row["id"] for known in self._templates_of(row["user_hmac"]))
        )

    def _blocked(self, user_hmac: bytes) -> bool:
        """A block that does not authenticate blocks as well."""
        return self._query("provisional_block", user_hmac=user_hmac).fetchone() is not None

    def _insert_template(self, row: Row, new: NewTemplate, now: Moment) -> str:
        template_id, user_hmac = uuid.uuid4().hex, row["user_hmac"]
        user_key = self._user_key(user_hmac)
        if user_key is None:
            raise tampered("users", user_hmac.hex(), "it is missing")
        values = {
            "id": template_id,
            "user_hmac": user_hmac,
            "verification_id": row["id"],
            "environment": row["environment"],
            "model": new.model,
            "quality": float(new.quality),
            "made_at": now.iso,
            "made_boot_id": now.instant.boot_id,
            "made_running_s": float(now.running_s),
            "embedding": seal(user_key, new.embedding, Place("templates", template_id, "embedding", user_hmac)),
        }
        self._query("insert_template", **self._sealed_values("templates", values))
        return template_id

    def _templates_of(self, user_hmac: bytes) -> list[Row]:
        return self._query("templates_of_user", user_hmac=user_hmac).fetchall()

    def _usable(self, row: Row, model: str, now: Moment) -> list[Row]:
        """Those that this capture may be compared with: genuine, young, of this model and this service."""
        return [
            known
            for known in self._templates_of(row["user_hmac"])
            if known["model"] == model
            and known["environment"] == row["environment"]
            and self._mac_fits("templates", known)
            and not self._template_is_old(known, now)
        ]

    def _open_template(self, row: Row) -> Template:
        """Raises StorageError ``tampered``."""
        user_key = self._user_key(row["user_hmac"])
        if user_key is None:
            raise tampered("users", row["user_hmac"].hex(), "it is missing")
        place = Place("templates", row["id"], "embedding", row["user_hmac"])
        return Template(row["id"], unseal(user_key, row["embedding"], place))

    def _template_is_old(self, row: Row, now: Moment) -> bool:
        age = age_s(now, running_s=row["made_running_s"], boot_id=row["made_boot_id"])
        return age >= self.limits.template_age_s

    def _thin_out(self, user_hmac: bytes, model: str, limits: ProvisionalLimits, now: Moment) -> None:
        """Those of another model go, then the superfluous ones."""
        known = self._templates_of(user_hmac)
        self._destroy_templates([row for row in known if row["model"] != model], "another_model", now)
        kept = [row for row in known if row["model"] == model]
        self._destroy_templates(superfluous(kept, limits.max_templates), "cap", now)

    def _destroy_templates(self, rows: Sequence[Row], why: str, now: Moment) -> None:
        """Each with a record of its destruction; its traces in the write-ahead log go with the next tick."""
        for row in rows:
            self._query("delete_template", seq=row["seq"])
            detail = {"template": row["id"], "why": why}
            self._chain.append(Entry("template_destroyed", user_hmac=row["user_hmac"], detail=detail), now)
            self.erasure_pending = True

    def _wipe_templates(self, user_hmac: bytes, why: str, now: Moment) -> int:
        """All of a user; returns how many there were."""
        rows = self._templates_of(user_hmac)
        self._destroy_templates(rows, why, now)
        return len(rows)

    def _delete_user(self, user_hmac: bytes) -> None:
        super()._delete_user(user_hmac)
        if self._query("delete_templates_of_user", user_hmac=user_hmac).rowcount:
            self.erasure_pending = True


def superfluous(rows: Sequence[Row], most: int) -> list[Row]:
    """What to destroy so that ``most`` are left: spread over time, and the better of two that are close.

    rows: in the order in which they were made. Of the two neighbours that are closest in time the poorer one goes
    (of equals the older one), until few enough are left.
    """
    kept, gone = list(rows), list[Row]()
    while len(kept) > most:
        if len(kept) == 1:
            return [*gone, *kept]
        gaps = [later["made_running_s"] - kept[n]["made_running_s"] for n, later in enumerate(kept[1:])]
        first = min(range(len(gaps)), key=gaps.__getitem__)
        poorer = first if kept[first]["quality"] <= kept[first + 1]["quality"] else first + 1
        gone.append(kept.pop(poorer))
    return gone
