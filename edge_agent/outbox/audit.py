"""The audit chain: every record's mac covers its columns and the mac before it.

A changed, missing or reordered record breaks the chain where it is. Where pruning or a salvage left records out, an
anchor says so: it holds the mac of the last record that is gone, signed with the audit key. A salvage's anchor also
signs the record *before* the gap, so that nothing more can be taken out around it. That the *end* was cut off can be told only
against a head that was kept elsewhere (journal, metrics), and whoever has the device key can forge all of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.outbox.ages import Moment
from edge_agent.outbox.crypto import Value, mac, same
from edge_agent.outbox.database import Database
from edge_agent.outbox.records import AuditGap, AuditHead, AuditReport

_COLUMNS = (
    "seq",
    "at",
    "synchronised",
    "boot_id",
    "boottime_s",
    "running_s",
    "instance_id",
    "event",
    "verification_id",
    "user_hmac",
    "from_state",
    "to_state",
    "detail",
    "key_generation",
)
_as_json = json.JSONEncoder(sort_keys=True, default=str).encode
"""Made once: ``json.dumps`` makes an encoder for every call with options."""


SALVAGE = "salvage"
"""The reason of an anchor that bridges a gap; any other anchor is where the chain begins."""
PRUNED = "pruned"
"""The reason of the anchor that the retention of the log leaves."""

Position = tuple[int, bytes]
"""Sequence number and mac of a record: where one is in the chain."""

_PART = 1000
"""Records checked in one go: the store's thread must not be kept from a customer for long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, to what."""

    event: str
    verification_id: str | None = None
    user_hmac: bytes | None = None
    from_state: str | None = None
    to_state: str | None = None
    detail: Mapping[str, Any] | None = None


class AuditChain:
    """Appends inside the caller's transaction, and verifies."""

    def __init__(self, database: Database, sql: Mapping[str, str], keys: Mapping[int, bytes], instance_id: str) -> None:
        self._database = database
        self._sql = sql
        self._keys = keys
        self._instance_id = instance_id

    def append(self, entry: Entry, now: Moment) -> int:
        """Write one record; returns its sequence number."""
        seq, previous = self._end()
        generation = max(self._keys)
        values: dict[str, Any] = {
            "seq": seq + 1,
            "at": now.iso,
            "synchronised": int(now.synchronised),
            "boot_id": now.instant.boot_id,
            "boottime_s": float(now.instant.boottime_s),
            "running_s": float(now.running_s),
            "instance_id": self._instance_id,
            "event": entry.event,
            "verification_id": entry.verification_id,
            "user_hmac": entry.user_hmac,
            "from_state": entry.from_state,
            "to_state": entry.to_state,
            "detail": _as_json(dict(entry.detail or {})),
            "key_generation": generation,
        }
        values["mac"] = chain_mac(self._keys[generation], previous, values)
        self._database.execute(self._sql["append_audit"], **values)
        return seq + 1

    def head(self) -> AuditHead | None:
        row = self._database.execute(self._sql["audit_head"]).fetchone()
        return AuditHead(row["seq"], row["mac"].hex()) if row else None

    def last(self) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(self._sql["audit_head"]).fetchone()
        return row

    def verify(self, expect_head: AuditHead | None = None) -> AuditReport:
        """Walk the chain from its beginning to its end, over the gaps that have a believable anchor.

        After a rotation of the key nothing more is written with the key before, and its first act is a record: so
        generations only grow, and an end of an older one was forged with a key that got about.
        """
        walked: Walk | AuditReport | None = None
        while not isinstance(walked, AuditReport):
            walked = self.walk(walked, expect_head)
        return walked

    def walk(self, walk: Walk | None, expected: AuditHead | None) -> Walk | AuditReport:
        """Go on from where the last part ended (None: from the beginning) for some records, or to the end.

        Where the log was pruned beyond that place since, it begins anew.
        """
        start = self._start()
        if walk is None or walk.seq < start[0]:
            walk = Walk(start, expected)
        rows = self._database.execute(self._sql["audit_part"], after=walk.seq, limit=_PART).fetchall()
        for row in rows:
            problem = self._cross_gaps(walk, row) or self._step(walk, row)
            if problem:
                return walk.bad(problem, self.head())
        return walk if len(rows) == _PART else self._concluded(walk)

    def _cross_gaps(self, walk: Walk, row: sqlite3.Row) -> str | None:
        """Over the gaps before this record; what is wrong with them, if anything."""
        while row["seq"] != walk.seq + 1:
            anchor = self._bridge((walk.seq, walk.mac))
            if anchor is None or anchor["seq"] >= row["seq"]:
                return f"record {walk.seq + 1} is missing, {row['seq']} follows {walk.seq}"
            if problem := walk.cross(anchor):
                return problem
        return None

    def _step(self, walk: Walk, row: sqlite3.Row) -> str | None:
        key = self._keys.get(row["key_generation"])
        if key is None or not same(row["mac"], chain_mac(key, walk.mac, row)):
            return f"record {row['seq']} was changed, or one before it was replaced"
        if row["key_generation"] < walk.generation:
            return f"record {row['seq']} was made with a key that was rotated away"
        if walk.is_another(row):
            return f"record {row['seq']} is not the one that was noted as head"
        walk.take(row)
        return None

    def _concluded(self, walk: Walk) -> AuditReport:
        """At the end of the chain: is it the end that there should be?"""
        head = AuditHead(walk.seq, walk.mac.hex()) if walk.seq > walk.start else None
        if walk.expected and walk.seq < walk.expected.seq:
            return walk.bad(f"records {walk.seq + 1} to {walk.expected.seq} are cut off", head)
        if 0 < walk.generation < max(self._keys):
            why = f"records from {walk.seq + 1} on are cut off: the last is from before the rotation of the key"
            return walk.bad(why, head)
        return AuditReport(True, walk.records, head, gaps=tuple(walk.gaps))

    def _end(self) -> Position:
        row = self.last()
        end = (row["seq"], row["mac"]) if row else self._start()
        anchor = self._bridge(end)
        return (anchor["seq"], anchor["chain_mac"]) if anchor else end

    def _start(self) -> Position:
        """Where the chain begins: (0, fixed) or after the last record that was pruned on purpose."""
        row = self._database.execute(self._sql["audit_anchor"]).fetchone()
        if row is None:
            return beginning(self._keys)
        # an anchor that is not ours leads nowhere: the first record then does not fit
        return row["seq"], row["chain_mac"] if anchor_fits(self._keys, row) else b""

    def _bridge(self, position: Position) -> sqlite3.Row | None:
        """The anchor that a salvage left for the gap after this position."""
        row: sqlite3.Row | None = self._database.execute(self._sql["next_anchor"], after=position[0]).fetchone()
        return row if row is not None and anchor_fits(self._keys, row, position) else None

    def prune(self, last: int, at: str) -> int:
        """Destroy every record up to ``last`` and leave a signed anchor in their place; returns how many went.

        None goes where one of them does not verify: what shows that the log was changed is not for retention to remove.
        """
        walk = Walk(self._start(), None)
        for row in self._database.execute(self._sql["audit_up_to_and_with"], last=last).fetchall():
            if self._cross_gaps(walk, row) or self._step(walk, row):
                return 0
        if walk.records == 0:
            return 0
        anchor = pruning_anchor(self._keys, (walk.seq, walk.mac), at)
        self._database.execute(self._sql["drop_anchors"], last=walk.seq)
        self._database.execute(self._sql["insert_anchor"], **anchor)
        self._database.execute(self._sql["drop_audit"], last=walk.seq)
        return walk.records

    def resign_anchors(self) -> None:
        """Sign the anchors with the newest key: only that one is believed, so an older one makes no other anchor."""
        generation, before = max(self._keys), beginning(self._keys)
        for anchor in self._database.execute(self._sql["anchors"]).fetchall():
            record = self._database.execute(self._sql["audit_up_to"], seq=anchor["seq"]).fetchone()
            after = max(before, (record["seq"], record["mac"]) if record else before, key=lambda position: position[0])
            if _is_signed(self._keys, anchor, after):
                signed = _anchor_mac(self._keys[generation], anchor, after)
                self._database.execute(self._sql["resign_anchor"], seq=anchor["seq"], generation=generation, mac=signed)
            before = (anchor["seq"], anchor["chain_mac"])


class Walk:
    """How far a walk over the chain has come, and what it has seen."""

    def __init__(self, start: Position, expected: AuditHead | None) -> None:
        self.start = start[0]
        self.seq, self.mac = start
        self.expected = expected
        self.records = 0
        self.generation = 0
        """Of the key of the last record."""
        self.gaps: list[AuditGap] = []

    def bad(self, why: str, head: AuditHead | None) -> AuditReport:
        return AuditReport(False, self.records, head, self.seq + 1, why, tuple(self.gaps))

    def take(self, row: sqlite3.Row) -> None:
        self.seq, self.mac, self.generation = row["seq"], row["mac"], row["key_generation"]
        self.records += 1

    def is_another(self, row: sqlite3.Row) -> bool:
        """Whether this is the place of the record noted as head, and another record is there."""
        return self.expected is not None and row["seq"] == self.expected.seq and row["mac"].hex() != self.expected.mac

    def cross(self, anchor: sqlite3.Row) -> str | None:
        """Note the gap that the anchor bridges; a problem when the record noted as head was in it."""
        gap = AuditGap(self.seq + 1, anchor["seq"], anchor["at"])
        self.gaps.append(gap)
        expected = self.expected
        # what came before may be lost, but nothing else than what was noted ended there
        known = expected == AuditHead(gap.last, anchor["chain_mac"].hex())
        if expected is not None and gap.first <= expected.seq <= gap.last and not known:
            return (
                f"records {gap.first} to {gap.last} were lost before the salvage of {gap.at}: the noted head is cut off"
            )
        self.seq, self.mac = anchor["seq"], anchor["chain_mac"]
        return None


def beginning(keys: Mapping[int, bytes]) -> Position:
    """The position before the very first record."""
    return 0, mac(keys[min(keys)], "begin")


def anchor_fits(keys: Mapping[int, bytes], anchor: Mapping[str, Any] | sqlite3.Row, after: Position = (0, b"")) -> bool:
    """Whether an anchor is genuine and, if it bridges a gap, belongs after this position.

    Only the newest key makes anchors: one that was rotated away may have got about.
    """
    return anchor["key_generation"] == max(keys) and _is_signed(keys, anchor, after)


def _is_signed(keys: Mapping[int, bytes], anchor: Mapping[str, Any] | sqlite3.Row, after: Position) -> bool:
    key = keys.get(anchor["key_generation"])
    return key is not None and same(anchor["mac"], _anchor_mac(key, anchor, after))


def salvage_anchor(keys: Mapping[int, bytes], after: Position, to: Position, at: str) -> dict[str, Any]:
    """The row for ``audit_anchors`` that lets the chain go on at ``to`` although records after ``after`` are lost."""
    generation = max(keys)
    row: dict[str, Any] = {"seq": to[0], "chain_mac": to[1], "reason": SALVAGE, "at": at, "key_generation": generation}
    return {**row, "mac": _anchor_mac(keys[generation], row, after)}


def pruning_anchor(keys: Mapping[int, bytes], last: Position, at: str) -> dict[str, Any]:
    """The row for ``audit_anchors`` that lets the chain begin after ``last``, the last record that is pruned."""
    generation = max(keys)
    row: dict[str, Any] = {"seq": last[0], "chain_mac": last[1], "reason": PRUNED, "at": at}
    return {**row, "key_generation": generation, "mac": _anchor_mac(keys[generation], row, (0, b""))}


def _anchor_mac(key: bytes, anchor: Mapping[str, Any] | sqlite3.Row, after: Position) -> bytes:
    values = [anchor[name] for name in ("seq", "chain_mac", "reason", "at")]
    return mac(key, "anchor", *values, *(after if anchor["reason"] == SALVAGE else ()))


def chain_mac(key: bytes, previous: bytes, values: Mapping[str, Any] | sqlite3.Row) -> bytes:
    """The mac of a record that follows the one with the mac ``previous``."""
    columns: list[Value] = [values[name] for name in _COLUMNS]
    return mac(key, "audit", previous, *columns)
