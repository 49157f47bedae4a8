"""The bundle as a file: a tar.gz that is there whole or not at all, and that only its owner can read."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bundle.collecting import Bundle
from edge_agent.errors import ConfigurationError, EnvironmentFault

MODE = 0o600


@dataclass(frozen=True, slots=True)
class Written:
    """Where it is."""

    path: Path
    bytes: int
    sha256: str
    private: bool
    """False on a file system without rights: whoever has the stick can read it."""


def stem(bundle: Bundle) -> str:
    """Of the file, and the folder inside of it."""
    return f"edge-agent-bundle-{bundle.terminal_id}-{bundle.at:%Y%m%dT%H%M%SZ}"


def packed(bundle: Bundle) -> bytes:
    """A tar.gz with one folder; of the machine it says no more than the bundle: no owner, no name."""
    stream = io.BytesIO()
    seconds = int(bundle.at.timestamp())
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for member in bundle.members:
            entry = tarfile.TarInfo(f"{stem(bundle)}/{member.name}")
            entry.size, entry.mtime, entry.mode = len(member.content), seconds, MODE
            tar.addfile(entry, io.BytesIO(member.content))
    return stream.getvalue()


def look_before(path: Path, *, overwrite: bool) -> None:
    """What would keep ``write`` from writing, as far as it shows before there is a bundle: collecting takes minutes.

    ``path`` may be a folder for it. Raises as ``write``.
    """
    folder = path if path.is_dir() else path.parent
    if folder is not path and not overwrite and os.path.lexists(path):
        raise _exists(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "no right to write there" if folder.is_dir() else os.strerror(errno.ENOENT)
        raise _cannot_write(path, why)


def _exists(path: Path) -> ConfigurationError:
    hint = "give another file with --output, or overwrite it with --force"
    return ConfigurationError(f"cannot write {path}: it exists", hint=hint)


def _cannot_write(path: Path, why: str) -> EnvironmentFault:
    return EnvironmentFault(f"cannot write {path}: {why}", hint="give another folder with --output")


def write(bundle: Bundle, path: Path, *, overwrite: bool = False) -> Written:
    """Write beside ``path``, bring it to the disk, then give it its name.

    Raises ConfigurationError where it exists already, EnvironmentFault where it cannot be written; nothing is then left.
    """
    data = packed(bundle)
    ours = False
    try:
        if not overwrite:
            os.close(_new(path))  # the name is ours from here on: no link() on the file systems of memory sticks
            ours = True
        private = _replace(path, data)
    except FileExistsError as exc:
        raise _exists(path) from exc
    except OSError as exc:
        if ours:
            _discard(path)
        raise _cannot_write(path, str(exc.strerror)) from exc
    except BaseException:
        if ours:
            _discard(path)
        raise
    return Written(path, len(data), hashlib.sha256(data).hexdigest(), private)


def _replace(path: Path, data: bytes) -> bool:
    """True when only the owner may read it. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = _new(beside)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            private = os.fstat(file.fileno()).st_mode & 0o077 == 0
        beside.replace(path)
    except BaseException:
        _discard(beside)
        raise
    _sync(path.parent)
    return private


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
