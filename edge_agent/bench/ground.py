"""Where it is measured: the machine, its file system, a folder of our own there, and what a sync costs."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bench.figures import Spread, spread, timed
from edge_agent.errors import EnvironmentFault

_MOUNTS = Path("/proc/self/mounts")
_STATUS = Path("/proc/self/status")
_PAGE_BYTES = 4096
_SYNCS = 200


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures belong to."""

    processor: str
    cores: int
    python: str
    sqlite: str
    file_system: str
    load: float
    """Average of the last minute at the start: others at work make every figure worse."""


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder in ``parent``, removed at the end; nothing that is there already is touched."""
    try:
        with tempfile.TemporaryDirectory(prefix="edge-agent-bench-", dir=parent, ignore_cleanup_errors=True) as name:
            yield Path(name)
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot measure in {parent}: {exc.strerror}", hint="give a folder that can be written with --dir"
        ) from exc


def machine(folder: Path) -> Machine:
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        file_system=_file_system(folder.resolve()),
        load=os.getloadavg()[0],
    )


def sync_cost(folder: Path, syncs: int = _SYNCS) -> Spread:
    """Of an fdatasync after 4096 overwritten bytes: the least that a commit can cost on this file system."""
    fd = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        seconds = []
        for _ in range(syncs):
            os.pwrite(fd, os.urandom(_PAGE_BYTES), 0)
            seconds.append(timed(lambda: os.fdatasync(fd))[0])
        return spread(seconds)
    finally:
        os.close(fd)


def resident_mb(key: str = "VmRSS") -> float:
    """Memory of this process that is in RAM now (``VmHWM``: the most that was), MB of 10^6 bytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
    return int(lines[key].split()[0]) * 1024 / 1e6


def processor() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith(("model name", "Model"))]
    return names[-1] if names else platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system that ``folder`` is on: of the longest mount point above it."""
    mounts = [line.split() for line in _MOUNTS.read_text(encoding="utf-8").splitlines()]
    above = [(point, kind) for _, point, kind, *_ in mounts if folder.is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]
