"""State directories of schema version 1: one as its program left it, and as large ones as are wanted."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_agent.outbox.database import APPLICATION_ID, DATABASE_FILE
from edge_agent.outbox.records import Limits
from tests.outbox.fakes import FakeClock, open_store, pending, picture

HERE = Path(__file__).parent
SCHEMA = (HERE / "schema_v1.sql").read_text()
TABLES = ("meta", "device_keys", "secrets", "users", "verifications", "payloads", "lanes", "upload_marks", "idempotency",
          "failures", "erasures", "audit", "audit_anchors")  # fmt: skip


def left_by_v1(state_dir: Path) -> Path:
    """The rows that the program of version 1 wrote, byte for byte: one in each kind of state, one user destroyed."""
    with _new_file(state_dir) as connection:
        connection.executescript((HERE / "data_v1.sql").read_text())
    connection.close()
    return state_dir


def make_v1(state_dir: Path, rows: int, *, picture_bytes: int = 1000) -> list[str]:
    """``rows`` pending captures in a file of version 1; returns their ids. A few milliseconds each."""
    ids = []
    source = state_dir.with_name(f"{state_dir.name}.source")
    with open_store(source, FakeClock(), limits=Limits(max_items=rows, max_bytes=1 << 50)) as store:
        store._database.execute("PRAGMA synchronous = OFF")
        for number in range(rows):
            jpeg = picture(str(number), picture_bytes)
            ids.append(pending(store, f"user-{number % 100}", jpeg=jpeg, idempotency_key=f"v1/{number}").id)
    with _new_file(state_dir) as connection:
        connection.execute("ATTACH ? AS source", (str(source / DATABASE_FILE),))
        for table in TABLES:
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")
    connection.close()
    for file in source.iterdir():
        file.unlink()
    source.rmdir()
    return ids


def _new_file(state_dir: Path) -> sqlite3.Connection:
    state_dir.mkdir(mode=0o700)
    connection = sqlite3.connect(state_dir / DATABASE_FILE)
    for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", f"application_id = {APPLICATION_ID}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.executescript(SCHEMA)
    connection.execute("PRAGMA user_version = 1")
    return connection
