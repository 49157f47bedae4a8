"""Small real file systems, and filling them to the last byte."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_MB = 50


@contextmanager
def small_disk(folder: Path, kind: str) -> Iterator[Path]:
    """A file system of 50 MB of its own (``tmpfs`` or ``ext4`` on a loop device); skips where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; without it the test that uses a namespace of its own runs these")
    mount = folder / kind
    mount.mkdir()
    _run(_mount_command(folder, kind), mount)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def _mount_command(folder: Path, kind: str) -> list[str]:
    if kind == "tmpfs":
        return ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none"]
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_MB << 20)
    _run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"], image)  # -m 0: root may not use more than others
    return ["mount", "-o", "loop", str(image)]


def _run(command: list[str], *arguments: Path) -> None:
    try:
        subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        pytest.skip(f"no {exc.filename} here")
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"cannot mount a small file system here: {exc.stderr.strip()}")


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Write until the file system takes not one byte more, then free ``leave_bytes``."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for chunk in (1 << 20, 4096, 1):
            _write_all(file.fileno(), bytes(chunk))
        os.fsync(file.fileno())
        if leave_bytes:
            os.ftruncate(file.fileno(), file.tell() - leave_bytes)
    return filler


def _write_all(fd: int, chunk: bytes) -> None:
    try:
        while True:
            os.write(fd, chunk)
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
