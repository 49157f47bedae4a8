"""The pages of a damaged database, straight from its file and its write-ahead log.

SQLite refuses a file whose first page is gone and stops at the first bad frame of the log. This reader knows only
where pages are. Formats: https://www.sqlite.org/fileformat2.html, sections 1.3 (header) and 4 (write-ahead log).

A frame of the log is taken when its checksum follows from the one before, as SQLite does it, but reading goes on
after a bad frame: each frame carries the checksum of all before it, so the next one can be checked against that.
Frames after the last commit were never acknowledged and are left out. A power cut may leave one commit behind a bad
frame, that of the transaction it cut short; two of them show that something was damaged which had been synced.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HEADER_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = 0x377F0682
"""The lowest bit tells the byte order of the checksums: 1 is big-endian."""
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MOST_IN_FLIGHT = 1
"""One writer: one transaction at most was not synced yet."""
_PAGE_SIZES = {512 << n for n in range(8)}

Sums = tuple[int, int]


class PageLost(Exception):
    """There is no such page (any more), or what it holds makes no sense. Never leaves the salvage."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first page says of the file."""

    page_size: int
    schema_version: int
    application_id: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """One page in the log."""

    page: int
    offset: int
    """Of the page's bytes."""
    salts: bytes
    commits: bool
    sums: Sums
    valid: bool


class Pages:
    """The newest readable version of every page. The files may be renamed meanwhile, but not changed."""

    def __init__(self, database: Path, log: Path, default_page_size: int) -> None:
        """Files that do not exist are empty."""
        self._database = _open(database)
        self._log = _open(log)
        header = _header_of(_read(self._database, 100, 0))
        self.page_size = header.page_size if header else default_page_size
        frames = list(self._frames())
        self._in_log = dict(_newest(frames, self._salts()))
        self.log_is_broken = _hidden(_ours(frames, self._salts())) > _MOST_IN_FLIGHT
        """Whether SQLite would throw away transactions that were acknowledged."""
        in_file = -(-os.fstat(self._database).st_size // self.page_size)
        self.count = max([in_file, *self._in_log])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._database)
        os.close(self._log)

    def read(self, number: int) -> bytes:
        """The page with this number, from 1. Raises PageLost."""
        if not 1 <= number <= self.count:
            raise PageLost(f"page {number} of {self.count}")
        offset = self._in_log.get(number)
        if offset is not None:
            return self._whole(_read(self._log, self.page_size, offset))
        return self._whole(_read(self._database, self.page_size, (number - 1) * self.page_size))

    def header(self) -> Header | None:
        """None when the first page is not that of a database."""
        try:
            return _header_of(self.read(1))
        except PageLost:
            return None

    def all(self) -> Iterator[tuple[int, bytes]]:
        """Every page that can be read, in order."""
        for number in range(1, self.count + 1):
            try:
                yield number, self.read(number)
            except PageLost:
                continue  # what was on it is missed where it is looked for

    def _whole(self, page: bytes) -> bytes:
        if not page:
            raise PageLost("it is cut off")
        return page.ljust(self.page_size, b"\0")  # the last page of a file that was cut within it

    # -- the log

    def _salts(self) -> bytes | None:
        """What marks the frames of the log's present use, if its header can tell."""
        head = _read(self._log, _LOG_HEADER_BYTES, 0)
        return head[16:24] if _sums_of_header(head) is not None else None

    def _frames(self) -> Iterator[_Frame]:
        """Every frame of the log as far as it reaches, valid or not."""
        head = _read(self._log, _LOG_HEADER_BYTES, 0)
        if len(head) < _LOG_HEADER_BYTES:
            return
        order = _order(head)
        sums = _sums_of_header(head)
        offset = _LOG_HEADER_BYTES
        while True:
            frame = _read(self._log, _FRAME_HEADER_BYTES + self.page_size, offset)
            if len(frame) < _FRAME_HEADER_BYTES + self.page_size:
                return
            page, commits = struct.unpack_from(">II", frame)
            own: Sums = struct.unpack_from(">II", frame, 16)
            follows = sums is not None and _checksum(order, sums, frame[:8] + frame[24:]) == own
            salts = frame[8:16]
            yield _Frame(page, offset + _FRAME_HEADER_BYTES, salts, commits > 0, own, valid=follows and page > 0)
            sums = own
            offset += len(frame)


def _header_of(page: bytes) -> Header | None:
    if len(page) < 100 or not page.startswith(HEADER_MAGIC):
        return None
    (size,) = struct.unpack_from(">H", page, 16)
    size = 65536 if size == 1 else size
    (schema,) = struct.unpack_from(">I", page, 60)
    (application,) = struct.unpack_from(">I", page, 68)
    return Header(size, schema, application) if size in _PAGE_SIZES else None


def _newest(frames: list[_Frame], salts: bytes | None) -> Iterator[tuple[int, int]]:
    """(page, offset) of the frames to use; a later one of the same page replaces an earlier one."""
    ours = _ours(frames, salts)
    bad = _first_bad(ours)
    commits = [number for number, frame in enumerate(ours) if frame.valid and frame.commits]
    trusted = commits if _hidden(ours) > _MOST_IN_FLIGHT else [number for number in commits if number < bad]
    last = max(trusted, default=-1)
    return ((frame.page, frame.offset) for frame in ours[: last + 1] if frame.valid)


def _ours(frames: list[_Frame], salts: bytes | None) -> list[_Frame]:
    """The salts tell the frames of the log as it is from those of an earlier use of the file."""
    salts = salts or next((frame.salts for frame in frames if frame.valid), None)
    return [frame for frame in frames if frame.salts == salts or (not frame.valid and salts is not None)]


def _first_bad(frames: list[_Frame]) -> int:
    return next((number for number, frame in enumerate(frames) if not frame.valid), len(frames))


def _hidden(frames: list[_Frame]) -> int:
    """Commits behind the first bad frame, which SQLite does not see."""
    return sum(frame.valid and frame.commits for frame in frames[_first_bad(frames) :])


def _order(head: bytes) -> str:
    return ">" if struct.unpack_from(">I", head)[0] == _LOG_MAGIC | 1 else "<"


def _sums_of_header(head: bytes) -> Sums | None:
    """What the first frame's checksum follows from; None when the header does not add up."""
    if len(head) < _LOG_HEADER_BYTES:
        return None
    sums = _checksum(_order(head), (0, 0), head[:24])
    return sums if struct.unpack_from(">II", head, 24) == sums else None


def _checksum(order: str, sums: Sums, content: bytes) -> Sums:
    """The checksum of the log: two running sums over pairs of 32-bit words."""
    first, second = sums
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for left, right in zip(words[::2], words[1::2], strict=True):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return first, second


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _read(fd: int, size: int, offset: int) -> bytes:
    """What is there; nothing where the disk cannot read it."""
    try:
        return os.pread(fd, size, offset)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return b""
