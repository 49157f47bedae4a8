"""Damaged files that were set aside: ``aside/<number>-<time>/`` in the state directory.

The folder of a salvage in progress has no file ``done`` yet. A missing database beside such a folder means that the
salvage is not finished: the queue is in the folder, and an empty database must not take its place.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.outbox.database import DATABASE_FILE, KEY_FILE
from edge_agent.outbox.files import sync_folder, translated
from edge_agent.outbox.pages import Pages
from edge_agent.outbox.shapes import default_page_size

ASIDE_DIR = "aside"
REBUILD_DIR = "rebuild"
"""Where a salvage makes the new database."""
FILES = (DATABASE_FILE, f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm")
"""Moved in this order: a database without its log would open, and lack what only the log holds."""
_DONE = "done"
_NAME = re.compile(r"\d{4,}-\d{8}T\d{6}Z")

Progress = Callable[[str], None]
"""Told after each step, in words."""


@dataclass(frozen=True, slots=True)
class Aside:
    """One set of damaged files."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def done(self) -> bool:
        return (self.path / _DONE).exists()

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


def asides(state_dir: Path) -> list[Aside]:
    """What is set aside, the oldest first."""
    folder = state_dir / ASIDE_DIR
    with translated(f"cannot read {folder}"):
        found = folder.iterdir() if folder.is_dir() else ()
        return [Aside(path) for path in sorted(found) if _NAME.fullmatch(path.name)]


def unfinished(state_dir: Path) -> Aside | None:
    """The folder of a salvage that has not put its new database in place."""
    return next((aside for aside in reversed(asides(state_dir)) if not aside.done), None)


def has_database(folder: Path) -> bool:
    """Whether there is a database that is more than a name."""
    with translated(f"cannot read {folder}"):
        file = folder / DATABASE_FILE
        return file.exists() and file.stat().st_size > 0


def check_whole(state_dir: Path) -> None:
    """Before a database is opened or made: is the queue in it, and all of it?

    Raises StorageError ``storage_corrupt`` when a salvage must come first.
    """
    if has_database(state_dir):
        _check_log(state_dir)
        return
    waiting = unfinished(state_dir)
    if waiting is None and not (state_dir / KEY_FILE).exists():
        return
    why = f"its salvage from {waiting.path} is not finished" if waiting else "it is gone, its key file is there"
    raise StorageError(
        f"cannot open {state_dir / DATABASE_FILE}: {why}",
        code="storage_corrupt",
        hint="let it be salvaged; no new queue is made in place of an old one",
    )


def _check_log(state_dir: Path) -> None:
    """SQLite takes a log up to its first bad frame, and throws the rest away without a word."""
    database, log, _ = (state_dir / name for name in FILES)
    if not log.exists() or log.stat().st_size == 0:
        return
    with translated(f"cannot read {log}"), Pages(database, log, default_page_size()) as pages:
        if pages.log_is_broken:
            raise StorageError(
                f"cannot open {database}: its write-ahead log is damaged before transactions that were acknowledged",
                code="storage_corrupt",
                hint="let it be salvaged; opening it with SQLite loses them",
            )


def set_aside(state_dir: Path, now: datetime, progress: Progress) -> Aside:
    """Move the database's files into a folder of their own, or finish moving them."""
    aside = unfinished(state_dir)
    if aside is not None and has_database(state_dir) and has_database(aside.path):
        finish(aside)  # the new database was in place; only the mark was missing
        aside = None
    with translated(f"cannot set the files of {state_dir} aside"):
        aside = aside or _new_folder(state_dir, now)
        progress("folder made")
        for name in FILES:
            _move(state_dir / name, aside.path / name)
            progress(f"{name} moved")
        sync_folder(aside.path)
        sync_folder(state_dir)
    return aside


def finish(aside: Aside) -> None:
    """Note that the new database is in place."""
    with translated(f"cannot finish {aside.path}"):
        (aside.path / _DONE).touch(mode=0o600)
        sync_folder(aside.path)


def settle(state_dir: Path) -> None:
    """After a database was opened: whatever a salvage left unfinished besides is finished, and no half of one stays."""
    for aside in asides(state_dir):
        if not aside.done:
            finish(aside)
    clear_rebuild(state_dir)


def clear_rebuild(state_dir: Path) -> None:
    """Remove what an interrupted salvage had built."""
    if (state_dir / REBUILD_DIR).exists():
        remove(state_dir / REBUILD_DIR)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, durably."""
    with translated(f"cannot remove {folder}"):
        shutil.rmtree(folder)
        sync_folder(folder.parent)


def _new_folder(state_dir: Path, now: datetime) -> Aside:
    parent = state_dir / ASIDE_DIR
    parent.mkdir(mode=0o700, exist_ok=True)
    number = max((int(aside.name.split("-")[0]) for aside in asides(state_dir)), default=0) + 1
    folder = parent / f"{number:04}-{now:%Y%m%dT%H%M%SZ}"
    folder.mkdir(mode=0o700)
    sync_folder(parent)
    sync_folder(state_dir)
    return Aside(folder)


def _move(source: Path, target: Path) -> None:
    """Within one file system. A name that holds nothing does not replace what was moved before."""
    if not source.exists():
        return
    if target.exists() and source.stat().st_size == 0:
        source.unlink()
        return
    source.rename(target)
    target.chmod(0o600)
