"""A corrupt outbox, rebuilt row by row.

The damaged files are moved aside, everything in them that authenticates is copied into a new database under another
name, and that one is put in place when it is complete and synced. Whenever this is interrupted, the files are in the
state directory or in an unfinished folder under ``aside``, ``Store.open`` makes no new queue, and the next salvage
begins again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.outbox import keyfile
from edge_agent.outbox.ages import to_iso
from edge_agent.outbox.aside import (
    FILES,
    REBUILD_DIR,
    Aside,
    Progress,
    clear_rebuild,
    finish,
    has_database,
    set_aside,
    unfinished,
)
from edge_agent.outbox.carve import Carver, Shape
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.core import QUERIES
from edge_agent.outbox.crypto import parse_key
from edge_agent.outbox.database import (
    APPLICATION_ID,
    DATABASE_FILE,
    SCHEMA_VERSION,
    Database,
    StateLock,
    free_bytes,
    prepare_directory,
)
from edge_agent.outbox.files import sync_file, sync_folder, translated
from edge_agent.outbox.mending import Mending
from edge_agent.outbox.pages import Pages
from edge_agent.outbox.records import Limits, SalvageReport
from edge_agent.outbox.salvage_keys import KeysLost, OpenedKeys, find_material, open_keys, users_in
from edge_agent.outbox.shapes import default_page_size, shapes
from edge_agent.outbox.space import Reserve
from edge_agent.outbox.vault import unlock

_MOST_VERSIONS = 1000
"""A schema version beyond this is damage, not a newer program's."""


def salvage(
    state_dir: Path,
    key: bytes,
    *,
    clock: Clock,
    previous_key: bytes | None = None,
    limits: Limits | None = None,
    instance_id: str | None = None,
    progress: Progress = lambda _: None,
) -> SalvageReport:
    """Rebuild the outbox in ``state_dir``; afterwards ``Store.open`` succeeds on it.

    key, previous_key: as for ``Store.open``. progress: told after each step. The store must be closed. Needs about
    the size of the database as free space, the reserve included. Harmless on a sound outbox, and when it is repeated.

    Raises StorageError ``key_mismatch`` and ``schema_unknown``, with nothing changed; ``state_locked``;
    ``storage_corrupt`` when the keys are lost, with the files set aside; ``storage_full``, ``storage_failed``: the
    files are set aside then, and the next call goes on.
    """
    given = [parse_key(key), *([parse_key(previous_key)] if previous_key is not None else [])]
    with ExitStack() as stack:
        prepare_directory(state_dir)
        stack.callback(StateLock(state_dir).release)
        damaged = _open_damaged(state_dir, stack)
        _refuse_newer_schema(state_dir, damaged.pages)
        keys, keys_from = _find_keys(state_dir, damaged, given, to_iso(clock.wall()))
        aside = set_aside(state_dir, clock.wall(), progress)
        if keys is None:
            raise _keys_lost(state_dir, aside)
        work = _Work(state_dir, aside, damaged, keys, keys_from)
        instance_id = instance_id or uuid.uuid4().hex
        reserve = Reserve(state_dir, free_bytes)
        report = reserve.insist(lambda: work.build(given, clock, instance_id, limits or Limits(), reserve, progress))
        work.put_in_place(progress)
        return report


@dataclass(frozen=True, slots=True)
class _Damaged:
    pages: Pages
    carver: Carver
    shapes: Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class _Work:
    """One rebuilding, once it is known what from and with which keys."""

    state_dir: Path
    aside: Aside
    damaged: _Damaged
    keys: OpenedKeys
    keys_from: str

    @property
    def folder(self) -> Path:
        return self.state_dir / REBUILD_DIR

    def build(
        self,
        given: Sequence[bytes],
        clock: Clock,
        instance_id: str,
        limits: Limits,
        reserve: Reserve,
        progress: Progress,
    ) -> SalvageReport:
        """Make the new database; nothing of it stays when that fails."""
        clear_rebuild(self.state_dir)
        try:
            prepare_directory(self.folder)
            with closing(Database(self.folder)) as database:
                database.create_schema(lambda: self._insert_keys(database))
                progress("schema made")
                mending = Mending(
                    database,
                    unlock(database, QUERIES, *given),
                    clock,
                    instance_id=instance_id,
                    limits=limits,
                    reserve=reserve,
                    carver=self.damaged.carver,
                    shapes=self.damaged.shapes,
                    opened=self.keys,
                )
                mending.fill(progress)
                report = mending.conclude(self.aside, self.keys_from)
                database.truncate_log()
        except StorageError:
            clear_rebuild(self.state_dir)  # the space is needed, and it holds what may be erased meanwhile
            raise
        progress("database built")
        return report

    def put_in_place(self, progress: Progress) -> None:
        """In one step; before it the queue is what is set aside, after it the new database."""
        with translated(f"cannot put the salvaged database into {self.state_dir}"):
            sync_file(self.folder / DATABASE_FILE)
            (self.folder / DATABASE_FILE).rename(self.state_dir / DATABASE_FILE)
            sync_folder(self.state_dir)
        progress("database in place")
        finish(self.aside)
        clear_rebuild(self.state_dir)
        progress("finished")

    def _insert_keys(self, database: Database) -> None:
        database.execute(QUERIES["set_meta"], name="store_id", value=self.keys.store_id, mac=None)
        for row in self.keys.device_keys:
            database.execute(QUERIES["insert_device_key"], **row)
        for row in self.keys.secrets:
            database.execute(QUERIES["insert_secret"], **row)


def _open_damaged(state_dir: Path, stack: ExitStack) -> _Damaged:
    """The files where they are now: in the state directory, or already set aside."""
    waiting = unfinished(state_dir)
    if not has_database(state_dir) and waiting is None and not keyfile.exists(state_dir):
        raise StorageError(f"cannot salvage {state_dir}: there is no outbox in it")
    database, log, _ = (_where(state_dir, waiting, name) for name in FILES)
    with translated(f"cannot read {database}"):
        pages = stack.enter_context(Pages(database, log, default_page_size()))
        return _Damaged(pages, Carver(pages), shapes())


def _where(state_dir: Path, waiting: Aside | None, name: str) -> Path:
    here = state_dir / name
    there = waiting.path / name if waiting is not None and not has_database(state_dir) else here
    return there if there.exists() else here


def _refuse_newer_schema(state_dir: Path, pages: Pages) -> None:
    header = pages.header()
    if header is None or header.application_id != APPLICATION_ID:
        return
    if SCHEMA_VERSION < header.schema_version < _MOST_VERSIONS:
        raise StorageError(
            f"cannot salvage {state_dir}: its schema version is {header.schema_version}, "
            f"this program knows {SCHEMA_VERSION}",
            code="schema_unknown",
            hint="install the version of edge-agent that wrote it, or a newer one",
        )


def _find_keys(
    state_dir: Path, damaged: _Damaged, given: Sequence[bytes], now_iso: str
) -> tuple[OpenedKeys | None, str]:
    """What opens the store, and where it was; None when it is nowhere. Raises ``key_mismatch``."""
    found, beside = find_material(damaged.carver, damaged.shapes), keyfile.load(state_dir)
    mismatch: StorageError | None = None
    for material, where in ((found, "database"), (found.joined(beside), "side file")):
        try:
            return open_keys(material, given, users_in(damaged.carver, damaged.shapes), now_iso), where
        except KeysLost:
            mismatch = None
        except StorageError as exc:
            mismatch = exc  # the side file may know better than a damaged store id
    if mismatch is not None:
        raise mismatch
    return None, ""


def _keys_lost(state_dir: Path, aside: Aside) -> StorageError:
    return StorageError(
        f"cannot salvage {state_dir}: the keys of the store are lost in the database and in its key file",
        code="storage_corrupt",
        hint=f"the damaged files are kept in {aside.path}; put the file 'keys' of a backup into the state directory",
    )
