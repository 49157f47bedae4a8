"""Replacing a small file so that after a power cut it is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edge_agent.errors import EnvironmentFault

NEW_FILE_MODE = 0o640


def replace_file(path: Path, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write ``data`` beside ``path``, bring it to the disk, rename it over ``path``. Raises EnvironmentFault."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)  # of a write that was cut off
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise EnvironmentFault(
            f"cannot write {path}: {exc.strerror}", code="not_writable", hint="run as root; is the disk full?"
        ) from exc


def swap(target: Path, text: str) -> Path | None:
    """Put ``text`` in the place of ``target``, with its owner and mode; the old one stays beside it as ``.previous``.

    Returns where the old one is, or None where there was none. A symbolic link stays one. Raises EnvironmentFault.
    """
    target = target.resolve()
    previous = target.with_name(f"{target.name}.previous")
    try:
        old, found = target.read_bytes(), target.stat()
    except FileNotFoundError:
        folder = target.parent.stat()
        replace_file(target, text.encode(), mode=NEW_FILE_MODE, owner=_owner(os.geteuid(), folder.st_gid))
        return None
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot read {target}: {exc.strerror}", code="not_writable", hint="run as root"
        ) from exc
    mode, owner = found.st_mode & 0o7777, _owner(found.st_uid, found.st_gid)
    if old != text.encode():
        replace_file(previous, old, mode=mode, owner=owner)
        replace_file(target, text.encode(), mode=mode, owner=owner)
    return previous if previous.exists() else None


def check_writable(target: Path) -> None:
    """Raises EnvironmentFault where ``swap`` would fail for want of rights: better known before than after a trial."""
    folder = target.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EnvironmentFault(f"cannot write in {folder}", code="not_writable", hint="run as root")


def _owner(uid: int, gid: int) -> tuple[int, int] | None:
    """Only root can give a file away; others leave it theirs."""
    return (uid, gid) if os.geteuid() == 0 else None


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
