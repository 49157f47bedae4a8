"""What can be said of an outbox without its key."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.database import DATABASE_FILE
from edge_agent.outbox.records import AuditHead
from edge_agent.outbox.structure import Structure
from tests.outbox.fakes import FakeClock, capture, finish, lease, pending, search
from tests.outbox.test_custody import back_off, park


@pytest.fixture
def filled(store: Store) -> Store:
    park(store, "alice")
    back_off(store, "bob")
    search(store, "carol")
    pending(store, "dave")
    finish(store, lease(store))
    return store


def change(state_dir: Path, sql: str) -> None:
    """As somebody who can write the file but has no key: also what a failing disk may do."""
    with closing(sqlite3.connect(state_dir / DATABASE_FILE, isolation_level=None)) as connection:
        triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(sql).rowcount > 0


def test_a_sound_outbox_has_no_problems_also_while_a_daemon_writes_to_it(
    filled: Store, state_dir: Path, clock: FakeClock
) -> None:
    with Structure(state_dir, clock) as structure:
        capture(filled, "erin")
        report = structure.check()
    assert report.problems == ()
    assert (report.pictures, sum(report.states.values()), report.states["verified"]) == (3, 5, 1)
    assert report.audit_records == filled.verify_audit().records


def test_it_reads_what_the_store_reads_but_what_is_sealed(filled: Store, state_dir: Path, clock: FakeClock) -> None:
    with Structure(state_dir, clock) as structure:
        listed, kept = structure.waiting_list(), filled.waiting_list()
        parked = structure.waiting_list(parked=True)
        assert structure.queue() == filled.queue()
    assert [(i.id, i.state, i.error_code, i.error_status, i.age_s) for i in listed.items] == [
        (i.id, i.state, i.error_code, i.error_status, i.age_s) for i in kept.items
    ]
    assert listed.running_s == pytest.approx(kept.running_s)
    assert {(i.user_id, i.error_detail) for i in listed.items} == {(None, None)}
    assert [i.parked for i in parked.items] == [True]


def test_it_describes_a_verification_with_its_history(filled: Store, state_dir: Path, clock: FakeClock) -> None:
    id_ = filled.waiting_list(parked=True).items[0].id
    with Structure(state_dir, clock) as structure:
        assert structure.describe(id_).history == filled.describe(id_).history
        with pytest.raises(InputError, match="none with this id"):
            structure.describe("nothing")


DAMAGES = {
    "a picture is gone": ("DELETE FROM payloads WHERE seq = (SELECT min(seq) FROM payloads)", "its picture is missing"),
    "a picture has another size": ("UPDATE payloads SET bytes = bytes - 1", "has another size"),
    "an ended one has a picture": (
        "UPDATE verifications SET state = 'verified' WHERE state = 'pending'",
        "does not go with the picture",
    ),
    "a picture is left over": ("UPDATE verifications SET image_bytes = 0, parked = 0", "no verification speaks of it"),
    "a state was set": (
        "UPDATE verifications SET state = 'not_verified' WHERE state = 'verified'",
        "not the one that the audit log tells of",
    ),
    "a row was put back": ("UPDATE verifications SET audit_seq = audit_seq - 1", "not the one that the audit log"),
    "an audit record is gone": ("DELETE FROM audit WHERE seq = 4", "record 4 is missing, 5 follows 3"),
    "the totals are wrong": ("UPDATE payload_totals SET items = 7", "the totals say otherwise"),
    "a user is gone that a key generation names": ("DELETE FROM device_keys", "refer to rows that are not there"),
}


@pytest.mark.parametrize(("sql", "problem"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_does_not_go_together_is_named(
    filled: Store, state_dir: Path, clock: FakeClock, sql: str, problem: str
) -> None:
    change(state_dir, sql)
    with Structure(state_dir, clock) as structure:
        assert problem in " | ".join(said for _, said in structure.check().problems)


def test_a_torn_page_is_found(filled: Store, state_dir: Path, clock: FakeClock) -> None:
    filled._database.truncate_log()
    path = state_dir / DATABASE_FILE
    data = bytearray(path.read_bytes())
    root = filled._database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit'").fetchone()[0]
    data[(root - 1) * 4096 + 8 : root * 4096] = b"\x5a" * (4096 - 8)
    filled.close()
    path.write_bytes(data)
    with Structure(state_dir, clock) as structure:
        assert [where for where, _ in structure.check().problems] == ["database"]


def test_garbage_is_reported_as_damage(state_dir: Path, clock: FakeClock) -> None:
    state_dir.mkdir()
    (state_dir / DATABASE_FILE).write_bytes(b"garbage" * 1000)
    with Structure(state_dir, clock) as structure:
        assert "file is not a database" in dict(structure.check().problems)["database"]
        with pytest.raises(StorageError) as refused:
            structure.waiting_list()
    assert refused.value.code == "storage_corrupt"


def test_a_schema_of_the_future_is_named_and_nothing_else_is_claimed(
    filled: Store, state_dir: Path, clock: FakeClock
) -> None:
    filled._database.execute("PRAGMA user_version = 99")
    with Structure(state_dir, clock) as structure:
        report = structure.check()
    assert report.schema_version == 99
    assert [where for where, _ in report.problems] == ["schema"]


def test_where_there_is_no_outbox_none_is_made(state_dir: Path, clock: FakeClock) -> None:
    with pytest.raises(StorageError) as refused:
        Structure(state_dir, clock)
    assert refused.value.code == "storage_missing"
    assert not state_dir.exists()


def test_nothing_is_changed_by_looking_not_even_after_a_power_cut(
    filled: Store, state_dir: Path, tmp_path: Path, clock: FakeClock
) -> None:
    left = tmp_path / "left by a power cut"
    shutil.copytree(state_dir, left)
    before = {name: (left / name).read_bytes() for name in (DATABASE_FILE, f"{DATABASE_FILE}-wal")}
    assert before[f"{DATABASE_FILE}-wal"]
    with Structure(left, clock) as structure:
        assert structure.check().problems == ()
        assert structure.check_audit().head == filled.audit_head()
        assert len(structure.waiting_list().items) == 2
    assert {name: (left / name).read_bytes() for name in before} == before


def test_the_head_that_was_noted_is_looked_for(filled: Store, state_dir: Path, clock: FakeClock) -> None:
    head = filled.audit_head()
    assert head is not None
    cases = {
        head: (True, None),
        AuditHead(head.seq - 1, head.mac): (False, head.seq - 1),
        AuditHead(head.seq + 2, head.mac): (False, head.seq + 1),
    }
    with Structure(state_dir, clock) as structure:
        assert {h: (r.ok, r.first_bad) for h in cases if (r := structure.check_audit(h))} == cases
        assert structure.check_audit().head == head


@pytest.mark.parametrize("text", ["", "7", "7:", f"0:{'a' * 64}", f"7:{'a' * 63}", f"7:{'g' * 64}", f"-7:{'a' * 64}"])
def test_a_malformed_head_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="head of the audit log"):
        AuditHead.parse(text)


def test_a_head_is_read_as_it_is_printed() -> None:
    head = AuditHead(7, "a" * 64)
    assert AuditHead.parse(f" {head}\n") == head
