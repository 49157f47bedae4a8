"""Model files that somebody already has: a file, a folder or an archive (``--from``), for sites without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_agent.errors import InputError
from edge_agent.packs.archive import ArchiveError, is_archive, open_archive
from edge_agent.packs.manifest import ModelFile
from edge_agent.packs.registry import MirrorError
from edge_agent.packs.transform import as_loaded


@dataclass(frozen=True, slots=True)
class Local:
    """The files below one path. The hash decides which is which; names only say where to look first."""

    root: Path
    plain: tuple[Path, ...]
    archives: tuple[Path, ...]

    @classmethod
    def at(cls, root: Path) -> Local:
        """Look at ``root``: a file, a folder (with all below it) or an archive. Raises InputError."""
        if not root.exists():
            raise InputError(
                f"cannot take models from {root}: it does not exist", hint="--from takes a file, a folder or an archive"
            )
        files = tuple(sorted(_walk(root))) if root.is_dir() else (root,)
        archives = tuple(path for path in files if is_archive(path))
        return cls(root, tuple(path for path in files if path not in set(archives)), archives)

    def find(self, name: str, file: ModelFile) -> tuple[bytes, str]:
        """The bytes to store for the model ``name``, and where they were found. Raises MirrorError."""
        names = known_names(name, file)
        refused: list[str] = []
        for path in sorted(self.plain, key=lambda path: path.name not in names):
            if (data := self._plain(path, file, refused, named=path.name in names)) is not None:
                return data, str(path)
        for path in self.archives:
            if (data := _archived(path, file, refused)) is not None:
                return data, str(path)
        raise MirrorError("; ".join(refused) or f"holds no {' or '.join(sorted(names))}")

    @staticmethod
    def _plain(path: Path, file: ModelFile, refused: list[str], *, named: bool) -> bytes | None:
        try:
            size = path.stat().st_size
            found = as_loaded(path.read_bytes(), file) if size in _sizes(file) else None
        except OSError as exc:
            refused.append(f"{path.name}: {exc.strerror}")
            return None
        if found is None and named:
            what = "another SHA-256" if size in _sizes(file) else f"{size} bytes instead of {file.size}"
            refused.append(f"{path.name} is not the file of the manifest ({what})")
        return found


def known_names(name: str, file: ModelFile) -> set[str]:
    """The names under which a file may lie around: its own, its aliases, and those inside its archives."""
    members = (source.member for source in file.sources)
    return {name, *file.aliases, *(PurePosixPath(member).name for member in members if member)}


def _sizes(file: ModelFile) -> set[int | None]:
    return {file.size, file.shipped_size}


def _archived(path: Path, file: ModelFile, refused: list[str]) -> bytes | None:
    try:
        with open_archive(path) as members:
            for member in members:
                if member.size not in _sizes(file):
                    continue
                if (data := as_loaded(member.read(member.size + 1), file)) is not None:
                    return data
    except (ArchiveError, OSError) as exc:
        refused.append(str(exc))
    return None


def _walk(root: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(root):
        yield from (Path(parent, name) for name in names)
