"""The SQLite file: opening it safely, one transaction at a time, and the one seam for its errors.

Everything above this module sees StorageError only. After an I/O error the connection is not used again: nobody
knows what a failed fsync left behind, so the store must be closed, opened and verified.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from edge_agent.errors import StorageError

DATABASE_FILE = "outbox.db"
LOCK_FILE = "lock"
SCHEMA_VERSION = 3
KEY_FILE = "keys"
APPLICATION_ID = 0x45444731  # "EDG1", shown by file(1)
BUSY_TIMEOUT_S = 5.0
_MIN_SQLITE = (3, 37, 0)
"""STRICT tables."""
_PRIMARY_CODE = 0xFF
"""SQLite's extended result codes hold the primary code in the low byte."""

_PRAGMAS: tuple[tuple[str, str, object], ...] = (
    # name, value to set, value that must be read back
    ("auto_vacuum", "INCREMENTAL", 2),  # the file can shrink; fixed once the first page is written, so it comes first
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),  # the sync precedes every acknowledgement
    ("secure_delete", "ON", 1),  # freed bytes are overwritten
    ("foreign_keys", "ON", 1),
    ("temp_store", "MEMORY", 2),  # nothing spills into /tmp
    ("journal_size_limit", str(8 << 20), 8 << 20),
)


class StateLock:
    """The flock on the state directory: one daemon at a time. Released by the kernel when the process dies."""

    def __init__(self, state_dir: Path) -> None:
        self._fd = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageError(
                f"cannot use the state directory {state_dir}: the process {holder} has it",
                code="state_locked",
                hint="one daemon per state directory: stop the other one, or talk to it through its API",
            ) from exc
        self._name_holder(f"{os.getpid()}\n".encode())

    def _name_holder(self, name: bytes) -> None:
        try:
            os.pwrite(self._fd, name, 0)  # before the cut: on a full disk the block that is there already is needed
            os.ftruncate(self._fd, len(name))
        except OSError:
            pass  # the lock holds without it; a second process is told "unknown"

    def release(self) -> None:
        os.close(self._fd)


def prepare_directory(state_dir: Path) -> None:
    """Make the directory, private to its owner; mend a wider mode."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if state_dir.stat().st_mode & 0o077:
            state_dir.chmod(0o700)
    except OSError as exc:
        raise StorageError(
            f"cannot prepare the state directory {state_dir}: {exc.strerror}",
            hint="it must exist or be creatable, and belong to the daemon's user",
        ) from exc


def database_exists(state_dir: Path) -> bool:
    """Whether there is a queue, or was one: if so, a missing key must never be answered with a new one."""
    return any(_holds_bytes(state_dir / name) for name in (DATABASE_FILE, KEY_FILE))


def _holds_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process may still write there."""
    return shutil.disk_usage(folder).free


def load_statements(name: str) -> dict[str, str]:
    """The statements of a .sql file beside this module, by the name in their ``-- name:`` line."""
    text = read_sql(name)
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return {key: body.strip() for key, body in zip(parts[1::2], parts[2::2], strict=True)}


def read_sql(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


class Database:
    """One connection, one thread, one transaction at a time."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / DATABASE_FILE
        self._thread = threading.get_ident()
        self._broken: str | None = None
        if sqlite3.sqlite_version_info < _MIN_SQLITE:
            raise StorageError(f"cannot use SQLite {sqlite3.sqlite_version}: 3.37 or newer is needed")
        _create_private(self.path)
        with self._translated():
            self._connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            try:
                self._configure()
            except BaseException:
                self._connection.close()
                raise

    def _configure(self) -> None:
        for name, value, expected in _PRAGMAS:
            # set even where the default is right (builds differ); but auto_vacuum writes to the file each time
            if name != "auto_vacuum" or self._pragma(name) != expected:
                self._connection.execute(f"PRAGMA {name} = {value}").fetchall()
            found = self._pragma(name)
            if found != expected:
                raise StorageError(
                    f"cannot use {self.path}: SQLite answers {name} = {found}, {expected} is needed",
                    hint="the state directory must be on a local file system with shared memory and locks",
                )

    def _pragma(self, name: str) -> object:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def execute(self, sql: str, **values: Any) -> sqlite3.Cursor:
        """Run one statement inside the transaction in progress."""
        return self._connection.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the block is left. Errors of SQLite come out as StorageError."""
        self._check()
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Statements that only read; each sees what is committed."""
        self._check()
        with self._translated():
            yield

    def create_schema(self, initialise: Callable[[], None]) -> bool:
        """Create the tables of a new file and run ``initialise`` in one transaction; False when they are there.

        Those of an older version are left for migrations.py. Raises StorageError ``schema_unknown`` for a file of a
        newer version, or one that is not ours.
        """
        with self.transaction():
            version = self.version()
            if 1 <= version <= SCHEMA_VERSION:
                return False
            if version or self.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise StorageError(
                    f"cannot use {self.path}: its schema version is {version}, this program knows {SCHEMA_VERSION}",
                    code="schema_unknown",
                    hint="install the version of edge-agent that wrote it, or a newer one: there is no way back",
                )
            self.execute_script(read_sql("schema.sql"))
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.set_version(SCHEMA_VERSION)
            initialise()
            return True

    def version(self) -> int:
        """The version of the schema in the file; 0 while it has none."""
        return int(self.execute("PRAGMA user_version").fetchone()[0])

    def set_version(self, version: int) -> None:
        """Part of the transaction in progress."""
        self.execute(f"PRAGMA user_version = {version}")

    def execute_script(self, script: str) -> None:
        """Run several statements inside the transaction in progress (``executescript`` would end it)."""
        for statement in statements(script):
            self.execute(statement)

    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def truncate_log(self) -> bool:
        """Move the write-ahead log into the database and empty it; False when a reader was in the way."""
        with self.reading():
            row = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(row[0] == 0)

    def log_bytes(self) -> int:
        """Size of the write-ahead log's file."""
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def shrink(self, pages: int) -> bool:
        """Take up to ``pages`` free pages off the end; the file gets shorter with the next ``truncate_log``.

        False when no page is free.
        """
        with self.reading():
            if not self._pragma("freelist_count"):
                return False
            # a script, because execute() takes one step, which is one page
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            return True

    def close(self) -> None:
        self._connection.close()

    @property
    def broken(self) -> bool:
        """True once an I/O error or corruption was seen: nothing is done on this connection any more."""
        return self._broken is not None

    def _check(self) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError("the outbox was opened by another thread: use it from that one")
        if self._broken is not None:
            raise StorageError(
                f"cannot use {self.path} after an error of the storage: {self._broken}",
                hint="the store must be closed, opened and verified",
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise self._translate(exc) from exc

    def _translate(self, exc: sqlite3.Error) -> StorageError:
        extended = getattr(exc, "sqlite_errorcode", 0)
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        primary = extended & _PRIMARY_CODE
        why = f"cannot use {self.path}: {exc} ({name})"
        if primary == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
            return StorageError(why, code="storage_full", hint="free space on the file system of the state directory")
        if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            self._broken = str(exc)
            return StorageError(why, code="storage_corrupt", hint="keep a copy of the state directory")
        if primary == sqlite3.SQLITE_IOERR:
            self._broken = str(exc)
        return StorageError(why, retryable=primary == sqlite3.SQLITE_BUSY)


def _create_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database, so that one must be right first."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise StorageError(
            f"cannot open {path}: {exc.strerror}", code="storage_full" if exc.errno == 28 else "storage_failed"
        ) from exc


def statements(script: str) -> Iterator[str]:
    """Split a script where SQLite says that a statement is complete (triggers hold semicolons)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
