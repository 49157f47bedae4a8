"""Getting the files of a pack: from a local copy first, then from each mirror of the manifest in turn.

Nothing appears under a model's name before its size and SHA-256 were checked and its bytes are on the disk. Work goes
on in a hidden folder inside the models folder (the same file system, so that the last step is one rename; never in
memory-backed temporary space), which the next fetch removes should this one be cut off.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from edge_agent.errors import ModelError, StorageError
from edge_agent.packs.download import Mirrors, describe
from edge_agent.packs.local import Local
from edge_agent.packs.manifest import ModelFile, Pack, model_path
from edge_agent.packs.progress import Progress, Silent
from edge_agent.packs.registry import MirrorError
from edge_agent.packs.transform import as_loaded
from edge_agent.packs.verify import FileState, verify_file

WORK_PREFIX = ".fetch-"
FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file of the pack, in place and verified."""

    name: str
    path: Path
    origin: str
    """Where it came from; empty when it was there already."""


class _Unavailable(Exception):
    """One file could not be had; ``tried`` has a line for each place."""

    def __init__(self, tried: list[str]) -> None:
        super().__init__("; ".join(tried))
        self.tried = tried


def fetch_pack(
    pack: Pack,
    models_dir: Path,
    *,
    from_path: Path | None = None,
    progress: Progress | None = None,
    transport: httpx.BaseTransport | None = None,
) -> tuple[Fetched, ...]:
    """Bring every file of ``pack`` into ``models_dir``; what is there and verified stays.

    ``from_path``: a file, folder or archive to look into before any mirror. ``transport`` replaces the network of
    HTTPS sources in tests. Raises InputError (no such ``from_path``), ModelError ``models_unavailable`` (after trying
    all files; names each place and why) or StorageError (``storage_full``, ``storage_failed``).
    """
    local = Local.at(from_path) if from_path is not None else None
    here = _already_here(pack, models_dir)
    missing = {name: file for name, file in pack.files.items() if name not in here}
    if not missing:
        return tuple(here.values())
    telling = progress or Silent()
    with _storage_errors(models_dir), _work_folder(models_dir, telling) as work:
        # Another fetch may have brought them while we waited for the lock.
        here = _already_here(pack, models_dir)
        fetcher = _Fetcher(models_dir, work, local, Mirrors(work, telling, transport=transport), telling)
        return fetcher.fetch_all(pack, here)


@dataclass(frozen=True, slots=True)
class _Fetcher:
    models_dir: Path
    work: Path
    local: Local | None
    mirrors: Mirrors
    progress: Progress

    def fetch_all(self, pack: Pack, here: dict[str, Fetched]) -> tuple[Fetched, ...]:
        done, failed = dict(here), dict[str, list[str]]()
        for name, file in pack.files.items():
            if name in here:
                continue
            try:
                done[name] = self._fetch(name, file)
            except _Unavailable as exc:
                failed[name] = exc.tried
        if failed:
            raise _unavailable(pack, failed)
        return tuple(done[name] for name in pack.files)

    def _fetch(self, name: str, file: ModelFile) -> Fetched:
        data, origin = self._obtain(name, file)
        path = model_path(self.models_dir, name, file)
        _install(data, path, self.work)
        self.progress.line(f"{name}: {len(data)} bytes, verified, from {origin}")
        return Fetched(name, path, origin)

    def _obtain(self, name: str, file: ModelFile) -> tuple[bytes, str]:
        tried: list[str] = []
        if self.local is not None:
            try:
                return self.local.find(name, file)
            except (MirrorError, ModelError) as exc:
                tried.append(f"{self.local.root}: {exc}")
        for source in file.sources:
            try:
                return self._mirrored(self.mirrors.get(source, file.shipped_size or file.size), file), describe(source)
            except (MirrorError, ModelError) as exc:
                tried.append(f"{describe(source)}: {exc}")
                self.progress.line(f"{name}: {tried[-1]}")
        raise _Unavailable(tried or ["the pack names no mirror for it"])

    @staticmethod
    def _mirrored(data: bytes, file: ModelFile) -> bytes:
        result = as_loaded(data, file)
        if result is None:
            size = file.shipped_size or file.size
            what = "another SHA-256" if len(data) == size else f"not the {size} bytes expected"
            raise MirrorError(f"delivered another file than the manifest names ({what})")
        return result


def _already_here(pack: Pack, models_dir: Path) -> dict[str, Fetched]:
    reports = (verify_file(models_dir, name, file) for name, file in pack.files.items())
    return {report.name: Fetched(report.name, report.path, "") for report in reports if report.state is FileState.OK}


def _install(data: bytes, path: Path, work: Path) -> None:
    """Put verified bytes under their name: written, synced and only then renamed."""
    descriptor, part = tempfile.mkstemp(dir=work, suffix=".part")
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        os.fchmod(descriptor, 0o644)  # fetched by root, read by the daemon's user
        stream.flush()
        os.fsync(descriptor)
    Path(part).replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _work_folder(models_dir: Path, progress: Progress) -> Iterator[Path]:
    """A folder of ours inside ``models_dir``, one fetch at a time; removed at the end."""
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.line("waiting for another fetch into the same folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in models_dir.glob(f"{WORK_PREFIX}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        work = Path(tempfile.mkdtemp(dir=models_dir, prefix=WORK_PREFIX))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _storage_errors(models_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise StorageError(
                f"cannot store models in {models_dir}: the disk is full",
                code="storage_full",
                hint="free about 150 MB there (300 MB where npm has to be fetched too), or choose another --dir",
            ) from exc
        raise StorageError(
            f"cannot store models in {models_dir}: {exc.strerror or exc}",
            hint="run as a user who may write there, or choose another --dir",
        ) from exc


def _unavailable(pack: Pack, failed: dict[str, list[str]]) -> ModelError:
    lines = [f"  {name}\n" + "\n".join(f"    {line}" for line in tried) for name, tried in failed.items()]
    return ModelError(
        f"cannot fetch {len(failed)} of the {len(pack.files)} files of the pack {pack.name}:\n" + "\n".join(lines),
        code="models_unavailable",
        hint=f"check the network and proxy, or bring the files along: edge-agent models fetch {pack.name} --from FOLDER"
        " (docs/models.md)",
    )
