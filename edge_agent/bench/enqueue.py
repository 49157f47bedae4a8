"""Enqueueing a capture beside one bare write and fsync of the same bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bench.figures import Spread, break_even_ms, spread, timed
from edge_agent.bench.queue import BenchStore, user

GOAL = 2.0
"""A capture is to be stored within this many times the bare write."""
_WARM_UP = 5
_USERS = 5


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Of one picture each, all by turns in one run."""

    picture_bytes: int
    append: Spread
    """Bare: written to the end of an open file, fsync. The strictest measure."""
    new_file: Spread
    """Bare: a file of its own, fsync; its name is in the folder only after a sync of that."""
    create: Spread
    """``create``: the verification exists, before the camera is asked."""
    capture: Spread
    """``commit_capture``: hashed, encrypted, audited and synced."""

    @property
    def ratio(self) -> float:
        """Capture to append, of the medians."""
        return self.capture.median_ms / self.append.median_ms

    @property
    def ratio_new_file(self) -> float:
        return self.capture.median_ms / self.new_file.median_ms

    @property
    def break_even_ms(self) -> float:
        """Where a bare write of these bytes takes at least this long, the goal is met."""
        return break_even_ms(self.append.median_ms, self.capture.median_ms, GOAL)


def measure(folder: Path, store: BenchStore, pictures: int, picture_bytes: int) -> Enqueue:
    """Alternate the four kinds of work ``pictures`` times, after some that do not count."""
    columns: tuple[list[float], ...] = ([], [], [], [])
    log = os.open(folder / "append", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for number in range(pictures + _WARM_UP):
            picture = os.urandom(picture_bytes)
            row = _round(folder, log, store, number, picture)
            for column, seconds in zip(columns, row, strict=True):
                column.append(seconds)
    finally:
        os.close(log)
    return Enqueue(picture_bytes, *(spread(column[_WARM_UP:]) for column in columns))


def _round(folder: Path, log: int, store: BenchStore, number: int, picture: bytes) -> tuple[float, ...]:
    who = user(number % _USERS)
    append_s, _ = timed(lambda: _write(log, picture))
    new_file_s, _ = timed(lambda: _write_file(folder / f"picture-{number}", picture))
    create_s, record = timed(lambda: store.search(who))
    capture_s, _ = timed(lambda: store.capture(who, picture, of=record.id))
    return append_s, new_file_s, create_s, capture_s


def _write(fd: int, content: bytes) -> None:
    os.write(fd, content)
    os.fsync(fd)


def _write_file(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        _write(fd, content)
    finally:
        os.close(fd)
