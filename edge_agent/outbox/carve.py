"""Rows out of single pages, without trusting anything that leads to them.

Reading through SQLite loses every row below a damaged inner page, and the whole file with the first page. Here every
leaf page is read for itself, whatever table it belongs to: a row is found by its shape (kind of page, number of
columns) and becomes one only when it authenticates, which is the caller's part. Formats:
https://www.sqlite.org/fileformat2.html, sections 1.6 (b-tree pages) and 2.1 (records).
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_agent.outbox.pages import PageLost, Pages

_LEAF, _INDEX_LEAF, _INDEX_INNER = 0x0D, 0x0A, 0x02
_FIRST_PAGE_OFFSET = 100
_POINTER_MAP_ENTRY_BYTES = 5
_SIZES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8, 8: 0, 9: 0}
_REAL, _ZERO, _ONE = 7, 8, 9
_CELL_BITS = 16

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a table are stored."""

    table: str
    columns: tuple[str, ...]
    """In the order of storage: as declared, but the key first in a table WITHOUT ROWID."""
    reals: frozenset[str]
    """SQLite stores whole numbers of REAL columns as integers."""
    rowid: str | None
    """The column that is the rowid, if there is one."""
    keyed: bool
    """WITHOUT ROWID: stored as an index."""


@dataclass(frozen=True, slots=True)
class _Cell:
    rowid: int
    size: int
    local: bytes
    overflow: int
    """Number of the page where the rest is; 0 for none."""


class Carver:
    """Finds the rows of a damaged file by their shape."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._usable = pages.page_size
        self._places: dict[tuple[bool, int], array[int]] = defaultdict(lambda: array("Q"))
        for number, page in pages.all():
            if not self._is_pointer_map(number):
                self._index(number, page)

    def places(self, shape: Shape) -> array[int]:
        """Where rows that may be of this table are; ``row`` reads one."""
        return self._places[(shape.keyed, len(shape.columns))]

    def row(self, place: int, shape: Shape) -> Row:
        """The row at a place as it would come out of this table. Raises PageLost."""
        cell = self._cell(self._pages.read(place >> _CELL_BITS), place)
        values = _record(self._whole(cell))
        if len(values) != len(shape.columns):
            raise PageLost("it is a row of another table")
        row = dict(zip(shape.columns, values, strict=True))
        for name in shape.reals:
            if isinstance(row[name], int):
                row[name] = float(row[name])
        if shape.rowid is not None:
            row[shape.rowid] = cell.rowid
        return row

    def rowid(self, place: int) -> int:
        """The rowid at a place, without reading the row. Raises PageLost."""
        return self._cell(self._pages.read(place >> _CELL_BITS), place).rowid

    def rows(self, shape: Shape) -> Iterator[tuple[int, Row]]:
        """(place, row) of everything that may be a row of this table, in no order."""
        for place in self.places(shape):
            try:
                yield place, self.row(place, shape)
            except PageLost:
                continue  # what is missing is counted against what ought to be there

    # -- pages

    def _is_pointer_map(self, number: int) -> bool:
        """Pages of auto_vacuum that say where pages belong; they hold no rows."""
        return number >= 2 and (number - 2) % (self._usable // _POINTER_MAP_ENTRY_BYTES + 1) == 0

    def _index(self, number: int, page: bytes) -> None:
        kind = page[_start(number)]
        if kind not in {_LEAF, _INDEX_LEAF, _INDEX_INNER}:
            return
        (count,) = struct.unpack_from(">H", page, _start(number) + 3)
        for cell in range(min(count, self._usable // 4)):
            place = number << _CELL_BITS | cell
            try:
                columns = _count_columns(self._cell(page, place).local)
            except (PageLost, IndexError, struct.error):
                continue
            self._places[(kind != _LEAF, columns)].append(place)

    def _cell(self, page: bytes, place: int) -> _Cell:
        try:
            return self._parse(page, _start(place >> _CELL_BITS), place & ((1 << _CELL_BITS) - 1))
        except (IndexError, struct.error) as exc:
            raise PageLost(f"cell {place} makes no sense") from exc

    def _parse(self, page: bytes, start: int, number: int) -> _Cell:
        kind = page[start]
        pointers = start + (12 if kind == _INDEX_INNER else 8)
        (at,) = struct.unpack_from(">H", page, pointers + 2 * number)
        at += 4 if kind == _INDEX_INNER else 0
        size, at = _varint(page, at)
        rowid, at = _varint(page, at) if kind == _LEAF else (0, at)
        local = self._local(size, kind)
        if at + local > self._usable:
            raise PageLost("a cell ends outside its page")
        overflow = struct.unpack_from(">I", page, at + local)[0] if local < size else 0
        return _Cell(_signed(rowid), size, page[at : at + local], overflow)

    def _local(self, size: int, kind: int) -> int:
        """How many bytes of a record this long stand in the page itself."""
        usable = self._usable
        most = usable - 35 if kind == _LEAF else (usable - 12) * 64 // 255 - 23
        if size <= most:
            return size
        least = (usable - 12) * 32 // 255 - 23
        fitting = least + (size - least) % (usable - 4)
        return fitting if fitting <= most else least

    def _whole(self, cell: _Cell) -> bytes:
        """The record with what overflows into other pages."""
        if cell.size > self._pages.count * self._usable:
            raise PageLost("a record is larger than the file")
        parts, missing, number = [cell.local], cell.size - len(cell.local), cell.overflow
        while missing > 0:
            page = self._pages.read(number)
            parts.append(page[4 : 4 + min(missing, self._usable - 4)])
            missing -= len(parts[-1])
            (number,) = struct.unpack_from(">I", page)
        return b"".join(parts)


def _start(number: int) -> int:
    return _FIRST_PAGE_OFFSET if number == 1 else 0


# -- records


def _count_columns(record: bytes) -> int:
    length, at = _varint(record, 0)
    if not at <= length <= len(record):
        raise PageLost("no record begins here")
    count = 0
    while at < length:
        _, at = _varint(record, at)
        count += 1
    return count


def _record(record: bytes) -> list[Any]:
    try:
        length, at = _varint(record, 0)
        kinds = []
        while at < length:
            kind, at = _varint(record, at)
            kinds.append(kind)
        values = []
        for kind in kinds:
            value, length = _value(record, kind, length)
            values.append(value)
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise PageLost("a record makes no sense") from exc
    return values


def _value(record: bytes, kind: int, at: int) -> tuple[Any, int]:
    """(value, where the next one begins)."""
    size = _SIZES[kind] if kind in _SIZES else (kind - 12) // 2
    body = record[at : at + size]
    if kind in {10, 11} or len(body) != size:
        raise PageLost("a value is cut off")
    if kind >= 12:
        return (body if kind % 2 == 0 else body.decode()), at + size
    if kind == 0:
        return None, at
    if kind == _REAL:
        return struct.unpack(">d", body)[0], at + size
    if kind in {_ZERO, _ONE}:
        return kind - _ZERO, at
    return int.from_bytes(body, signed=True), at + size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends): 7 bits per byte, the highest first, 8 in a ninth."""
    value = 0
    for number in range(8):
        byte = content[at + number]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + number + 1
    return value << 8 | content[at + 8], at + 9


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
