"""Rotation of the device key: a new key over everything, in small steps that a power cut may end anywhere.

The first transaction seals the store's secrets under the new key and makes new row and audit keys. Then, batch by
batch, user keys are wrapped anew and rows are sealed anew. The last transaction forgets the old device key and the old
row key. In between both device keys are needed and every operation works.

Rows are sealed anew, although their old macs could be kept: whoever had the old device key and a copy of the files has
the old row key too, and could otherwise forge rows for ever. The look-up key and the users' own keys stay.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from edge_agent.errors import ConfigurationError, StorageError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.audit import AuditChain, Entry
from edge_agent.outbox.core import QUERIES
from edge_agent.outbox.crypto import KEY_BYTES, Rotation, StoreKeys, mac, same
from edge_agent.outbox.proof import Proof
from edge_agent.outbox.records import Recovery, RotationReport
from edge_agent.outbox.rows import Row

ROTATION_BATCH = 200
"""Rows per transaction: bounds the write-ahead log, and how long the store is busy at a time."""
_SEALED = (
    ("verifications", "seq"),
    ("idempotency", "key_hmac"),
    ("upload_marks", "image_name"),
    ("failures", "seq"),
    ("templates", "seq"),
    ("provisional_answers", "seq"),
    ("provisional_blocks", "user_hmac"),
)
"""Tables with a mac, and their keys."""
_LOWEST: dict[str, Any] = {"seq": -(1 << 63), "key_hmac": b"", "image_name": "", "user_hmac": b""}


@dataclass(slots=True)
class _Course:
    """How far this process has come. What it forgets at its end only costs another look at rows that are done."""

    after: dict[str, Any]
    """Table -> the last key that was looked at; a table that is done is not in it."""
    users: int = 0
    rows: int = 0
    left_alone: int = 0


class Rotating(Proof):
    """``rotate``, and its continuation after a restart."""

    _course: _Course | None = None

    @property
    def rotation(self) -> Rotation:
        """Whether the device key is to be rotated, is being rotated, or was."""
        return self._keys.rotation

    def rotate(self, *, actor: str, batch: int = ROTATION_BATCH) -> RotationReport:
        """Rotate from the previous key to the current one, or finish a rotation that was interrupted.

        ``actor`` is audited. Raises ConfigurationError ``rotation_not_due`` when the store is under the current key
        already.
        """
        self.begin_rotation(actor=actor)
        while not self.rotate_step(batch=batch):
            pass
        return self.rotation_report()

    def begin_rotation(self, *, actor: str) -> None:
        """The first transaction; ``rotate_step`` does the rest. Nothing happens while a rotation runs.

        For a caller that has other work for this thread in between. Raises as ``rotate``.
        """
        if self.rotation is Rotation.RUNNING:
            return
        if self.rotation is not Rotation.DUE:
            raise ConfigurationError(
                "cannot rotate the outbox key: the store is under the current key already",
                code="rotation_not_due",
                hint="put a new key in outbox.key and the one in use in outbox.previous_key, then start again",
            )
        keys = _next_keys(self._keys)
        chain = AuditChain(self._database, QUERIES, keys.audits, self.instance_id)
        with self._change() as now:
            self._store_keys(keys, now)
            self._reseal_meta(keys)
            chain.resign_anchors()
            chain.append(Entry("key_rotation_began", detail={"actor": actor, "generation": keys.generation}), now)
        self._use(keys)
        self._course = None

    def rotate_step(self, *, batch: int = ROTATION_BATCH) -> bool:
        """Wrap or seal up to ``batch`` rows anew, in one transaction; True when the rotation is finished."""
        if self.rotation is not Rotation.RUNNING:
            return True
        course = self._course = self._course or _Course(_beginnings())
        if "users" in course.after:
            self._rewrap(course, batch)
        elif course.after:
            self._reseal(course, next(iter(course.after)), batch)
        else:
            self._finish_rotation(course)
        return self.rotation is not Rotation.RUNNING

    def recover(self) -> Recovery:
        recovery = super().recover()
        return replace(recovery, rotation_finished=self._resume_rotation())

    def tick(self) -> None:
        super().tick()
        self._resume_rotation()

    # -- parts

    def _resume_rotation(self) -> bool:
        """True when an interrupted rotation was finished; on a full disk it stays ``running`` until a later tick."""
        if self.rotation is not Rotation.RUNNING:
            return False
        try:
            while not self.rotate_step():
                pass
        except StorageError as exc:
            if exc.code != "storage_full":
                raise
            return False
        return True

    def _store_keys(self, keys: StoreKeys, now: Moment) -> None:
        """Write the key tables as ``keys`` has them."""
        generation, device = keys.generation, keys.device
        self._query("insert_device_key", generation=generation, check_value=device.check_value, created_at=now.iso)
        for secret in self._query("secrets").fetchall():
            name, number = secret["name"], secret["generation"]
            value = self._keys.devices[secret["key_generation"]].open_secret(name, number, secret["sealed"])
            sealed = device.seal_secret(name, number, value)
            self._query("reseal_secret", name=name, generation=number, key_generation=generation, sealed=sealed)
        for name, ring in (("row", keys.rows), ("audit", keys.audits)):
            number = max(ring)
            sealed = device.seal_secret(name, number, ring[number])
            self._query("insert_secret", name=name, generation=number, key_generation=generation, sealed=sealed)

    def _reseal_meta(self, keys: StoreKeys) -> None:
        for row in self._query("sealed_meta").fetchall():
            if same(row["mac"], mac(self._keys.row, "meta", row["name"], row["value"])):
                sealed = mac(keys.row, "meta", row["name"], row["value"])
                self._query("set_meta", name=row["name"], value=row["value"], mac=sealed)

    def _use(self, keys: StoreKeys) -> None:
        self._keys = keys
        self._chain = AuditChain(self._database, QUERIES, keys.audits, self.instance_id)
        self._keys_changed()

    def _rewrap(self, course: _Course, batch: int) -> None:
        generation, after = self._keys.generation, course.after["users"]
        with self._change():
            rows = self._query("users_to_rewrap", generation=generation, after=after, batch=batch).fetchall()
            rewrapped = sum(self._rewrap_user(row) for row in rows)
        course.users += rewrapped
        _advance(course, "users", "user_hmac", rows, batch, rewrapped)

    def _rewrap_user(self, row: Row) -> bool:
        """False for a user key that does not authenticate: no key opens it, the new one neither."""
        user_hmac, wrapped = row["user_hmac"], row["wrapped_key"]
        try:
            user_key = self._keys.unwrap_user_key(user_hmac, row["key_generation"], wrapped)
            wrapped = self._keys.device.wrap_user_key(user_hmac, user_key)
        except StorageError as exc:
            if exc.code != "tampered":
                raise
        self._query("rewrap_user", user_hmac=user_hmac, generation=self._keys.generation, wrapped_key=wrapped)
        return bool(wrapped != row["wrapped_key"])

    def _reseal(self, course: _Course, table: str, batch: int) -> None:
        key = dict(_SEALED)[table]
        values = {"generation": self._keys.row_generation, "after": course.after[table], "batch": batch}
        with self._change():
            rows = self._query(f"{table}_to_reseal", **values).fetchall()
            genuine = [row for row in rows if self._mac_fits(table, row)]
            for row in genuine:
                unsealed = {name: value for name, value in dict(row).items() if name != "mac"}
                sealed = self._sealed_values(table, unsealed)
                marks = {name: sealed[name] for name in (key, "mac_generation", "mac")}
                self._query(f"reseal_{table}", **marks)
        course.rows += len(genuine)
        _advance(course, table, key, rows, batch, len(genuine))

    def _finish_rotation(self, course: _Course) -> None:
        keys = self._keys
        self._destroy_asides("rotation")  # they hold keys wrapped under the old one
        with self._change() as now:
            self._rewrite_users()
            self._query("drop_row_keys", generation=keys.row_generation)
            self._query("drop_device_keys", generation=keys.generation)
            detail = {"generation": keys.generation, "users": course.users, "rows": course.rows}
            self._chain.append(Entry("key_rotated", detail={**detail, "left_alone": course.left_alone}), now)
        rows = {keys.row_generation: keys.row}
        self._use(replace(keys, devices={keys.generation: keys.device}, rows=rows))
        self._wipe()

    def rotation_report(self) -> RotationReport:
        """What was done so far by this process."""
        course = self._course or _Course({})
        return RotationReport(
            generation=self._keys.generation,
            users=course.users,
            rows=course.rows,
            left_alone=course.left_alone,
            traces_left=self.erasure_pending,
        )


def _next_keys(keys: StoreKeys) -> StoreKeys:
    return replace(
        keys,
        devices={**keys.devices, keys.generation + 1: keys.configured},
        rows={**keys.rows, keys.row_generation + 1: os.urandom(KEY_BYTES)},
        audits={**keys.audits, max(keys.audits) + 1: os.urandom(KEY_BYTES)},
    )


def _beginnings() -> dict[str, Any]:
    return {"users": _LOWEST["user_hmac"]} | {table: _LOWEST[key] for table, key in _SEALED}


def _advance(course: _Course, table: str, key: str, rows: list[Row], batch: int, done: int) -> None:
    course.left_alone += len(rows) - done
    if len(rows) < batch:
        del course.after[table]
    else:
        course.after[table] = rows[-1][key]
