"""A state directory as the version before left it, with captures that it acknowledged: something to migrate."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from edge_agent.outbox.database import DATABASE_FILE
from edge_agent.outbox.records import Environment
from edge_agent.sandbox.runtime import DEFAULT_MERCHANT_ID
from tests.faults import worker
from tests.outbox import v1
from tests.powercut.look import whole_lines
from tests.powercut.phases import Line

OLD_VERSION = 1
"""Of the schema."""


def pack_old(archive: Path, base_url: str, *, captures: int, users: int) -> Sequence[Line]:
    """Write the archive; returns what was told when the captures were stored."""
    scratch = archive.with_suffix(".making")
    scratch.mkdir()
    arguments = ["--seed", "old", "--captures", str(captures), "--users", str(users), "--sizes", "500", "1000"]
    plan = worker.parse([str(scratch / "new"), base_url, *arguments, "--live-share", "0"])
    with (scratch / "told").open("wb", buffering=0) as told:
        store_all(plan, worker.Teller(told.fileno()))
    to_v1(scratch / "new", scratch / "old")
    with tarfile.open(archive, "w") as tar:
        tar.add(scratch / "old", ".")
    lines = whole_lines(scratch / "told")
    shutil.rmtree(scratch)
    return lines


def store_all(plan: worker.Plan, teller: worker.Teller) -> None:
    environment = Environment(plan.base_url, DEFAULT_MERCHANT_ID)
    with worker.open_store(plan, teller, adopt=False) as store:
        store._database.execute("PRAGMA synchronous = OFF")  # nobody pulls a plug here
        for capture in plan.load():
            worker.enqueue(store, capture, environment, teller)


def to_v1(source: Path, state_dir: Path) -> None:
    """The same rows in a file of version 1: what version 2 added is derived from them, and of what version 3 added there is nothing."""
    with closing(v1._new_file(state_dir)) as connection:
        connection.execute("ATTACH ? AS source", (str(source / DATABASE_FILE),))
        with connection:
            for table in v1.TABLES:
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")
        connection.execute("DETACH source")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def version(state_dir: Path) -> int:
    """Of the schema in the file; 0 when it cannot be read."""
    try:
        with closing(sqlite3.connect(state_dir / DATABASE_FILE)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return 0
