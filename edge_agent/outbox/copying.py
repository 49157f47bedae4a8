"""Copying every row of a damaged database that authenticates into a new one."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from edge_agent.errors import StorageError
from edge_agent.outbox.ages import RunningClock, to_iso
from edge_agent.outbox.aside import Progress
from edge_agent.outbox.audit_salvage import AuditSalvage
from edge_agent.outbox.carve import Carver, Row, Shape
from edge_agent.outbox.clock import Clock, instant
from edge_agent.outbox.core import Core
from edge_agent.outbox.crypto import Place, StoreKeys, mac, same, unseal
from edge_agent.outbox.database import Database
from edge_agent.outbox.pages import PageLost
from edge_agent.outbox.records import Limits
from edge_agent.outbox.rows import row_mac
from edge_agent.outbox.salvage_keys import OpenedKeys
from edge_agent.outbox.shapes import SEQUENCES
from edge_agent.outbox.space import Reserve

T = TypeVar("T")
_BATCH = 100
_MOST_AHEAD = 1_000_000
"""A sequence that claims to be further ahead of its rows than this was not written by us."""
_SPECIAL = frozenset(
    {"meta", "device_keys", "secrets", "users", "verifications", "payloads", "erasures", "audit", "templates"}
)
"""Tables with a way of their own. Templates have none: one that was destroyed must not come back, and the next
confirmation makes a new one."""


class Copying(Core):
    """Fills the database it is given, table by table."""

    def __init__(
        self,
        database: Database,
        keys: StoreKeys,
        clock: Clock,
        *,
        instance_id: str,
        limits: Limits,
        reserve: Reserve,
        carver: Carver,
        shapes: Mapping[str, Shape],
        opened: OpenedKeys,
    ) -> None:
        now = instant(clock)
        running = RunningClock(now.boot_id, now.boottime_s, 0.0)
        super().__init__(
            database, keys, clock, running, instance_id=instance_id, limits=limits, listener=None, reserve=reserve
        )
        self._carver = carver
        self._shapes = shapes
        self._devices = opened.devices
        self._seen_clocks: list[RunningClock] = []
        self._latest_running_s = 0.0
        self._newest: dict[int, tuple[int, int]] = {}
        """seq -> (audit_seq, place) of the newest version of a verification."""
        self._opened_keys: dict[bytes, bytes] = {}
        self._doomed: set[int] = set()
        self._pictures: set[int] = set()
        self._audit: AuditSalvage | None = None
        self.kept: Counter[str] = Counter(meta=1, device_keys=len(opened.device_keys), secrets=len(opened.secrets))
        self.lost: Counter[str] = Counter()

    def _copy_all(self, progress: Progress) -> None:
        """In an order that foreign keys and authentication need."""
        self._newest = self._find_verifications()
        steps = {
            "audit": self._copy_audit,
            "verifications": self._copy_verifications,
            "meta": self._copy_meta,
            "users": self._copy_users,
            "payloads": self._copy_payloads,
            "erasures": self._copy_erasures,
            "others": self._copy_others,
            "sequences": self._copy_sequences,
        }
        for name, step in steps.items():
            step()
            progress(f"{name} copied")

    def _find_verifications(self) -> dict[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        shape = self._shapes["verifications"]
        for place, row in self._carver.rows(shape):
            if self._genuine("verifications", row):
                found[row["seq"]] = max(found.get(row["seq"], (-1, -1)), (row["audit_seq"], place))
                self._latest_running_s = max(self._latest_running_s, row["created_running_s"])
        return dict(sorted(found.items()))

    def _copy_audit(self) -> None:
        known_seq = max((audit_seq for audit_seq, _ in self._newest.values()), default=0)
        now_iso = to_iso(self._clock.wall())
        self._audit = AuditSalvage(self._carver, self._shapes, self._keys.audits, now_iso, known_seq)
        last: Row | None = None
        for batch in in_batches(self._audit.records(), _BATCH * 10):
            with self._database.transaction():
                for last in batch:
                    self._copy("audit", last)
        with self._database.transaction():
            for anchor in self._audit.anchors:
                self._copy("audit_anchors", anchor)
        self.lost["audit"] = sum(gap.missing for gap in self._audit.gaps)
        if last is not None:
            base_s = last["running_s"] - last["boottime_s"]
            self._seen_clocks.append(RunningClock(last["boot_id"], last["boottime_s"], base_s))

    def _copy_verifications(self) -> None:
        """Two versions of the truth may both hold a lease; the index comes back when leases are void."""
        with self._database.transaction():
            self._query("drop_lease_index")
        for batch in in_batches(self._newest, _BATCH * 10):
            with self._database.transaction():
                for seq in batch:
                    self._copy("verifications", row := self._stored(seq))
                    if self._is_erased_later(row):
                        self._doomed.add(seq)

    def _stored(self, seq: int) -> Row:
        return self._carver.row(self._newest[seq][1], self._shapes["verifications"])

    def _is_erased_later(self, row: Row) -> bool:
        """The row is older than the erasure of its user, or of itself, which the audit log tells of."""
        if row["erased"]:
            return False
        last = self._query("last_audit_of", id=row["id"]).fetchone()
        if last is not None and last["event"] == "erase" and last["seq"] > row["audit_seq"]:
            return True
        destroyed = self._query("destroyed_after", user_hmac=row["user_hmac"], seq=row["audit_seq"]).fetchone()
        return destroyed is not None

    def _copy_meta(self) -> None:
        keys = self._keys.rows.values()
        with self._database.transaction():
            for _, row in self._carver.rows(self._shapes["meta"]):
                if not isinstance(row["mac"], bytes) or not isinstance(row["value"], bytes):
                    continue
                if any(same(row["mac"], mac(key, "meta", row["name"], row["value"])) for key in keys):
                    self._copy("meta", row)
                    if row["name"] == "clock":
                        self._seen_clocks.append(RunningClock.from_json(row["value"]))

    def _copy_users(self) -> None:
        """Of users with anything left to decrypt: a key that a stale page brings back is not kept."""
        needed = {row["user_hmac"] for row in self._rows() if not row["erased"] and row["seq"] not in self._doomed}
        with self._database.transaction():
            for _, row in self._carver.rows(self._shapes["users"]):
                key = self._open_user(row) if row["user_hmac"] in needed else None
                if key is not None and self._copy("users", row):
                    self._opened_keys[row["user_hmac"]] = key
        self.lost["users"] = len(needed) - len(self._opened_keys)

    def _open_user(self, row: Row) -> bytes | None:
        user_hmac: bytes = row["user_hmac"]
        for device in self._devices:
            try:
                key = device.unwrap_user_key(user_hmac, row["wrapped_key"])
                unseal(key, row["user_id"], Place("users", user_hmac.hex(), "user id", user_hmac))
            except (StorageError, TypeError, ValueError):
                continue  # another key's, or damaged: then it counts as lost
            return key
        return None

    def _copy_payloads(self) -> None:
        shape = self._shapes["payloads"]
        places: dict[int, list[int]] = defaultdict(list)
        for place in self._carver.places(shape):
            places[self._carver.rowid(place)].append(place)
        wanted = [row["seq"] for row in self._rows() if row["image_bytes"] and row["seq"] not in self._doomed]
        for batch in in_batches(wanted, _BATCH):
            with self._database.transaction():
                for seq in batch:
                    self._copy_picture(self._by_seq(seq), places.get(seq, ()))
        orphans = set(places) - set(self._newest)
        self.lost["payloads"] = len(wanted) - len(self._pictures) + len(orphans)

    def _copy_picture(self, row: sqlite3.Row, places: Iterable[int]) -> None:
        for place in places:
            try:
                payload = self._carver.row(place, self._shapes["payloads"])
                size = self._check_picture(row, payload)
            except (PageLost, StorageError, TypeError, ValueError, KeyError):
                continue  # the verification will say that it lost its capture
            if self._copy("payloads", {**payload, "bytes": size}):
                self._pictures.add(row["seq"])
                return

    def _check_picture(self, row: sqlite3.Row, payload: Row) -> int:
        """Its size. Raises KeyError without the user's key, StorageError when it does not authenticate."""
        user_hmac, row_id = row["user_hmac"], row["id"]
        key = unseal(self._opened_keys[user_hmac], payload["row_key"], Place("payloads", row_id, "row key", user_hmac))
        picture = unseal(key, payload["picture"], Place("payloads", row_id, "picture", user_hmac))
        if hashlib.sha256(picture).hexdigest() != row["image_sha256"]:
            raise ValueError("another picture")
        return len(picture)

    def _copy_erasures(self) -> None:
        """Only those that the audit log tells of: nothing else authenticates them."""
        with self._database.transaction():
            for _, row in self._carver.rows(self._shapes["erasures"]):
                if not isinstance(row["audit_seq"], int):
                    continue
                known = self._query("destruction", seq=row["audit_seq"]).fetchone()
                if known is not None and known["user_hmac"] == row["user_hmac"]:
                    self._copy("erasures", row)

    def _copy_others(self) -> None:
        """Tables whose rows carry a mac of their own and nothing besides."""
        for table, shape in self._shapes.items():
            if {"mac", "mac_generation"} <= set(shape.columns) and table not in _SPECIAL:
                rows = (row for _, row in self._carver.rows(shape) if self._genuine(table, row))
                for batch in in_batches(rows, _BATCH * 10):
                    with self._database.transaction():
                        for row in batch:
                            self._copy(table, row)

    def _copy_sequences(self) -> None:
        """Numbers that were given out are not given out again."""
        claimed: Counter[str] = Counter()
        for _, row in self._carver.rows(SEQUENCES):
            if self._counts(row["name"]) and isinstance(row["seq"], int):
                claimed[row["name"]] = max(claimed[row["name"]], row["seq"])
        with self._database.transaction():
            for table, seq in claimed.items():
                known = self._database.execute(f"SELECT ifnull(max(rowid), 0) AS seq FROM {table}").fetchone()["seq"]  # noqa: S608  # a name of our schema
                if known < seq <= known + _MOST_AHEAD:
                    self._query("forget_sequence", name=table)
                    self._query("set_sequence", name=table, seq=seq)

    # -- parts

    def _counts(self, table: Any) -> bool:
        return table in self._shapes and self._shapes[table].rowid is not None

    def _genuine(self, table: str, row: Row) -> bool:
        """Whether the mac of a row of unknown origin fits it."""
        key = self._keys.rows.get(row["mac_generation"]) if isinstance(row["mac_generation"], int) else None
        return key is not None and isinstance(row["mac"], bytes) and same(row["mac"], row_mac(key, table, row))

    def _copy(self, table: str, row: Mapping[str, Any]) -> bool:
        """False when the row is there already."""
        columns = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        sql = f"INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608  # names of our schema
        copied = self._database.execute(sql, **row).rowcount == 1
        self.kept[table] += copied
        return copied

    def _rows(self) -> Iterator[sqlite3.Row]:
        return iter(self._query("all_verifications"))

    def _by_seq(self, seq: int) -> sqlite3.Row:
        row: sqlite3.Row = self._query("by_seq", seq=seq).fetchone()
        return row


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to ``size`` items: one transaction each, so that the write-ahead log stays small."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
