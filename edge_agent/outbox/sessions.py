"""From the request to the durable capture."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.core import QUERIES, TRANSITIONS
from edge_agent.outbox.crypto import KEY_BYTES, Place, same, seal, tampered
from edge_agent.outbox.lockout import Lockouts
from edge_agent.outbox.records import NewVerification, VerificationRecord
from edge_agent.outbox.rows import Row, environment_text, private_text, with_challenge
from edge_agent.types import GateCode, State

IDEMPOTENCY_VALID_S = 24 * 3600.0


class Sessions(Lockouts):
    """Operations of the session."""

    def create(self, new: NewVerification) -> tuple[VerificationRecord, bool]:
        """Begin a verification, or find the one that this idempotency key began: (record, replayed).

        Raises InputError ``idempotency_mismatch`` or ``idempotency_expired``, and StorageError ``storage_full``
        (the key is then not consumed).
        """
        with self._change(new=True) as now:
            key_hmac = self._keys.idempotency_hmac(new.caller, new.idempotency_key)
            known = self._query("idempotency", key_hmac=key_hmac).fetchone()
            if known is not None:
                return self._replay(known, new, now), True
            self._reserve.check_new(0, self.limits.reserve_bytes)
            record = self._insert(new, now)
            self._remember_key(key_hmac, new, record, now)
            self._changed.append(record)
            return record, False

    def find_replay(self, new: NewVerification) -> VerificationRecord | None:
        """The verification that this idempotency key began, or None; nothing changes.

        For a caller that must know before it looks at what ``create`` would need. Raises InputError as ``create``.
        """
        with self._database.reading():
            key_hmac = self._keys.idempotency_hmac(new.caller, new.idempotency_key)
            known = self._query("idempotency", key_hmac=key_hmac).fetchone()
            return None if known is None else self._replay(known, new, self._now())

    def commit_capture(
        self,
        verification_id: str,
        jpeg: bytes,
        *,
        quality_score: float,
        liveness_score: float,
        facts: Mapping[str, Any] | None = None,
        challenge: str | None = None,
    ) -> VerificationRecord:
        """``searching`` -> captured: when this returns, the picture is encrypted on the disk.

        ``challenge``: what was passed beside the models, for the record and the audit record. ``facts`` go into the audit
        record beside the scores; they must hold no pixels and no raw user id.
        Raises StateConflict when the session ended first (a cancel), StorageError ``storage_full``.
        """
        digest = hashlib.sha256(jpeg).hexdigest()
        with self._change(new=True) as now:
            row = self._find(verification_id)
            if row["state"] != State.SEARCHING:
                self._must(None, row, now, "store a capture for")
            self._reserve.check_new(len(jpeg), self.limits.reserve_bytes)
            self._make_room(len(jpeg), now)
            detail = {"quality_score": quality_score, "liveness_score": liveness_score, **(facts or {})}
            detail |= {"image_sha256": digest, "image_bytes": len(jpeg)}
            private = row["private"]
            if challenge is not None:
                detail |= {"challenge": challenge}
                private = self._seal_text(row, "private", with_challenge(self._details(row), challenge))
            self._insert_payload(row, jpeg)
            record = self._apply(
                "capture", row, now, detail, image_sha256=digest, image_bytes=len(jpeg), private=private
            )
            return self._must(record, row, now, "store a capture for")

    def cancel(self, verification_id: str) -> VerificationRecord:
        """``searching`` -> cancelled. Raises StateConflict once captured or over."""
        with self._change() as now:
            row = self._find(verification_id)
            return self._must(self._apply("cancel", row, now), row, now, "cancel")

    def reject(
        self, verification_id: str, reasons: Collection[str], *, facts: Mapping[str, Any] | None = None
    ) -> VerificationRecord:
        """``searching`` -> rejected, with gate codes. A suspected spoof counts for the lock-out.

        ``facts`` go into the audit record beside the reasons, as in ``commit_capture``.
        """
        codes = [str(code) for code in reasons]
        with self._change() as now:
            row = self._find(verification_id)
            record = self._apply("reject", row, now, {"reasons": codes, **(facts or {})}, reasons=" ".join(codes))
            if record is not None and GateCode.SPOOF_SUSPECTED in codes:
                self._count_failure(row["user_hmac"], "spoof", now, terminal=True)
            return self._must(record, row, now, "reject")

    def fail(self, verification_id: str, code: str, detail: str | None = None) -> VerificationRecord:
        """``searching`` -> failed."""
        with self._change() as now:
            row = self._find(verification_id)
            sealed = self._seal_text(row, "error_detail", detail)
            record = self._apply("fail", row, now, {"code": code}, code=code, error_detail=sealed)
            return self._must(record, row, now, "fail")

    def pend(self, verification_id: str) -> VerificationRecord:
        """``captured``, ``matching`` -> ``pending`` at the verdict deadline; a lease goes on. Otherwise nothing changes."""
        with self._change() as now:
            row = self._find(verification_id)
            return self._apply("pend", row, now) or self._record(row, now)

    # -- parts of create

    def _replay(self, known: Row, new: NewVerification, now: Moment) -> VerificationRecord:
        if not self._mac_fits("idempotency", known):
            raise tampered("idempotency key of", known["verification_id"], "its mac is wrong")
        row = self._query("by_id", id=known["verification_id"]).fetchone()
        if self._age_s(known, now) > IDEMPOTENCY_VALID_S or row is None:
            raise InputError(
                "cannot replay the request: its idempotency key is older than 24 hours",
                code="idempotency_expired",
                hint="use a new key for a new verification",
            )
        if not same(known["body_hmac"], self._keys.body_hmac(new.body)):
            raise InputError(
                "cannot replay the request: the same idempotency key came with another body",
                code="idempotency_mismatch",
                hint="use one key per payment attempt",
            )
        return self._record(self._authentic(row), now)

    def _insert(self, new: NewVerification, now: Moment) -> VerificationRecord:
        verification_id = uuid.uuid4().hex
        user_hmac = self._keys.user_hmac(new.user_id)
        user_key = self._ensure_user(user_hmac, new.user_id)
        private = private_text(new.reference, new.amount, new.currency, new.consent)
        place = Place("verifications", verification_id, "private", user_hmac)
        self._database.execute(
            TRANSITIONS["insert"],
            id=verification_id,
            user_hmac=user_hmac,
            caller=new.caller,
            environment=environment_text(new.environment),
            now=now.iso,
            synchronised=int(now.synchronised),
            boot_id=now.instant.boot_id,
            boottime_s=now.instant.boottime_s,
            running_s=now.running_s,
            search_timeout_s=new.search_timeout_s,
            verdict_timeout_s=new.verdict_timeout_s,
            private=seal(user_key, private.encode(), place) if private else None,
        )
        row = self._query("by_id", id=verification_id).fetchone()
        detail = {"caller": new.caller, **self._claims(verification_id, new)}
        return self._record(self._finish("create", row, now, None, detail), now)

    def _claims(self, verification_id: str, new: NewVerification) -> dict[str, Any]:
        """What the request said, for the audit log, which outlives erasure: keyed hashes, and the scopes of consent."""
        said = {
            "reference": new.reference,
            "amount": None if new.amount is None else str(new.amount),
            "currency": new.currency,
            "consent": None if new.consent is None else new.consent.reference,
        }
        claims: dict[str, Any] = {
            name: self._keys.claim_hmac(verification_id, name, value).hex()
            for name, value in said.items()
            if value is not None
        }
        return claims if new.consent is None else claims | {"consent_scopes": list(new.consent.scopes)}

    def _ensure_user(self, user_hmac: bytes, user_id: str) -> bytes:
        known = self._user_key(user_hmac)
        if known is not None:
            return known
        user_key = os.urandom(KEY_BYTES)
        self._database.execute(
            QUERIES["insert_user"],
            user_hmac=user_hmac,
            generation=self._keys.generation,
            wrapped_key=self._keys.device.wrap_user_key(user_hmac, user_key),
            user_id=seal(user_key, user_id.encode(), Place("users", user_hmac.hex(), "user id", user_hmac)),
        )
        return user_key

    def _remember_key(self, key_hmac: bytes, new: NewVerification, record: VerificationRecord, now: Moment) -> None:
        values = {
            "key_hmac": key_hmac,
            "body_hmac": self._keys.body_hmac(new.body),
            "verification_id": record.id,
            "created_at": now.iso,
            "created_synchronised": int(now.synchronised),
            "created_boot_id": now.instant.boot_id,
            "created_running_s": float(now.running_s),
        }
        self._query("insert_idempotency", **self._sealed_values("idempotency", values))

    # -- parts of commit_capture

    def _details(self, row: Row) -> str | None:
        return self._open_text(self._user_key(row["user_hmac"]), row, "private")

    def _insert_payload(self, row: Row, jpeg: bytes) -> None:
        user_key = self._user_key(row["user_hmac"])
        if user_key is None:
            raise tampered("users", row["user_hmac"].hex(), "it is missing")
        row_key = os.urandom(KEY_BYTES)
        self._query(
            "insert_payload",
            seq=row["seq"],
            row_key=seal(user_key, row_key, Place("payloads", row["id"], "row key", row["user_hmac"])),
            bytes=len(jpeg),
            picture=seal(row_key, jpeg, Place("payloads", row["id"], "picture", row["user_hmac"])),
        )

    def _make_room(self, picture_bytes: int, now: Moment) -> None:
        """Evict the oldest, each visibly, until one more picture fits under the caps."""
        after = 0
        while not self._fits(picture_bytes):
            row = self._query("oldest_to_evict", after=after).fetchone()
            if row is None:
                raise StorageError(
                    "cannot take a new capture: the outbox is at its cap and everything in it is in use",
                    code="storage_full",
                    hint="raise outbox.max_items or outbox.max_bytes",
                    retryable=True,
                )
            after = row["seq"]
            if self._readable(row, now):
                cap = {"max_items": self.limits.max_items, "max_bytes": self.limits.max_bytes}
                self._apply("unpark" if row["parked"] else "evict", row, now, cap)

    def _fits(self, picture_bytes: int) -> bool:
        totals = self._query("totals").fetchone()
        return bool(
            totals["items"] < self.limits.max_items and totals["bytes"] + picture_bytes <= self.limits.max_bytes
        )
