"""Which of the key rows that were found still open the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.errors import StorageError
from edge_agent.outbox.carve import Carver, Row, Shape
from edge_agent.outbox.crypto import FORMAT_VERSION, DeviceKeys, same
from edge_agent.outbox.keyfile import Fields, KeyMaterial
from edge_agent.outbox.vault import SECRETS

_HMAC_BYTES = 32
_STORE_ID_BYTES = 16


class KeysLost(Exception):
    """Neither the database nor the side file has the keys of the store any more. Never leaves the salvage."""


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """The rows of the key tables that authenticate, and what opens users' keys."""

    store_id: bytes
    device_keys: tuple[Fields, ...]
    secrets: tuple[Fields, ...]
    devices: tuple[DeviceKeys, ...]
    """Of every key given."""


def find_material(carver: Carver, shapes: Mapping[str, Shape]) -> KeyMaterial:
    """Everything in the database that may be a row of the key tables."""
    meta = (_plain(row) for _, row in carver.rows(shapes["meta"]) if _is_fact(row))
    checks = (_plain(row) for _, row in carver.rows(shapes["device_keys"]) if _is_check(row))
    secrets = (_plain(row) for _, row in carver.rows(shapes["secrets"]) if _is_secret(row))
    return KeyMaterial(tuple(meta), tuple(checks), tuple(secrets))


def open_keys(material: KeyMaterial, given: Sequence[bytes], users: Iterable[Row], now_iso: str) -> OpenedKeys:
    """Open what the given device keys open.

    Raises KeysLost when rows are missing, StorageError ``key_mismatch`` when they are there but under another key.
    """
    ids = dict.fromkeys(row["value"] for row in material.meta if _is_store_id(row))
    for store_id in ids:
        devices = tuple(DeviceKeys(key, store_id) for key in given)
        secrets = _opened(material.secrets, devices)
        checks = _checks(material.device_keys, devices, secrets, now_iso)
        if {name for name, _ in secrets} >= set(SECRETS):
            _refuse_missing_key(material.device_keys, checks, users)
            rows = tuple(row for row, _ in secrets.values())
            return OpenedKeys(store_id, tuple(checks.values()), rows, devices)
        if checks:
            raise KeysLost  # the key is right, what it should open is gone
    if ids and (material.device_keys or material.secrets):
        raise _mismatch("the outbox key is not the one it was made with", "give the old key back")
    raise KeysLost


_Secrets = dict[tuple[str, int], tuple[Fields, DeviceKeys]]


def _opened(rows: Sequence[Fields], devices: Sequence[DeviceKeys]) -> _Secrets:
    """The secrets that open, each in its newest wrapping."""
    found: _Secrets = {}
    for row in sorted(rows, key=lambda row: int(row["key_generation"])):
        for device in devices:
            if _opens(device, row):
                found[row["name"], row["generation"]] = (row, device)
    return found


def _opens(device: DeviceKeys, row: Fields) -> bool:
    try:
        device.open_secret(row["name"], row["generation"], row["sealed"])
    except StorageError:
        return False  # tampered, or another key's; which of the two is decided by what does open
    return True


def _checks(
    rows: Sequence[Fields], devices: Sequence[DeviceKeys], secrets: _Secrets, now_iso: str
) -> dict[int, Fields]:
    """Generation -> key check value, of the given keys only; made again where the row is lost."""
    made = [
        {"generation": row["key_generation"], "check_value": device.check_value, "created_at": now_iso}
        for row, device in secrets.values()
    ]
    fits = (row for row in rows if any(same(row["check_value"], device.check_value) for device in devices))
    return {row["generation"]: row for row in (*made, *fits)}


def _refuse_missing_key(rows: Sequence[Fields], ours: Mapping[int, Fields], users: Iterable[Row]) -> None:
    """A rotation was under way and its other key is not given: what is under that one would be lost."""
    others = {row["generation"] for row in rows} - set(ours)
    if others and any(_is_user(row) and row["key_generation"] in others for row in users):
        raise _mismatch(
            "the rotation of its key was interrupted, and both keys are needed to end it",
            "give the new key as outbox.key and the one before as outbox.previous_key",
        )


def _mismatch(why: str, hint: str) -> StorageError:
    return StorageError(f"cannot salvage the outbox: {why}", code="key_mismatch", hint=f"{hint}; nothing was changed")


# -- whether a row has the form of one of ours (that it is genuine shows when it opens)


def _plain(row: Row) -> dict[str, Any]:
    return dict(row)


def _is_store_id(row: Fields) -> bool:
    value = row["value"]
    return row["name"] == "store_id" and isinstance(value, bytes) and len(value) == _STORE_ID_BYTES


def _is_fact(row: Row) -> bool:
    return isinstance(row["name"], str) and isinstance(row["value"], bytes) and isinstance(row["mac"], bytes | None)


def _is_check(row: Row) -> bool:
    value = row["check_value"]
    return isinstance(value, bytes) and len(value) == _HMAC_BYTES and isinstance(row["created_at"], str)


def _is_secret(row: Row) -> bool:
    numbers = isinstance(row["generation"], int) and isinstance(row["key_generation"], int)
    return row["name"] in SECRETS and numbers and isinstance(row["sealed"], bytes)


def _is_user(row: Row) -> bool:
    wrapped, user_hmac = row["wrapped_key"], row["user_hmac"]
    sealed = isinstance(wrapped, bytes) and wrapped.startswith(bytes([FORMAT_VERSION]))
    return sealed and isinstance(user_hmac, bytes) and len(user_hmac) == _HMAC_BYTES


def users_in(carver: Carver, shapes: Mapping[str, Shape]) -> Iterator[Row]:
    """Everything that may be a row of ``users``."""
    return (row for _, row in carver.rows(shapes["users"]) if _is_user(row))
