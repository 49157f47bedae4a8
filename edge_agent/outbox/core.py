"""What every operation of the store is made of: load and authenticate a row, apply one transition, seal, audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import keyfile
from edge_agent.outbox.ages import Moment, RunningClock, age_s, from_iso
from edge_agent.outbox.audit import AuditChain, Entry
from edge_agent.outbox.clock import BootInstant, Clock
from edge_agent.outbox.crypto import Place, StoreKeys, same, seal, tampered, unseal
from edge_agent.outbox.database import Database, load_statements
from edge_agent.outbox.recent import Recent
from edge_agent.outbox.records import (
    Environment,
    Lease,
    LeaseLost,
    Limits,
    StateConflict,
    VerificationRecord,
)
from edge_agent.outbox.rows import Row, boot_instant, columns_of, lease_of, private_details, row_mac, verdict_of
from edge_agent.outbox.space import Reserve
from edge_agent.types import State

TRANSITIONS = load_statements("transitions.sql")
QUERIES = load_statements("queries.sql")
QUEUED = frozenset({State.CAPTURED, State.MATCHING, State.PENDING, State.PROVISIONALLY_VERIFIED})
"""States whose captures the forwarder has work with (the same list stands in the SQL)."""

Listener = Callable[[VerificationRecord], None]


class Core:
    """Shared by the parts of the store; not used on its own."""

    def __init__(
        self,
        database: Database,
        keys: StoreKeys,
        clock: Clock,
        running: RunningClock,
        *,
        instance_id: str,
        limits: Limits,
        listener: Listener | None,
        reserve: Reserve,
    ) -> None:
        self.limits = limits
        self.instance_id = instance_id
        self.tampered: set[str] = set()
        """Ids of verifications that did not authenticate; they are left alone."""
        self.erasure_pending = False
        """True while traces of something erased may still be in the write-ahead log."""
        self._database = database
        self._keys = keys
        self._clock = clock
        self._running = running
        self._listener = listener
        self._reserve = reserve
        self._chain = AuditChain(database, QUERIES, keys.audits, instance_id)
        self._changed: list[VerificationRecord] = []
        self._recent = Recent()
        self._user_keys: dict[bytes, bytes] | None = None
        """User keys opened by the transaction in progress; None outside of one: no key outlives it here."""

    # -- transactions

    @contextmanager
    def _change(self, *, new: bool = False) -> Iterator[Moment]:
        """One transaction. The listener hears of its records after the commit, in order.

        new: it takes something in, so it gets none of the space that is reserved for what is stored already.
        """
        self._changed = []
        self._user_keys = {}
        try:
            with self._database.transaction() if new else self._draining():
                yield self._now()
        finally:
            self._user_keys = None
        changed, self._changed = self._changed, []
        for record in changed if self._listener else ():
            self._listener(record)  # type: ignore[misc]  # the loop is empty without a listener

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """A transaction that may use the reserve; where the disk was too full for it, the next one has more room."""
        self._reserve.make_room()
        try:
            with self._database.transaction():
                yield
        except StorageError as exc:
            if exc.code == "storage_full":
                self._reserve.give_back()
            raise

    def _now(self) -> Moment:
        self._running = self._running.trusting(self._clock)
        return self._running.moment(self._clock)

    def _query(self, statement: str, /, **values: Any) -> sqlite3.Cursor:
        return self._database.execute(QUERIES[statement], **values)

    # -- rows

    def _find(self, verification_id: str) -> Row:
        """The authenticated row. Raises InputError ``not_found``, StorageError ``tampered``."""
        return self._authentic(self._row(verification_id))

    def _row(self, verification_id: str) -> Row:
        row: Row | None = self._query("by_id", id=verification_id).fetchone()
        if row is None:
            raise InputError("cannot find the verification: there is none with this id", code="not_found")
        return row

    def _authentic(self, row: Row) -> Row:
        row = columns_of(row)
        if not self._mac_fits("verifications", row):
            self.tampered.add(row["id"])
            raise tampered("verification", row["id"], "its mac is wrong")
        return row

    def _mac_fits(self, table: str, row: Row) -> bool:
        key = self._keys.rows.get(row["mac_generation"])
        return key is not None and same(row["mac"], row_mac(key, table, columns_of(row)))

    def _sealed_values(self, table: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with ``mac_generation`` and ``mac``; they must be complete and of the columns' types."""
        complete = {**values, "mac_generation": self._keys.row_generation}
        return {**complete, "mac": row_mac(self._keys.row, table, complete)}

    # -- transitions

    def _apply(
        self, name: str, row: Row, now: Moment, detail: Mapping[str, Any] | None = None, **values: Any
    ) -> VerificationRecord | None:
        """Run one statement of transitions.sql on an authenticated row, with all that belongs to it.

        Returns the record as it is now, or None when the row was not in a state that allows it.
        """
        cursor = self._database.execute(
            TRANSITIONS[name],
            seq=row["seq"],
            now=now.iso,
            boot_id=now.instant.boot_id,
            boottime_s=now.instant.boottime_s,
            **values,
        )
        if cursor.rowcount != 1:
            return None
        # not by RETURNING: it gives whole numbers of REAL columns as int, which the mac tells from float
        after = columns_of(self._query("by_seq", seq=row["seq"]).fetchone())
        if row["image_bytes"] and not after["image_bytes"]:
            self._query("delete_payload", seq=row["seq"])
            self.erasure_pending = True
        if after["erased"]:
            self._recent.forget()
        record = self._record(self._finish(name, after, now, row["state"], detail), now)
        if {row["state"], after["state"]} & QUEUED:
            self._refresh_lane(after["user_hmac"], after["environment"], now)
        self._changed.append(record)
        return record

    def _finish(self, event: str, row: Row, now: Moment, before: str | None, detail: Mapping[str, Any] | None) -> Row:
        """Audit the change of ``row`` and seal it."""
        entry = Entry(event, row["id"], row["user_hmac"], before, row["state"], detail)
        values = {**columns_of(row), "audit_seq": self._chain.append(entry, now)}
        sealed = self._sealed_values("verifications", values)
        self._database.execute(
            TRANSITIONS["seal"],
            seq=row["seq"],
            audit_seq=sealed["audit_seq"],
            generation=sealed["mac_generation"],
            mac=sealed["mac"],
        )
        return sealed

    def _must(self, record: VerificationRecord | None, row: Row, now: Moment, what: str) -> VerificationRecord:
        if record is None:
            raise StateConflict(f"cannot {what} the verification: it is {row['state']}", self._record(row, now))
        return record

    def _held(self, verification_id: str, lease: Lease, now: Moment) -> Row:
        """The row, if it is still held under this lease. Raises LeaseLost."""
        row = self._find(verification_id)
        if row["lease_token"] != lease.token or row["lease_until_running_s"] <= now.running_s:
            raise LeaseLost(
                f"cannot take the result: the lease is over and the verification is {row['state']}",
                self._record(row, now),
            )
        return row

    def _refresh_lane(self, user_hmac: bytes, environment: str, now: Moment) -> None:
        """After every change of a queued row, and after what changes in the quarantines of its user."""
        self._query("drop_lane", user_hmac=user_hmac, environment=environment)
        self._query("set_lane", user_hmac=user_hmac, environment=environment, running_s=now.running_s)

    # -- what is sealed under the user's key

    def _user_key(self, user_hmac: bytes) -> bytes | None:
        """None when the user was erased."""
        opened = self._user_keys if self._user_keys is not None else {}
        if user_hmac not in opened:
            row = self._query("user", user_hmac=user_hmac).fetchone()
            if row is None:
                return None
            opened[user_hmac] = self._keys.unwrap_user_key(user_hmac, row["key_generation"], row["wrapped_key"])
        return opened[user_hmac]

    def _delete_user(self, user_hmac: bytes) -> None:
        """Destroy the user's key: what is sealed under it cannot be read again, by this transaction either."""
        self._query("delete_user", user_hmac=user_hmac)
        self._recent.forget()
        if self._user_keys is not None:
            self._user_keys.pop(user_hmac, None)

    def _seal_text(self, row: Row, column: str, text: str | None) -> bytes | None:
        key = self._user_key(row["user_hmac"]) if text is not None else None
        if key is None or text is None:
            return None
        return seal(key, text.encode(), Place("verifications", row["id"], column, row["user_hmac"]))

    def _open_text(self, key: bytes | None, row: Row, column: str) -> str | None:
        if key is None or row[column] is None:
            return None
        return unseal(key, row[column], Place("verifications", row["id"], column, row["user_hmac"])).decode()

    def _rewrite_users(self) -> None:
        """Leave no copy of a wrapped key that is not in use: pages that were split or joined keep some."""
        for name in ("take_users_out", "empty_users", "put_users_back", "forget_taken_out"):
            self._query(name)

    def _keys_changed(self) -> None:
        """The sealed secrets are not (certain to be) those of before: their side file is renewed.

        A full disk leaves that to the next start: it must not keep the queue from draining.
        """
        try:
            keyfile.save(self._database.path.parent, self._database)
        except StorageError as exc:
            if exc.code != "storage_full":
                raise

    def _user_id(self, key: bytes, user_hmac: bytes) -> str:
        row = self._query("user", user_hmac=user_hmac).fetchone()
        return unseal(key, row["user_id"], Place("users", user_hmac.hex(), "user id", user_hmac)).decode()

    # -- records

    def _readable(self, row: Row, now: Moment) -> bool:
        """Whether everything of the row and its user authenticates; if not it is left alone and others go on."""
        try:
            for leased in self._query("leased_of_user", user_hmac=row["user_hmac"]).fetchall():
                self._authentic(leased)
            self._record(self._authentic(row), now)
        except StorageError as exc:
            if exc.code != "tampered":
                raise
            self.tampered.add(row["id"])
            return False
        return True

    def _read(self, row: Row, now: Moment) -> VerificationRecord:
        """The record of a committed row, for readers outside of a transaction. Raises StorageError ``tampered``."""
        row = columns_of(row)
        in_force = row["mac_generation"] in self._keys.rows
        known = self._recent.find(row) if in_force else None
        if known is not None:
            return replace(known, age_s=self._age_s(row, now))
        record = self._record(self._authentic(row), now)
        self._recent.keep(row, record)
        return record

    def _read_all(self, rows: Iterable[Row], now: Moment) -> Iterator[VerificationRecord]:
        """As ``_read``; rows that do not authenticate are left out and named in ``tampered``."""
        for row in rows:
            try:
                yield self._read(row, now)
            except StorageError as exc:
                if exc.code != "tampered":
                    raise
                self.tampered.add(row["id"])

    def _age_s(self, row: Row, now: Moment) -> float:
        return age_s(now, running_s=row["created_running_s"], boot_id=row["created_boot_id"])

    def _record(self, row: Row, now: Moment) -> VerificationRecord:
        key = None if row["erased"] else self._user_key(row["user_hmac"])
        merchant_id, base_url = row["environment"].split(" ", 1)
        return VerificationRecord(
            id=row["id"],
            seq=row["seq"],
            state=State(row["state"]),
            user_id=self._user_id(key, row["user_hmac"]) if key else None,
            user_hmac=row["user_hmac"].hex(),
            caller=row["caller"],
            environment=Environment(base_url, merchant_id),
            created_at=from_iso(row["created_at"]),
            clock_synchronised=bool(row["created_synchronised"]),
            created=BootInstant(row["created_boot_id"], row["created_boottime_s"]),
            created_running_s=row["created_running_s"],
            age_s=self._age_s(row, now),
            search_timeout_s=row["search_timeout_s"],
            verdict_timeout_s=row["verdict_timeout_s"],
            updated_at=from_iso(row["updated_at"]),
            audit_seq=row["audit_seq"],
            captured_at=from_iso(row["captured_at"]) if row["captured_at"] else None,
            deadline=boot_instant(row, "deadline"),
            image_sha256=row["image_sha256"],
            image_bytes=row["image_bytes"],
            reasons=tuple(row["reasons"].split()),
            error_code=row["error_code"],
            error_detail=self._open_text(key, row, "error_detail"),
            error_status=row["error_status"],
            parked=bool(row["parked"]),
            verdict=verdict_of(row),
            verdict_at=from_iso(row["verdict_at"]) if row["verdict_at"] else None,
            verdict_instant=boot_instant(row, "verdict"),
            late=bool(row["late"]),
            contradicted=bool(row["contradicted"]),
            erased=bool(row["erased"]),
            attempts=row["attempts"],
            transients=row["transients"],
            conflicts=row["conflicts"],
            next_attempt_running_s=row["next_attempt_running_s"],
            lease=lease_of(row),
            **private_details(self._open_text(key, row, "private")),
        )
