"""Who and what the outbox speaks of, in clear: for a program that must take exactly these words out of a text.

Beside a daemon or without one, on a read-only connection and without its lock: nothing is written or audited. It needs
the device key. The result is as personal as it gets: compare with it, throw it away, never show or store it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError
from edge_agent.outbox.core import QUERIES
from edge_agent.outbox.crypto import Place, StoreKeys, parse_key, unseal
from edge_agent.outbox.database import load_statements
from edge_agent.outbox.rows import Row, private_details
from edge_agent.outbox.structure import Structure
from edge_agent.outbox.vault import unlock

STATEMENTS = load_statements("names.sql")


class Names(Structure):
    """The outbox in ``state_dir``, read-only. A context manager; raises as ``Structure``."""

    @property
    def path(self) -> Path:
        return self._path

    def execute(self, sql: str, **values: Any) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)

    def names(self, key: bytes, previous_key: bytes | None = None) -> set[str]:
        """User ids, references and consent references; rows that do not open are left out.

        Raises ConfigurationError ``key_invalid`` and StorageError ``key_mismatch``, ``tampered``.
        """
        previous = None if previous_key is None else parse_key(previous_key)
        with self._snapshot():
            keys = unlock(self, QUERIES, parse_key(key), previous)
            opened = dict(self._users(keys))
            found = {user_id for _, user_id in opened.values()}
            for row in self.execute(STATEMENTS["private_details"]):
                found |= set(_details(opened.get(row["user_hmac"]), row))
        return found

    def _users(self, keys: StoreKeys) -> Iterator[tuple[bytes, tuple[bytes, str]]]:
        """By HMAC: the user's key and id."""
        for row in self.execute(STATEMENTS["users"]):
            user = row["user_hmac"]
            try:
                key = keys.unwrap_user_key(user, row["key_generation"], row["wrapped_key"])
                place = Place("users", user.hex(), "user id", user)
                yield user, (key, unseal(key, row["user_id"], place).decode())
            except StorageError:  # what does not authenticate names nobody; `outbox verify` tells of it
                continue


def _details(user: tuple[bytes, str] | None, row: Row) -> Iterator[str]:
    if user is None:
        return
    place = Place("verifications", row["id"], "private", row["user_hmac"])
    try:
        told = private_details(unseal(user[0], row["private"], place).decode())
    except StorageError:  # as above
        return
    consent = told.get("consent")
    yield from (text for text in (told.get("reference"), consent.reference if consent else None) if text)
