"""The audit chain: every record's mac covers its columns and the mac before it.

A changed, missing or reordered record breaks the chain where it is. That the *end* was cut off can be told only
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
from edge_agent.outbox.records import AuditHead, AuditReport

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
            "detail": json.dumps(dict(entry.detail or {}), sort_keys=True, default=str),
            "key_generation": generation,
        }
        values["mac"] = _chain_mac(self._keys[generation], previous, values)
        self._database.execute(self._sql["append_audit"], **values)
        return seq + 1

    def head(self) -> AuditHead | None:
        row = self._database.execute(self._sql["audit_head"]).fetchone()
        return AuditHead(row["seq"], row["mac"].hex()) if row else None

    def last(self) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(self._sql["audit_head"]).fetchone()
        return row

    def verify(self, expect_head: AuditHead | None = None) -> AuditReport:
        """Walk the chain from its anchor to its end."""
        seq, previous = self._anchor()
        start, expected = seq, expect_head
        for row in self._database.execute(self._sql["audit_from"], after=seq):
            if row["seq"] != seq + 1:
                return self._bad(start, seq, f"record {seq + 1} is missing, {row['seq']} follows {seq}")
            key = self._keys.get(row["key_generation"])
            if key is None or not same(row["mac"], _chain_mac(key, previous, row)):
                return self._bad(start, seq, f"record {row['seq']} was changed, or one before it was replaced")
            seq, previous = row["seq"], row["mac"]
            if expected and seq == expected.seq and previous.hex() != expected.mac:
                return self._bad(start, seq - 1, f"record {seq} is not the one that was noted as head")
        head = AuditHead(seq, previous.hex()) if seq > start else None
        if expected and seq < expected.seq:
            why = f"records {seq + 1} to {expected.seq} are cut off"
            return AuditReport(False, seq - start, head, seq + 1, why)
        return AuditReport(True, seq - start, head)

    def _bad(self, start: int, last_good: int, why: str) -> AuditReport:
        return AuditReport(False, last_good - start, self.head(), last_good + 1, why)

    def _end(self) -> tuple[int, bytes]:
        row = self.last()
        return (row["seq"], row["mac"]) if row else self._anchor()

    def _anchor(self) -> tuple[int, bytes]:
        """Where the chain begins: (0, fixed) or after the last record that was pruned on purpose."""
        row = self._database.execute(self._sql["audit_anchor"]).fetchone()
        if row is None:
            return 0, mac(self._keys[min(self._keys)], "begin")
        key = self._keys.get(row["key_generation"], b"")
        signed = mac(key, "anchor", row["seq"], row["chain_mac"], row["reason"], row["at"])
        # an anchor that is not ours leads nowhere: the first record then does not fit
        return row["seq"], row["chain_mac"] if same(row["mac"], signed) else b""


def _chain_mac(key: bytes, previous: bytes, values: Mapping[str, Any] | sqlite3.Row) -> bytes:
    columns: list[Value] = [values[name] for name in _COLUMNS]
    return mac(key, "audit", previous, *columns)
