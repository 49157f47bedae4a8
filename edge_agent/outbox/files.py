"""Small files and folders of the state directory: written whole or not at all, and on the disk when a call returns."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import StorageError


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was created, renamed and removed."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    _sync(path, os.O_RDWR | os.O_CLOEXEC)


def replace_file(path: Path, content: bytes) -> None:
    """Put a private file (0600) there in one step: after a power cut it is the old one or the new one.

    Raises StorageError ``storage_full`` or ``storage_failed``; the old file is then still there.
    """
    fresh = path.with_name(path.name + ".new")
    with translated(f"cannot write {path}"):
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(content)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
        sync_folder(path.parent)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of the file system come out as StorageError, with ``what`` could not be done."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(f"{what}: {exc.strerror}", code="storage_full" if full else "storage_failed") from exc


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
