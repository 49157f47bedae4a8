"""The audit chain of a damaged file: the records that verify, and signed anchors over what is missing.

A record's mac covers the mac of the record before it. So the first record after a gap cannot be authenticated
itself, but its mac is the one from which the next record must follow: where it does, the chain goes on there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent.outbox.audit import SALVAGE, Position, anchor_fits, beginning, chain_mac, salvage_anchor
from edge_agent.outbox.carve import Carver, Row, Shape
from edge_agent.outbox.crypto import same
from edge_agent.outbox.pages import PageLost
from edge_agent.outbox.records import AuditGap

_MAC_BYTES = 32
_MOST_MISSING = 1_000_000
"""A number further away than this is nonsense, not a record."""


@dataclass
class AuditSalvage:
    """One walk over the chain; ``records`` yields what to store."""

    carver: Carver
    shapes: Mapping[str, Shape]
    keys: Mapping[int, bytes]
    now_iso: str
    known_seq: int
    """The highest number of a record that something authentic refers to."""
    anchors: list[dict[str, Any]] = field(default_factory=list)
    """Rows for ``audit_anchors``, complete when ``records`` is exhausted."""
    gaps: list[AuditGap] = field(default_factory=list)
    """The new ones."""

    def records(self) -> Iterator[Row]:
        """Every record that verifies, in order."""
        self._places: dict[int, list[int]] = defaultdict(list)
        for place in self.carver.places(self.shapes["audit"]):
            self._places[self.carver.rowid(place)].append(place)
        self._order = sorted(self._places)
        self._old = self._old_anchors()
        position = self._start()
        while True:
            record = self._follower(position)
            if record is not None:
                position = record["seq"], record["mac"]
                yield record
            elif (over := self._over_old(position) or self._over_new(position)) is not None:
                position = over
            else:
                self._end(position)
                return

    def _old_anchors(self) -> list[Row]:
        rows = (row for _, row in self.carver.rows(self.shapes["audit_anchors"]))
        return sorted((row for row in rows if isinstance(row["mac"], bytes)), key=lambda row: int(row["seq"]))

    def _start(self) -> Position:
        pruned = [row for row in self._old if row["reason"] != SALVAGE and anchor_fits(self.keys, row)]
        self.anchors += pruned
        return max(((row["seq"], row["chain_mac"]) for row in pruned), default=beginning(self.keys))

    def _follower(self, position: Position) -> Row | None:
        """The record that verifies as the next one."""
        for record in self._read(position[0] + 1):
            key = self.keys.get(record["key_generation"])
            if key is not None and same(record["mac"], chain_mac(key, position[1], record)):
                return record
        return None

    def _read(self, seq: int) -> Iterator[Row]:
        for place in self._places.get(seq, ()):
            try:
                record = self.carver.row(place, self.shapes["audit"])
            except PageLost:
                continue  # another copy may be whole; if not, the record is missing
            if isinstance(record["mac"], bytes) and len(record["mac"]) == _MAC_BYTES:
                yield record

    def _over_old(self, position: Position) -> Position | None:
        """Over a gap of an earlier salvage."""
        for row in self._old:
            if row["reason"] == SALVAGE and row["seq"] > position[0] and anchor_fits(self.keys, row, position):
                self.anchors.append(row)
                return row["seq"], row["chain_mac"]
        return None

    def _over_new(self, position: Position) -> Position | None:
        """To the nearest place from which a record follows."""
        for onward in self._onward(position[0]):
            if self._follower(onward) is not None:
                return self._leap(position, onward)
        return None

    def _onward(self, seq: int) -> Iterator[Position]:
        """Places after ``seq`` where the chain may go on, the nearest first."""
        for number in self._order[bisect_right(self._order, seq) :]:
            for record in self._read(number):
                yield number, record["mac"]
            yield from self._anchored(number)

    def _anchored(self, seq: int) -> Sequence[Position]:
        """Just before a record, where an earlier salvage's anchor says what its mac would be."""
        return [(row["seq"], row["chain_mac"]) for row in self._old if row["seq"] == seq - 1]

    def _end(self, position: Position) -> None:
        """Numbers that were given out already are not given out again, or a head noted earlier could be met twice."""
        last = self._last(position[0])
        if last[0] > position[0]:
            self._leap(position, last)

    def _last(self, seq: int) -> Position:
        after = self._order[bisect_right(self._order, seq) :]
        for number in reversed([n for n in after if n <= seq + _MOST_MISSING]):
            for record in self._read(number):
                if number >= self.known_seq:
                    return number, record["mac"]
        return max(self.known_seq, seq), bytes(_MAC_BYTES)

    def _leap(self, position: Position, to: Position) -> Position:
        self.anchors.append(salvage_anchor(self.keys, position, to, self.now_iso))
        self.gaps.append(AuditGap(position[0] + 1, to[0], self.now_iso))
        return to
