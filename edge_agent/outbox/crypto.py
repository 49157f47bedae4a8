"""Keys and sealed blobs.

::

    device key (32 bytes, outside the state directory)
      |- HKDF "check"      -> key check value: is this the key of this store?
      |- HKDF "secrets"    -> seals the store's random keys: lookup, row, audit
      `- HKDF "users"      -> wraps user keys
                                user key (random)  -> seals user id, private details, wraps row keys
                                  row key (random) -> seals one picture

The HKDF salt is the store's random id, so the same device key gives other keys in another store. The lookup, row
and audit keys are random instead of derived: a device key can be rotated by re-wrapping them, and the lookup key
(HMAC of user ids, idempotency tombstones) never changes.

A sealed blob is ``version (1) | nonce (12) | AES-256-GCM ciphertext and tag``. Its associated data names the format
version, table, row, purpose and user: a blob moved elsewhere does not open. Nothing mutable is in it.
Row keys seal one blob each; a user key seals far fewer than 2**32, the limit for random nonces (NIST SP 800-38D).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_agent.errors import ConfigurationError, StorageError

FORMAT_VERSION = 1
KEY_BYTES = 32
_NONCE_BYTES = 12

Value = None | int | float | str | bytes


def generate_key() -> bytes:
    """A new device key as text (64 hex digits): survives editors and trailing newlines, unlike raw bytes."""
    return os.urandom(KEY_BYTES).hex().encode()


def parse_key(material: bytes) -> bytes:
    """The 32 bytes of a device key given raw, as 64 hex digits or as base64.

    Raises ConfigurationError ``key_invalid``.
    """
    key = material if len(material) == KEY_BYTES else _decode(material.strip())
    if key is None or len(key) != KEY_BYTES:
        raise ConfigurationError(
            "cannot use the outbox key: it must be 32 bytes, given raw, as 64 hex digits or as base64",
            code="key_invalid",
            hint="make one with: openssl rand -hex 32",
        )
    if not any(key):
        raise ConfigurationError("cannot use the outbox key: it is all zero", code="key_invalid")
    return key


def _decode(text: bytes) -> bytes | None:
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text.decode("ascii"))
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        return None


def encode(*values: Value) -> bytes:
    """Values as bytes, unambiguous: a type letter, a length, the bytes. 1, 1.0 and "1" differ."""
    return b"".join(encode_each(values))


def encode_each(values: Iterable[Value]) -> list[bytes]:
    """Each value as ``encode`` writes it."""
    return [_ENCODERS[type(value)](value) for value in values]


def _encode_bytes(value: bytes) -> bytes:
    return b"b" + _length(len(value)) + value


def _encode_str(value: str) -> bytes:
    body = value.encode()
    return b"s" + _length(len(body)) + body


def _encode_float(value: float) -> bytes:
    return b"f\0\0\0\x08" + _double(value)


def _encode_int(value: int) -> bytes:
    body = b"%d" % value
    return b"i" + _length(len(body)) + body


class _Encoders(dict[type, Callable[[Any], bytes]]):
    """By type; what derives from one of the types (an enum) is encoded as that one."""

    def __missing__(self, kind: type) -> Callable[[Any], bytes]:
        known = [base for base in kind.__mro__ if base in self]
        if not known:
            raise TypeError(f"cannot authenticate a {kind.__name__}: no column holds one")
        self[kind] = self[known[0]]
        return self[kind]


_length = struct.Struct(">I").pack
_double = struct.Struct(">d").pack
_ENCODERS = _Encoders(
    {
        type(None): lambda _: b"n\0\0\0\0",
        bytes: _encode_bytes,
        str: _encode_str,
        float: _encode_float,
        int: _encode_int,
    }
)


def mac(key: bytes, *values: Value) -> bytes:
    """HMAC-SHA-256, 32 bytes, over the unambiguous encoding of the values."""
    return authenticate(key, encode(*values))


def authenticate(key: bytes, encoded: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes."""
    return hmac.digest(key, encoded, "sha256")


def same(left: bytes | None, right: bytes | None) -> bool:
    """Compare two macs in constant time; a missing one equals nothing."""
    return left is not None and right is not None and hmac.compare_digest(left, right)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed blob belongs: its associated data."""

    table: str
    row: str
    purpose: str
    user_hmac: bytes = b""

    def associated_data(self) -> bytes:
        return encode(FORMAT_VERSION, self.table, self.row, self.purpose, self.user_hmac)


def seal(key: bytes, plain: bytes, place: Place) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return bytes([FORMAT_VERSION]) + nonce + AESGCM(key).encrypt(nonce, plain, place.associated_data())


def unseal(key: bytes, blob: bytes, place: Place) -> bytes:
    """Raises StorageError ``tampered`` when the blob was changed, moved, or sealed with another key."""
    if not blob or blob[0] != FORMAT_VERSION:
        raise tampered(place.table, place.row, f"its {place.purpose} has an unknown format")
    nonce, sealed = blob[1 : 1 + _NONCE_BYTES], blob[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, sealed, place.associated_data())
    except (InvalidTag, ValueError) as exc:
        raise tampered(place.table, place.row, f"its {place.purpose} does not authenticate") from exc


def tampered(table: str, row: str, why: str) -> StorageError:
    return StorageError(
        f"cannot trust {table} {row}: {why}",
        code="tampered",
        hint="the state directory was changed from outside or the storage is failing: keep a copy, see docs/durability.md",
    )


class DeviceKeys:
    """What is derived from one device key for one store."""

    def __init__(self, device_key: bytes, store_id: bytes) -> None:
        self.check_value = _derive(device_key, store_id, "check")
        self._secrets = _derive(device_key, store_id, "secrets")
        self._users = _derive(device_key, store_id, "users")

    def seal_secret(self, name: str, generation: int, secret: bytes) -> bytes:
        return seal(self._secrets, secret, Place("secrets", f"{name}/{generation}", "secret"))

    def open_secret(self, name: str, generation: int, sealed: bytes) -> bytes:
        return unseal(self._secrets, sealed, Place("secrets", f"{name}/{generation}", "secret"))

    def wrap_user_key(self, user_hmac: bytes, user_key: bytes) -> bytes:
        return seal(self._users, user_key, Place("users", user_hmac.hex(), "user key", user_hmac))

    def unwrap_user_key(self, user_hmac: bytes, wrapped: bytes) -> bytes:
        return unseal(self._users, wrapped, Place("users", user_hmac.hex(), "user key", user_hmac))


def _derive(device_key: bytes, store_id: bytes, purpose: str) -> bytes:
    info = b"edge-agent outbox v1 " + purpose.encode()
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=store_id, info=info).derive(device_key)


class Rotation(StrEnum):
    """Where the device key's rotation stands."""

    NONE = "none"
    DUE = "due"
    """The store is wholly under the previous key: ``rotate`` begins."""
    RUNNING = "running"
    """Begun and not finished: both keys are needed until it is."""
    DONE = "done"
    """A previous key was given and is not needed (any more)."""


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """The keys in use while a store is open. Of each dictionary (generation -> key) the highest seals."""

    devices: dict[int, DeviceKeys]
    """Two only while a rotation runs."""
    lookup: bytes = field(repr=False)
    rows: dict[int, bytes] = field(repr=False)
    """Two only while a rotation runs."""
    audits: dict[int, bytes] = field(repr=False)
    """All there ever were: the chain is never written again."""
    configured: DeviceKeys
    """Of the key that the operator calls the current one; a rotation leads to it."""
    previous_given: bool = False

    @property
    def generation(self) -> int:
        """Of the device key that wraps."""
        return max(self.devices)

    @property
    def device(self) -> DeviceKeys:
        return self.devices[self.generation]

    @property
    def row_generation(self) -> int:
        return max(self.rows)

    @property
    def row(self) -> bytes:
        """The key that seals rows."""
        return self.rows[self.row_generation]

    @property
    def rotation(self) -> Rotation:
        if len(self.devices) > 1:
            return Rotation.RUNNING
        if not same(self.device.check_value, self.configured.check_value):
            return Rotation.DUE
        return Rotation.DONE if self.previous_given else Rotation.NONE

    def unwrap_user_key(self, user_hmac: bytes, generation: int, wrapped: bytes) -> bytes:
        """Raises StorageError ``tampered``."""
        device = self.devices.get(generation)
        if device is None:
            raise tampered("users", user_hmac.hex(), f"there is no device key {generation}")
        return device.unwrap_user_key(user_hmac, wrapped)

    def user_hmac(self, user_id: str) -> bytes:
        return mac(self.lookup, "user", user_id)

    def idempotency_hmac(self, caller: str, key: str) -> bytes:
        return mac(self.lookup, "idempotency", caller, key)

    def body_hmac(self, body: bytes) -> bytes:
        return mac(self.lookup, "body", body)

    def claim_hmac(self, verification_id: str, name: str, value: str) -> bytes:
        """Proves what a request said to whoever claims to know it; equal values of two requests look different."""
        return mac(self.lookup, "claim", verification_id, name, value)
