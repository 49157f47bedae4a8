"""The key side file: what is needed to open the store's secrets, once more beside the database.

One bad page of the database must not make every capture unreadable. ``keys`` holds what the tables ``device_keys``
and ``secrets`` and the identities of store and machine in ``meta`` hold, and nothing in clear that the database does
not show too: without the device key it is worth nothing. Nothing in it is believed unless it authenticates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError
from edge_agent.outbox.database import KEY_FILE, Database
from edge_agent.outbox.files import replace_file

FORMAT = 1
Fields = Mapping[str, Any]
"""One row, column -> value."""


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """Rows of the key tables, not authenticated yet."""

    meta: tuple[Fields, ...] = ()
    """``name``, ``value``, ``mac``."""
    device_keys: tuple[Fields, ...] = ()
    """``generation``, ``check_value``, ``created_at``."""
    secrets: tuple[Fields, ...] = ()
    """``name``, ``generation``, ``key_generation``, ``sealed``."""

    def joined(self, other: KeyMaterial) -> KeyMaterial:
        """Both, these rows first."""
        return KeyMaterial(self.meta + other.meta, self.device_keys + other.device_keys, self.secrets + other.secrets)


def save(state_dir: Path, database: Database) -> None:
    """Write the side file of this store's keys when it is missing or says something else.

    To be called after every change of the key tables, once it is committed. Raises StorageError ``storage_full`` or
    ``storage_failed``; an older side file is then still there.
    """
    content = _to_json(_read(database))
    if _content(state_dir) != content:
        replace_file(state_dir / KEY_FILE, content)


def load(state_dir: Path) -> KeyMaterial:
    """What the side file holds; nothing when it is missing, or not one of ours."""
    try:
        parsed = json.loads(_content(state_dir) or b"{}")
        if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
            return KeyMaterial()
        return KeyMaterial(*(tuple(_decoded(row) for row in parsed[table]) for table in _TABLES))
    except (ValueError, KeyError, TypeError, AttributeError):
        return KeyMaterial()  # a garbled side file is as good as none; the caller says what that means


def exists(state_dir: Path) -> bool:
    """Whether a store was made here, whatever became of its database."""
    return bool(_content(state_dir))


_TABLES = ("meta", "device_keys", "secrets")
_QUERIES = {
    "meta": "SELECT name, value, mac FROM meta WHERE name IN ('store_id', 'machine') ORDER BY name",
    "device_keys": "SELECT generation, check_value, created_at FROM device_keys ORDER BY generation",
    "secrets": "SELECT name, generation, key_generation, sealed FROM secrets ORDER BY name, generation",
}


def _read(database: Database) -> KeyMaterial:
    with database.reading():
        found = (database.execute(_QUERIES[table]).fetchall() for table in _TABLES)
        return KeyMaterial(*(tuple(dict(row) for row in rows) for rows in found))


def _to_json(material: KeyMaterial) -> bytes:
    tables = {table: [_encoded(row) for row in getattr(material, table)] for table in _TABLES}
    return json.dumps({"format": FORMAT, **tables}, indent=1).encode() + b"\n"


def _encoded(row: Fields) -> dict[str, Any]:
    return {name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in row.items()}


def _decoded(row: Fields) -> Fields:
    return {name: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for name, value in row.items()}


def _content(state_dir: Path) -> bytes | None:
    try:
        return (state_dir / KEY_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StorageError(f"cannot read {state_dir / KEY_FILE}: {exc.strerror}") from exc
