"""Making and opening the keys of a store: the key check value, the sealed secrets, the machine's identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.outbox.crypto import KEY_BYTES, DeviceKeys, StoreKeys, mac, same, tampered
from edge_agent.outbox.database import Database

FIRST_GENERATION = 1
SECRETS = ("lookup", "row", "audit")
_IDENTITY_FILES = (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"))
"""The installation, and on a Pi or Jetson the board: a moved card has the same first, another second. Both are
readable by everybody, so the daemon and root see the same identity."""


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


def unlock(database: Database, sql: Mapping[str, str], device_key: bytes) -> StoreKeys:
    """The keys of an existing store.

    Raises StorageError ``key_mismatch`` for a key that is not the store's: the queue is left as it is.
    """
    row = database.execute(sql["meta"], name="store_id").fetchone()
    if row is None:
        raise tampered("meta", "store_id", "it is missing")
    device = DeviceKeys(device_key, row["value"])
    checks = database.execute(sql["check_values"]).fetchall()
    if not any(same(check["check_value"], device.check_value) for check in checks):
        raise StorageError(
            f"cannot open {database.path}: the outbox key is not the one it was made with",
            code="key_mismatch",
            hint="give the old key back; nothing was changed. Without it the queued captures cannot be read by anybody",
        )
    found: dict[str, dict[int, bytes]] = {name: {} for name in SECRETS}
    for secret in database.execute(sql["secrets"]):
        name, generation = secret["name"], secret["generation"]
        found.setdefault(name, {})[generation] = device.open_secret(name, generation, secret["sealed"])
    for name in SECRETS:
        if not found[name]:
            raise tampered("secrets", name, "it is missing")
    return StoreKeys(device, found["lookup"][FIRST_GENERATION], found["row"], found["audit"])


def check_machine(database: Database, sql: Mapping[str, str], keys: StoreKeys, machine: str, *, adopt: bool) -> bool:
    """Compare the machine with the one the store belongs to; True when it was recorded anew.

    Raises StorageError ``state_moved`` unless ``adopt``.
    """
    identity = mac(keys.lookup, "machine", machine)
    row = database.execute(sql["meta"], name="machine").fetchone()
    if row is not None and not same(row["mac"], mac(keys.rows[FIRST_GENERATION], "meta", "machine", row["value"])):
        raise tampered("meta", "machine", "its mac is wrong")
    if row is not None and same(row["value"], identity):
        return False
    if row is not None and not adopt:
        raise StorageError(
            f"cannot open {database.path}: it was made on another machine",
            code="state_moved",
            hint="if the state directory was moved here on purpose, accept it with: edge-agent adopt",
        )
    sealed = mac(keys.rows[FIRST_GENERATION], "meta", "machine", identity)
    database.execute(sql["set_meta"], name="machine", value=identity, mac=sealed)
    return row is not None
