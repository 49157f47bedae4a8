"""From the schema of an older version to this one's, a step at a time and never backwards.

A step is one transaction: its statements, its audit record and the new version number, or nothing. Nothing stored is
ever dropped by one: rows are counted before and after. A step that fails leaves the file to the program that wrote it.

To add one: raise ``SCHEMA_VERSION`` in database.py, change schema.sql, write ``migration_N.sql`` and a line below. A
test compares what comes out with a fresh file. Columns of a table whose rows carry a mac cannot be added by SQL alone.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from edge_agent.errors import StorageError
from edge_agent.outbox.ages import Moment
from edge_agent.outbox.audit import AuditChain, Entry
from edge_agent.outbox.database import Database, read_sql
from edge_agent.outbox.shapes import DERIVED
from edge_agent.outbox.space import Reserve

_ROOM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. The file's version before it is ``version - 1``."""

    version: int
    what: str
    rewrites: float = 0.0
    """The share of the database that it writes anew (0-1): it needs room for that twice, in the log and in the file."""

    @property
    def file(self) -> str:
        return f"migration_{self.version}.sql"


MIGRATIONS = (
    Migration(2, "count the verifications of each state as they change"),
    Migration(3, "face templates and the limits of provisional answers"),
)


def migrate(database: Database, chain: AuditChain, now: Moment, reserve: Reserve) -> None:
    """Bring the file to this program's schema; nothing to do is the usual case.

    Raises StorageError ``migration_failed``: the file is then as it was before the step that is named. A corrupt file
    stays ``storage_corrupt``.
    """
    with database.reading():
        found = database.version()
    for step in MIGRATIONS:
        if step.version > found:
            _run(step, database, chain, now, reserve)


def _run(step: Migration, database: Database, chain: AuditChain, now: Moment, reserve: Reserve) -> None:
    def work() -> None:
        with database.transaction():
            _apply(step, database, chain, now)

    try:
        _make_room(step, database, reserve)
        reserve.insist(work)
    except StorageError as exc:
        if exc.code == "storage_corrupt":
            raise
        raise StorageError(
            f"cannot bring {database.path} to schema version {step.version} ({step.what}): {exc.message}",
            code="migration_failed",
            hint=f"nothing in it was changed: the version of edge-agent that wrote it still reads it. {exc.hint or ''}",
            retryable=exc.code == "storage_full",
        ) from exc


def _make_room(step: Migration, database: Database, reserve: Reserve) -> None:
    needed = _ROOM_BYTES + int(2 * step.rewrites * database.size_bytes())
    while (free := reserve.free_bytes()) < needed:
        if not reserve.give_back():
            raise StorageError(
                f"{free} bytes are free, {needed} are needed", code="storage_full", hint="free space there"
            )


def _apply(step: Migration, database: Database, chain: AuditChain, now: Moment) -> None:
    before = _row_counts(database)
    database.execute_script(read_sql(step.file))
    after = _row_counts(database)
    lost = sorted(name for name, number in before.items() if after.get(name, 0) < number)
    if lost:
        raise StorageError(f"it would lose rows of {', '.join(lost)}")
    if _broken_references(database):
        raise StorageError("it would leave rows that refer to nothing")
    chain.append(Entry("migrated", detail={"from": step.version - 1, "to": step.version}), now)
    database.set_version(step.version)


def _row_counts(database: Database) -> dict[str, int]:
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
    names = [row["name"] for row in tables.fetchall() if row["name"] not in DERIVED]
    return {name: int(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in names}  # noqa: S608


def _broken_references(database: Database) -> list[sqlite3.Row]:
    return database.execute("PRAGMA foreign_key_check").fetchall()
