"""Making and opening the keys of a store: the key check value, the sealed secrets, the machine's identity."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edge_agent.errors import StorageError
from edge_agent.outbox.crypto import KEY_BYTES, DeviceKeys, StoreKeys, mac, same, tampered
from edge_agent.outbox.database import Database

FIRST_GENERATION = 1
"""Of a new store. The lookup key stays in it for ever."""
SECRETS = ("lookup", "row", "audit")
_IDENTITY_FILES = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))
"""The installation, and on a Pi or Jetson the board: a moved card has the same first, another second. Both are
readable by everybody, so the daemon and root see the same identity."""


class Readable(Protocol):
    """What unlocking needs of a database: it reads."""

    @property
    def path(self) -> Path: ...
    def execute(self, sql: str, **values: Any) -> sqlite3.Cursor: ...


def machine_identity() -> str:
    """A digest of what tells this machine from others; never stored in clear."""
    digest = hashlib.sha256()
    for file in _IDENTITY_FILES:
        try:
            digest.update(file.read_bytes().strip(b"\0\n"))
        except OSError:
            pass  # not every machine has both
        digest.update(b"\0")
    return digest.hexdigest()


def initialise(database: Database, sql: Mapping[str, str], device_key: bytes, created_at: str) -> None:
    """Fill the key tables of a new store."""
    store_id = os.urandom(16)
    device = DeviceKeys(device_key, store_id)
    database.execute(sql["set_meta"], name="store_id", value=store_id, mac=None)
    database.execute(
        sql["insert_device_key"], generation=FIRST_GENERATION, check_value=device.check_value, created_at=created_at
    )
    for name in SECRETS:
        database.execute(
            sql["insert_secret"],
            name=name,
            generation=FIRST_GENERATION,
            key_generation=FIRST_GENERATION,
            sealed=device.seal_secret(name, FIRST_GENERATION, os.urandom(KEY_BYTES)),
        )


def unlock(
    database: Readable, sql: Mapping[str, str], device_key: bytes, previous_key: bytes | None = None
) -> StoreKeys:
    """The keys of an existing store. ``previous_key`` is asked for what ``device_key`` does not open.

    Raises StorageError ``key_mismatch`` unless every generation of the device key is there: the queue is left as it is.
    """
    row = database.execute(sql["meta"], name="store_id").fetchone()
    if row is None:
        raise tampered("meta", "store_id", "it is missing")
    configured = DeviceKeys(device_key, row["value"])
    given = [configured] if previous_key is None else [configured, DeviceKeys(previous_key, row["value"])]
    devices = _open_generations(database, sql, given)
    secrets = _open_secrets(database, sql, devices)
    lookup, rows, audits = (secrets[name] for name in SECRETS)
    return StoreKeys(devices, lookup[FIRST_GENERATION], rows, audits, configured, previous_key is not None)


def _open_generations(database: Readable, sql: Mapping[str, str], given: Sequence[DeviceKeys]) -> dict[int, DeviceKeys]:
    checks = database.execute(sql["check_values"]).fetchall()
    devices = {
        check["generation"]: device
        for check in checks
        for device in given
        if same(check["check_value"], device.check_value)
    }
    if devices and len(devices) == len(checks):
        return devices
    if devices:
        raise StorageError(
            f"cannot open {database.path}: the rotation of its key was interrupted, and both keys are needed to end it",
            code="key_mismatch",
            hint="give the new key as outbox.key and the one before as outbox.previous_key; nothing was changed",
        )
    raise StorageError(
        f"cannot open {database.path}: the outbox key is not the one it was made with",
        code="key_mismatch",
        hint="give the old key back; nothing was changed. Without it the queued captures cannot be read by anybody",
    )


def _open_secrets(
    database: Readable, sql: Mapping[str, str], devices: Mapping[int, DeviceKeys]
) -> dict[str, dict[int, bytes]]:
    """By name, then by generation."""
    found: dict[str, dict[int, bytes]] = {name: {} for name in SECRETS}
    for secret in database.execute(sql["secrets"]):
        name, generation = secret["name"], secret["generation"]
        device = devices.get(secret["key_generation"])
        if device is None:
            raise tampered("secrets", name, "there is no device key for it")
        found.setdefault(name, {})[generation] = device.open_secret(name, generation, secret["sealed"])
    for name in SECRETS:
        if not found[name]:
            raise tampered("secrets", name, "it is missing")
    return found


def check_machine(database: Database, sql: Mapping[str, str], keys: StoreKeys, machine: str, *, adopt: bool) -> bool:
    """Compare the machine with the one the store belongs to; True when it was recorded anew.

    Raises StorageError ``state_moved`` unless ``adopt``.
    """
    identity = mac(keys.lookup, "machine", machine)
    row = database.execute(sql["meta"], name="machine").fetchone()
    if row is not None and not same(row["mac"], mac(keys.row, "meta", "machine", row["value"])):
        raise tampered("meta", "machine", "its mac is wrong")
    if row is not None and same(row["value"], identity):
        return False
    if row is not None and not adopt:
        raise StorageError(
            f"cannot open {database.path}: it was made on another machine",
            code="state_moved",
            hint="if the state directory was moved here on purpose, accept it with: edge-agent adopt",
        )
    sealed = mac(keys.row, "meta", "machine", identity)
    database.execute(sql["set_meta"], name="machine", value=identity, mac=sealed)
    return row is not None
