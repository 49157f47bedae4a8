"""What can be said of an outbox without its key: whether the file is sound, not whether it is true.

A read-only connection, beside a daemon that runs or hangs, on files of another machine. Nothing is authenticated:
whoever can write the file can make all of this look right. ``Store.verify`` and ``verify_audit`` authenticate.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox.ages import Moment, RunningClock, age_s, from_iso
from edge_agent.outbox.clock import BootInstant, Clock, instant
from edge_agent.outbox.custody import Description, WaitingList, history_entry
from edge_agent.outbox.database import BUSY_TIMEOUT_S, DATABASE_FILE, SCHEMA_VERSION, load_statements
from edge_agent.outbox.records import AuditHead, AuditReport, Environment, QueueStats, VerificationRecord
from edge_agent.outbox.rows import Row, boot_instant, lease_of, verdict_of
from edge_agent.types import State

STATEMENTS = load_statements("structure.sql")
_MAX_SEQ = (1 << 63) - 1
_SHOWN = 20
"""Problems of one kind that are named; more would say no more."""


@dataclass(frozen=True, slots=True)
class StructureReport:
    """Result of ``Structure.check``."""

    schema_version: int
    states: Mapping[str, int] = field(default_factory=dict)
    pictures: int = 0
    audit_records: int = 0
    problems: tuple[tuple[str, str], ...] = ()
    """Where (``database``, ``audit``, a verification id), and what is wrong there."""


class Structure:
    """The outbox in ``state_dir``, read-only. A context manager.

    Raises StorageError ``storage_missing`` where there is none, ``storage_failed`` where it cannot be read, and
    ``storage_corrupt`` when the file is none of SQLite's.
    """

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._path = state_dir / DATABASE_FILE
        self._clock = clock
        require_outbox(state_dir)
        with self._translated():
            uri = f"file:{quote(str(self._path))}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._connection.row_factory = sqlite3.Row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # -- checks

    def check(self) -> StructureReport:
        """The file's integrity, and whether states, pictures and audit records go together.

        A damaged file is a report too: whatever could not be read is counted as none.
        """
        try:
            return self._check()
        except StorageError as exc:
            if exc.code != "storage_corrupt":
                raise
            return StructureReport(0, problems=(("database", exc.message),))

    def _check(self) -> StructureReport:
        with self._snapshot():
            version = self._pragma("user_version")
            problems = tuple(self._file_problems())
            if not 0 < version <= SCHEMA_VERSION:
                problems += (("schema", f"its version is {version}, this program knows 1 to {SCHEMA_VERSION}"),)
            if problems:  # nothing can be counted on such a file
                return StructureReport(version, problems=problems)
            anchor = self._query("audit_anchor").fetchone()["seq"]
            return StructureReport(
                schema_version=version,
                states={row["state"]: row["number"] for row in self._query("count_states")},
                pictures=self._query("count_pictures").fetchone()["items"],
                audit_records=self._query("audit_size").fetchone()["records"],
                problems=tuple(self._row_problems(anchor)),
            )

    def check_audit(self, expect_head: AuditHead | None = None) -> AuditReport:
        """Whether the numbers of the audit records have a gap, and whether the head that was noted is among them."""
        with self._snapshot():
            size = self._query("audit_size").fetchone()
            anchor = self._query("audit_anchor").fetchone()["seq"]
            last = self._query("audit_record", seq=size["last"]).fetchone()
            head = AuditHead(last["seq"], last["mac"].hex()) if last else None
            bad, why = self._audit_problem(size["last"] or anchor, expect_head)
            return AuditReport(bad is None, size["records"], head, bad, why)

    def _audit_problem(self, last: int, expected: AuditHead | None) -> tuple[int | None, str | None]:
        gap = self._query("audit_gap").fetchone()
        if gap is not None:
            first_bad = gap["before"] + 1
            return first_bad, f"record {first_bad} is missing, {gap['seq']} follows {gap['before']}"
        if expected is not None and expected.seq > last:
            return last + 1, f"records {last + 1} to {expected.seq} are cut off"
        noted = self._query("audit_record", seq=expected.seq).fetchone() if expected is not None else None
        if expected is not None and noted is not None and noted["mac"].hex() != expected.mac:
            return expected.seq, f"record {expected.seq} is not the one that was noted as head"
        return None, None

    def _file_problems(self) -> Iterator[tuple[str, str]]:
        found = [row[0] for row in self._connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
        if found != ["ok"]:
            yield "database", "; ".join(found)
        orphans = self._connection.execute("PRAGMA foreign_key_check").fetchall()
        if orphans:
            yield "references", f"{len(orphans)} rows refer to rows that are not there"

    def _row_problems(self, anchor: int) -> Iterator[tuple[str, str]]:
        counted, noted = self._query("count_pictures").fetchone(), self._query("totals").fetchone()
        if noted is None or tuple(counted) != tuple(noted):
            yield "pictures", f"{counted['items']} are stored with {counted['bytes']} bytes, the totals say otherwise"
        for row in self._query("states_without_sense", limit=_SHOWN):
            yield row["id"], f"a verification that is {row['state']} does not go with the picture that it has or lacks"
        for row in self._query("pictures_missing", limit=_SHOWN):
            yield row["id"], "its picture is missing or has another size"
        for row in self._query("pictures_left_over", limit=_SHOWN):
            yield f"picture:{row['seq']}", "no verification speaks of it"
        for row in self._query("states_not_audited", anchor=anchor, limit=_SHOWN):
            yield row["id"], "its state is not the one that the audit log tells of"
        first_bad, why = self._audit_problem(anchor, None)
        if first_bad is not None and why is not None:
            yield "audit", why

    # -- reading

    def waiting_list(self, *, limit: int = 100, before: int | None = None, parked: bool | None = None) -> WaitingList:
        """As ``Store.waiting_list``; what is sealed is left out, and nothing is found to be unreadable."""
        values = {"before": _MAX_SEQ if before is None else before, "limit": limit + 1}
        with self._snapshot():
            now = self._now()
            only = None if parked is None else int(parked)
            rows = self._query("with_picture", only_parked=only, **values).fetchall()
            return WaitingList(
                items=tuple(_record(row, now) for row in rows[:limit]),
                running_s=now.running_s,
                next_before=rows[limit - 1]["seq"] if len(rows) > limit else None,
            )

    def describe(self, verification_id: str) -> Description:
        """As ``Store.describe``. Raises InputError ``not_found``."""
        with self._snapshot():
            row = self._query("by_id", id=verification_id).fetchone()
            if row is None:
                raise InputError("cannot find the verification: there is none with this id", code="not_found")
            now = self._now()
            history = self._query("audit_of", id=verification_id).fetchall()
            return Description(_record(row, now), now.running_s, tuple(history_entry(entry) for entry in history))

    def states(self) -> dict[str, int]:
        """How many verifications are in each state that there are some in."""
        with self._snapshot():
            return {row["state"]: row["number"] for row in self._query("count_states")}

    def queue(self) -> QueueStats:
        """As ``Store.queue``."""
        with self._snapshot():
            counts, pictures = self._query("queue").fetchone(), self._query("count_pictures").fetchone()
            oldest = self._query("oldest_with_picture").fetchone()
            return QueueStats(
                depth=counts["depth"],
                parked=counts["parked"],
                leased=counts["leased"],
                payload_items=pictures["items"],
                payload_bytes=pictures["bytes"],
                oldest_age_s=_age_s(oldest, self._now()) if oldest else None,
            )

    # -- parts

    def _query(self, name: str, **values: Any) -> sqlite3.Cursor:
        return self._connection.execute(STATEMENTS[name], values)

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _now(self) -> Moment:
        """The running clock as it was saved: up to a minute behind a daemon that runs."""
        row = self._query("saved_clock").fetchone()
        seen = [RunningClock.from_json(row["value"])] if row else []
        return RunningClock.resume(seen, instant(self._clock)).moment(self._clock)

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All statements of the block see one state of the file."""
        with self._translated():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            primary = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            corrupt = primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
            raise StorageError(
                f"cannot read {self._path}: {exc}",
                code="storage_corrupt" if corrupt else "storage_failed",
                hint="keep a copy of the state directory" if corrupt else "call as root or as the daemon's own user",
            ) from exc


def require_outbox(state_dir: Path) -> None:
    """Raises StorageError ``storage_missing`` where there is none: a command never makes one."""
    try:
        size = (state_dir / DATABASE_FILE).stat().st_size
    except FileNotFoundError:
        size = 0
    except OSError as exc:
        raise StorageError(
            f"cannot look at {state_dir}: {exc.strerror}", hint="call as root or as the daemon's own user"
        ) from exc
    if size == 0:
        raise StorageError(
            f"cannot find an outbox in {state_dir}: there is no {DATABASE_FILE}",
            code="storage_missing",
            hint="is this the state_dir of the right configuration? It is made when the agent first runs",
        )


def _age_s(row: Row, now: Moment) -> float:
    return age_s(
        now,
        running_s=row["created_running_s"],
        boot_id=row["created_boot_id"],
    )


def _record(row: Row, now: Moment) -> VerificationRecord:
    """What of a row is readable without the key."""
    merchant_id, _, base_url = row["environment"].partition(" ")
    return VerificationRecord(
        id=row["id"],
        seq=row["seq"],
        state=State(row["state"]),
        user_id=None,
        user_hmac=row["user_hmac"].hex(),
        caller=row["caller"],
        environment=Environment(base_url, merchant_id),
        created_at=from_iso(row["created_at"]),
        clock_synchronised=bool(row["created_synchronised"]),
        created=BootInstant(row["created_boot_id"], row["created_boottime_s"]),
        created_running_s=row["created_running_s"],
        age_s=_age_s(row, now),
        search_timeout_s=row["search_timeout_s"],
        verdict_timeout_s=row["verdict_timeout_s"],
        updated_at=from_iso(row["updated_at"]),
        audit_seq=row["audit_seq"],
        captured_at=from_iso(row["captured_at"]) if row["captured_at"] else None,
        deadline=boot_instant(row, "deadline"),
        image_sha256=row["image_sha256"],
        image_bytes=row["image_bytes"],
        reasons=tuple(row["reasons"].split()),
        error_code=row["error_code"],
        error_status=row["error_status"],
        parked=bool(row["parked"]),
        verdict=verdict_of(row),
        verdict_at=from_iso(row["verdict_at"]) if row["verdict_at"] else None,
        late=bool(row["late"]),
        contradicted=bool(row["contradicted"]),
        erased=bool(row["erased"]),
        attempts=row["attempts"],
        transients=row["transients"],
        conflicts=row["conflicts"],
        next_attempt_running_s=row["next_attempt_running_s"],
        lease=lease_of(row),
    )
