"""The outbox: every verification, durable before anyone is told that it was accepted.

One ``Store`` per state directory (flock), used from the one thread that opened it. Every operation is one
transaction that holds its audit records too; when a method returns, its effect is on the disk. See
docs/durability.md for what is promised, and schema.sql and transitions.sql for how.

Errors: StorageError (``state_locked``, ``key_mismatch``, ``state_moved``, ``migration_failed``, ``storage_full``,
``storage_corrupt``, ``tampered``, ``storage_failed``), InputError (``not_found``, ``idempotency_*``), StateConflict, LeaseLost.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from edge_agent.errors import StorageError
from edge_agent.outbox import keyfile
from edge_agent.outbox.ages import RunningClock, to_iso
from edge_agent.outbox.aside import check_whole, settle
from edge_agent.outbox.audit import AuditChain, Entry
from edge_agent.outbox.clock import BootInstant, Clock, instant
from edge_agent.outbox.core import QUERIES, Listener
from edge_agent.outbox.crypto import StoreKeys, mac, parse_key, same, tampered
from edge_agent.outbox.database import Database, StateLock, free_bytes, prepare_directory
from edge_agent.outbox.migrations import migrate
from edge_agent.outbox.records import Limits, QueueStats, VerificationRecord
from edge_agent.outbox.rows import Row
from edge_agent.outbox.space import Reserve, Space
from edge_agent.outbox.sweep import Sweeping
from edge_agent.outbox.vault import check_machine, initialise, machine_identity, unlock
from edge_agent.types import State

_MAX_SEQ = (1 << 63) - 1


class Store(Sweeping):
    """The whole outbox. ``open`` it, ``recover`` once, ``tick`` every 60 s, ``close`` it."""

    _closing: ExitStack

    @classmethod
    def open(
        cls,
        state_dir: Path,
        key: bytes,
        *,
        clock: Clock,
        instance_id: str | None = None,
        limits: Limits | None = None,
        listener: Listener | None = None,
        machine: str | None = None,
        adopt: bool = False,
        previous_key: bytes | None = None,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> Self:
        """Open or make the outbox in ``state_dir``.

        key: the device key, as ``parse_key`` takes it. listener: called on this thread with every changed record
        after its commit; it must not raise and must not call the store. machine: the machine's identity (default:
        this machine's). adopt: accept a state directory made on another machine. previous_key: the device key before
        ``key``, until a rotation from one to the other is done; ``rotation`` tells.

        Raises StorageError ``state_locked``, ``key_mismatch``, ``state_moved``, ``schema_unknown``,
        ``migration_failed``; what is stored is then unchanged. A database that is gone while its key file or a
        salvage's files are there is ``storage_corrupt``: ``salvage``.
        """
        device_key = parse_key(key)
        old_key = None if previous_key is None else parse_key(previous_key)
        instance_id = instance_id or uuid.uuid4().hex
        machine = machine_identity() if machine is None else machine
        with ExitStack() as stack:
            prepare_directory(state_dir)
            stack.callback(StateLock(state_dir).release)
            reserve = Reserve(state_dir, free_bytes)
            check_whole(state_dir)
            database = reserve.insist(lambda: Database(state_dir))
            stack.callback(database.close)
            now_iso = to_iso(clock.wall())
            database.create_schema(lambda: initialise(database, QUERIES, device_key, now_iso))
            with database.transaction():
                keys = unlock(database, QUERIES, device_key, old_key)
                moved = check_machine(database, QUERIES, keys, machine, adopt=adopt)
                chain = AuditChain(database, QUERIES, keys.audits, instance_id)
                running = _resume_clock(database, keys, chain.last(), instant(clock))
                if moved:
                    chain.append(Entry("adopted"), running.moment(clock))
            migrate(database, chain, running.moment(clock), reserve)
            _tidy(state_dir, database)
            store = cls(
                database,
                keys,
                clock,
                running,
                instance_id=instance_id,
                limits=limits or Limits(),
                listener=listener,
                reserve=reserve,
            )
            reserve.insist(store._opened)
            reserve.adapt(store.limits.reserve_bytes)
            store._closing = stack.pop_all()
            return store

    def _opened(self) -> None:
        with self._change() as now:
            self._save_clock(now)

    def close(self) -> None:
        """Persist the running time, close the file, let the next one in. Never raises for a failing disk."""
        with self._closing:
            try:
                with self._change() as now:
                    self._save_clock(now)
            except StorageError:
                pass  # only up to 60 s of running time are lost, and that is a lower bound anyway

    @property
    def broken(self) -> bool:
        """True after an error of the storage: the store refuses everything and must be closed and opened anew."""
        return self._database.broken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading

    def get(self, verification_id: str) -> VerificationRecord:
        """Raises InputError ``not_found``, StorageError ``tampered``."""
        with self._database.reading():
            return self._read(self._row(verification_id), self._now())

    def verdicts_of(self, user_id: str, *, limit: int = 20) -> list[VerificationRecord]:
        """What CypherFace said of this user, the newest verdict first; nothing of what was erased or is too old.

        For people: no other verification is decided by it.
        """
        limit = min(limit, self.limits.max_matches)
        with self._database.reading():
            now = self._now()
            rows = self._query("verdicts_of_user", user_hmac=self._keys.user_hmac(user_id), limit=limit).fetchall()
            young = [row for row in rows if self._age_s(row, now) < self.limits.match_ttl_s]
            return list(self._read_all(young, now))

    def list(
        self,
        *,
        state: State | None = None,
        caller: str | None = None,
        limit: int = 100,
        before_seq: int | None = None,
    ) -> list[VerificationRecord]:
        """The newest first; rows that do not authenticate are left out and named in ``tampered``."""
        name = {(False, False): "newest", (True, False): "newest_in_state", (False, True): "newest_of_caller"}.get(
            (state is not None, caller is not None), "newest_of_caller_in_state"
        )
        values: dict[str, Any] = {"before": _MAX_SEQ if before_seq is None else before_seq, "limit": limit}
        values |= {"state": state} if state is not None else {}
        values |= {"caller": caller} if caller is not None else {}
        with self._database.reading():
            now = self._now()
            return list(self._read_all(self._query(name, **values).fetchall(), now))

    def counts(self) -> dict[State, int]:
        """How many verifications are in each state."""
        with self._database.reading():
            found = {row["state"]: row["number"] for row in self._query("count_states")}
        return {state: found.get(state, 0) for state in State}

    def queue(self) -> QueueStats:
        """What waits, for status and metrics."""
        with self._database.reading():
            depth = self._query("queue").fetchone()["depth"]
            totals = self._query("totals").fetchone()
            oldest = self._query("oldest_with_picture").fetchone()
            return QueueStats(
                depth=depth,
                parked=totals["items"] - depth,
                leased=self._query("leased").fetchone()["number"],
                payload_items=totals["items"],
                payload_bytes=totals["bytes"],
                oldest_age_s=self._age_s(oldest, self._now()) if oldest else None,
            )

    def space(self) -> Space:
        """What is free on the disk and how much of the reserve is in place."""
        wanted = self.limits.reserve_bytes
        return Space(self._reserve.free_bytes(), self._reserve.held_bytes, wanted, self._reserve.problem)


def _tidy(state_dir: Path, database: Database) -> None:
    """Beside a database that opened: its key file is right, and no salvage is unfinished."""
    try:
        keyfile.save(state_dir, database)
        settle(state_dir)
    except StorageError as exc:
        if exc.code != "storage_full":
            raise
        # a full disk must not keep the queue from draining; the next start tries again


def _resume_clock(database: Database, keys: StoreKeys, last: Row | None, now: BootInstant) -> RunningClock:
    row = database.execute(QUERIES["meta"], name="clock").fetchone()
    if row is not None and not same(row["mac"], mac(keys.row, "meta", "clock", row["value"])):
        raise tampered("meta", "clock", "its mac is wrong")
    seen = [RunningClock.from_json(row["value"])] if row is not None else []
    if last is not None:
        seen.append(RunningClock(last["boot_id"], last["boottime_s"], last["running_s"] - last["boottime_s"]))
    return RunningClock.resume(seen, now)
