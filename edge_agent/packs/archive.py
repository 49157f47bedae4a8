"""Reading one file out of a wheel, zip or tar archive, without unpacking or installing anything."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHIVE_SUFFIXES = (".whl", ".zip", ".tgz", ".tar.gz", ".tar")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""What a damaged, encrypted or exotic archive raises (an unknown compression: a kind of RuntimeError)."""


class ArchiveError(Exception):
    """The archive cannot be read, or does not hold what was asked for."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive."""

    name: str
    size: int
    """Bytes, as the archive says."""
    read: Callable[[int], bytes]
    """The first N bytes. Valid while the archive is open."""

    @property
    def base_name(self) -> str:
        return PurePosixPath(self.name).name


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


@contextmanager
def open_archive(path: Path) -> Iterator[Iterator[Member]]:
    """The regular files of the archive at ``path``, in its order. Raises ArchiveError, also while iterating."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _zip_members(archive)
        else:
            with tarfile.open(path, "r:*") as tar:
                yield _tar_members(tar)
    except BROKEN as exc:
        raise _broken(path, exc) from exc
    except OSError as exc:
        if exc.errno is not None:  # the disk's, not the decoder's
            raise
        raise _broken(path, exc) from exc


def _broken(path: Path, exc: Exception) -> ArchiveError:
    return ArchiveError(f"{path.name} is damaged or no archive: {exc}")


def read_member(path: Path, name: str, size: int) -> bytes:
    """The file ``name`` of the archive, at most ``size`` + 1 bytes of it.

    Where ``name`` is a bare file name, a file of that name in any folder of the archive will do.
    Raises ArchiveError.
    """
    with open_archive(path) as members:
        for member in members:
            if name in (member.name, member.base_name):
                return member.read(size + 1)
    raise ArchiveError(f"{path.name} holds no {name}")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if not info.is_dir():
            yield Member(info.filename, info.file_size, partial(_first, archive, info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        stream = tar.extractfile(info) if info.isreg() else None
        if stream is not None:
            yield Member(info.name, info.size, stream.read)


def _first(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    with archive.open(info) as stream:
        return stream.read(count)
