"""How the rows of every table are stored, derived from the schema itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from edge_agent.outbox.carve import Shape
from edge_agent.outbox.database import read_sql

DERIVED = frozenset({"lanes", "payload_totals", "state_counts"})
"""Tables that are neither copied nor kept by a migration: triggers and the start make them from the others."""
SEQUENCES = Shape("sqlite_sequence", ("name", "seq"), frozenset(), None, keyed=False)


def shapes() -> dict[str, Shape]:
    """Every table of the present schema that is not derived."""
    with closing(sqlite3.connect(":memory:")) as template:
        template.executescript(read_sql("schema.sql"))
        listed = template.execute("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        tables = [(name, bool(keyed)) for name, keyed in listed if not name.startswith("sqlite_")]
        return {name: _shape(template, name, keyed) for name, keyed in tables if name not in DERIVED}


def default_page_size() -> int:
    """The size of a page in a file made by this build of SQLite."""
    with closing(sqlite3.connect(":memory:")) as template:
        return int(template.execute("PRAGMA page_size").fetchone()[0])


def _shape(template: sqlite3.Connection, table: str, keyed: bool) -> Shape:
    columns = template.execute("SELECT name, type, pk FROM pragma_table_info(?)", (table,)).fetchall()
    keys = sorted((pk, name, kind) for name, kind, pk in columns if pk)
    rowid = keys[0][1] if not keyed and len(keys) == 1 and keys[0][2] == "INTEGER" else None
    first = [name for _, name, _ in keys] if keyed else []
    rest = [name for name, _, _ in columns if name not in first]
    reals = frozenset(name for name, kind, _ in columns if kind == "REAL")
    return Shape(table, (*first, *rest), reals, rowid, keyed=keyed)
