"""From schema version 1 to this one's: nothing is lost, and a step that does not come to its end never was."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store, migrations
from edge_agent.outbox.database import DATABASE_FILE, SCHEMA_VERSION, read_sql
from edge_agent.outbox.migrations import MIGRATIONS, Migration
from edge_agent.types import State
from tests.outbox.fakes import (
    ENVIRONMENT,
    FakeClock,
    capture,
    crash,
    finish,
    open_store,
    pending,
    picture,
    reopen,
    request,
    search,
)
from tests.outbox.v1 import left_by_v1, make_v1

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20


def dump(state_dir: Path) -> tuple[int, list[str]]:
    """Version and everything else in the file, through a connection of its own."""
    connection = sqlite3.connect(state_dir / DATABASE_FILE)
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0], list(connection.iterdump())
    finally:
        connection.close()


def schema(state_dir: Path) -> dict[str, str]:
    """Every object's own text, without comments and line breaks."""
    connection = sqlite3.connect(state_dir / DATABASE_FILE)
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: " ".join(re.sub(r"--[^\n]*", "", sql).split()) for name, sql in found}


# -- what comes out


def test_the_steps_lead_to_the_version_of_this_program() -> None:
    assert [step.version for step in MIGRATIONS] == list(range(2, SCHEMA_VERSION + 1))


def test_what_is_migrated_has_the_schema_of_a_fresh_file(tmp_path: Path, clock: FakeClock) -> None:
    left_by_v1(tmp_path / "old")
    assert "state_counts" not in schema(tmp_path / "old")
    for name in ("old", "new"):
        open_store(tmp_path / name, clock).close()
    assert schema(tmp_path / "old") == schema(tmp_path / "new")
    assert dump(tmp_path / "old")[0] == SCHEMA_VERSION


def test_what_version_1_wrote_is_all_there_and_goes_on(state_dir: Path, clock: FakeClock) -> None:
    left_by_v1(state_dir)
    clock.advance(60)
    with open_store(state_dir, clock) as store:
        assert store.counts() == counted(store)
        assert store.recover().leases_voided == 1
        report, audit = store.verify(), store.verify_audit()
        assert (report.ok, report.verifications, report.payloads, audit.ok) == (True, 7, 3, True)
        bob, frank = store.list(state=State.PENDING)[::-1]
        assert (bob.user_id, frank.user_id) == ("bob", "frank")
        assert [store.payload(r.id) for r in (bob, frank)] == [picture("2", 64), picture("5", 64)]
        parked = next(r for r in store.list(state=State.FAILED) if r.parked)
        assert (parked.user_id, parked.error_detail, parked.error_status) == ("carol", "no such user", 404)
        assert store.create(request("gina", idempotency_key="known"))[1] is True
        store.reopen(parked.id, actor="root")
        for record in (bob, frank, parked):
            leased = store.lease_one(record.id, lease_s=60)
            assert leased
            assert finish(store, leased).state is State.VERIFIED
        assert store.verify().ok


def test_every_step_is_in_the_audit_log(state_dir: Path, clock: FakeClock) -> None:
    left_by_v1(state_dir)
    with open_store(state_dir, clock) as store:
        rows = store._database.execute("SELECT event, detail FROM audit ORDER BY seq DESC LIMIT 2").fetchall()
        steps = [("migrated", f'{{"from": {step.version - 1}, "to": {step.version}}}') for step in MIGRATIONS]
        assert [tuple(row) for row in reversed(rows)] == steps
        assert store.verify_audit().ok
        seq = store.audit_head()
    with open_store(state_dir, clock) as store:
        assert store.audit_head() == seq  # once only


def test_many_rows_are_migrated_too(state_dir: Path, clock: FakeClock) -> None:
    ids = make_v1(state_dir, 300)
    assert dump(state_dir)[0] == 1
    with open_store(state_dir, clock) as store:
        store.recover()
        assert store.counts()[State.PENDING] == store.queue().depth == len(ids)
        assert store.verify().ok
        assert store.payload(ids[7]) == picture("7", 1000)


@pytest.mark.parametrize(
    ("options", "code"), [({"key": b"x" * 31 + b"y"}, "key_mismatch"), ({"machine": "other"}, "state_moved")]
)
def test_a_store_that_is_not_ours_to_open_is_not_migrated(
    state_dir: Path, clock: FakeClock, options: dict[str, Any], code: str
) -> None:
    before = dump(left_by_v1(state_dir))
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock, **options)
    assert caught.value.code == code
    assert dump(state_dir) == before


# -- the counts that version 2 keeps


def counted(store: Store) -> dict[State, int]:
    rows = store._database.execute("SELECT state, count(*) AS n FROM verifications GROUP BY state").fetchall()
    found = {State(row["state"]): row["n"] for row in rows}
    return {state: found.get(state, 0) for state in State}


def test_the_counts_follow_every_change(store: Store) -> None:
    search(store, "a")
    capture(store, "b")
    pending(store, "c")
    for operation in (
        lambda: store.cancel(search(store, "d").id),
        lambda: store.reject(search(store, "e").id, ["no_face"]),
        lambda: finish(store, store.lease_next(ENVIRONMENT, lease_s=60) or pytest.fail("nothing to lease")),
        lambda: store.delete_user("c"),
        lambda: store.delete_user("a"),
    ):
        operation()
        assert store.counts() == counted(store)
        assert store.queue().depth == sum(store.counts()[s] for s in (State.CAPTURED, State.MATCHING, State.PENDING))
    assert store.counts()[State.DELETED] == 2


def test_a_row_that_goes_is_not_counted_any_more(store: Store) -> None:
    record = store.cancel(search(store).id)
    store._database.execute("DELETE FROM verifications WHERE id = :id", id=record.id)
    assert store.counts()[State.CANCELLED] == 0


def test_derived_tables_that_are_wrong_are_right_after_a_start(store: Store, state_dir: Path, clock: FakeClock) -> None:
    pending(store, "a")
    before = (store.counts(), store.queue())
    store._database.execute("UPDATE state_counts SET number = 7")
    store._database.execute("UPDATE payload_totals SET items = 9, bytes = 9")
    assert (store.counts(), store.queue()) != before
    again = reopen(store, state_dir, clock)
    assert (again.counts(), again.queue()) == before
    crash(again)


# -- what fails


def with_steps(monkeypatch: pytest.MonkeyPatch, scripts: dict[int, str], **options: float) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", tuple(Migration(n, "a test", **options) for n in scripts))
    monkeypatch.setattr(migrations, "read_sql", lambda name: scripts[int(name.split("_")[1].removesuffix(".sql"))])


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("CREATE TABLE extra (one INTEGER) STRICT;\nSELECT * FROM nowhere;\n", "no such table: nowhere"),
        ("DELETE FROM upload_marks;\nDELETE FROM idempotency;\n", "it would lose rows of idempotency, upload_marks"),
        ("DROP TABLE upload_marks;\n", "it would lose rows of upload_marks"),
        ("PRAGMA defer_foreign_keys = ON;\nUPDATE device_keys SET generation = 9;\n", "rows that refer to nothing"),
        ("SELECT RAISE(ABORT, 'no');\n", "RAISE"),
    ],
)
def test_a_step_that_fails_leaves_everything_as_it_was(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    before = dump(left_by_v1(state_dir))
    with monkeypatch.context() as patched:
        with_steps(patched, {2: script})
        with pytest.raises(StorageError, match=why) as caught:
            open_store(state_dir, clock)
    assert caught.value.code == "migration_failed"
    assert "to schema version 2 (a test)" in caught.value.message
    assert "still reads it" in str(caught.value.hint)
    assert dump(state_dir) == before
    with open_store(state_dir, clock) as store:  # and the right step works on what is left
        assert store.verify().ok


def test_a_later_step_that_fails_keeps_what_the_earlier_one_did(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by_v1(state_dir)
    with monkeypatch.context() as patched:
        with_steps(patched, {2: read_sql("migration_2.sql"), 3: "SELECT * FROM nowhere;\n"})
        with pytest.raises(StorageError, match="to schema version 3"):
            open_store(state_dir, clock)
    assert dump(state_dir)[0] == 2
    with open_store(state_dir, clock) as store:
        assert store.verify().ok


@pytest.mark.parametrize(("free_beside", "fits"), [(3 * MB, True), (0, False)])
def test_a_step_makes_sure_of_its_room_first_and_uses_the_reserve_for_it(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, free_beside: int, fits: bool
) -> None:
    make_v1(state_dir, 20, picture_bytes=100_000)
    before = dump(state_dir)
    reserve = state_dir / "reserve"
    reserve.write_bytes(bytes(4 * MB))
    with_steps(monkeypatch, {2: read_sql("migration_2.sql")}, rewrites=1.0)  # some 5 MB in the log and in the file

    def free(_: Path) -> int:
        return free_beside + 4 * MB - reserve.stat().st_size

    if fits:
        open_store(state_dir, clock, free_bytes=free, reserve_bytes=4 * MB).close()
        assert (dump(state_dir)[0], reserve.stat().st_size) == (2, 0)
        return
    with pytest.raises(StorageError, match=r"4194304 bytes are free, \d{7} are needed") as caught:
        open_store(state_dir, clock, free_bytes=free, reserve_bytes=4 * MB)
    assert (caught.value.code, caught.value.retryable) == ("migration_failed", True)
    assert dump(state_dir) == before


def test_a_corrupt_file_stays_corrupt_so_that_it_is_salvaged(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(*_: object) -> None:
        raise StorageError("cannot read: malformed", code="storage_corrupt")

    left_by_v1(state_dir)
    monkeypatch.setattr(migrations, "_apply", corrupt)
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock)
    assert caught.value.code == "storage_corrupt"


# -- what is cut off


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from edge_agent.outbox import migrations
from edge_agent.outbox.database import Database
from tests.outbox.fakes import FakeClock, open_store

left = 0

def die(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counting(method):
    def counted(*arguments, **values):
        die()
        return method(*arguments, **values)
    return counted

apply = migrations._apply
def watched(step, database, chain, now):
    if by == "statement":
        database.execute = counting(database.execute)
    else:
        database._connection.set_progress_handler(die, 20)
    apply(step, database, chain, now)
    die()  # before the commit
    database._connection.set_progress_handler(None, 0)
    vars(database).pop("execute", None)
migrations._apply = watched

source, by, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(10_000):
    copy = source.with_name(f"killed-{by}-{number}")
    shutil.copytree(source, copy)
    pid = os.fork()
    if not pid:
        left = number * stride
        open_store(copy, FakeClock())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    print(copy, flush=True)
"""


@pytest.mark.parametrize(("by", "stride", "least"), [("statement", 1, 15), ("instruction", 5, 15)])
def test_a_step_that_is_killed_anywhere_before_its_commit_never_was(
    tmp_path: Path, clock: FakeClock, by: str, stride: int, least: int
) -> None:
    before = dump(left_by_v1(tmp_path / "state"))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "state"), by, str(stride)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    killed = [Path(line) for line in found.stdout.splitlines()]
    assert len(killed) >= least
    versions = set()
    for copy in killed:
        version, content = dump(copy)
        versions.add(version)
        assert (version, content) == before or 1 < version < SCHEMA_VERSION, "an earlier step is done, or nothing is"
        with open_store(copy, clock) as store:
            store.recover()
            assert (store.verify().ok, store.verify_audit().ok) == (True, True)
            assert store.counts() == counted(store)
    assert versions == set(range(1, SCHEMA_VERSION))


def test_a_step_killed_right_after_its_commit_is_done(tmp_path: Path, clock: FakeClock) -> None:
    left_by_v1(tmp_path / "state")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edge_agent.outbox import store\n"
        "from tests.outbox.fakes import FakeClock, open_store\n"
        "store._migrate, store.migrate = store.migrate, lambda *a: (store._migrate(*a), os.kill(os.getpid(), 9))\n"
        "open_store(Path(sys.argv[1]), FakeClock())\n"
    )
    found = subprocess.run([sys.executable, "-c", script, str(tmp_path / "state")], cwd=ROOT, check=False)
    assert found.returncode == -9
    assert dump(tmp_path / "state")[0] == SCHEMA_VERSION
    with open_store(tmp_path / "state", clock) as store:
        store.recover()
        assert (store.verify().ok, store.verify_audit().ok) == (True, True)
