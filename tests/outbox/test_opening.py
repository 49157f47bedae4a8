"""Opening a state directory: whose it is, with which key, on which machine, and how it is configured."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_agent.errors import ConfigurationError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.crypto import generate_key, parse_key
from edge_agent.outbox.database import Database, database_exists
from tests.outbox.fakes import KEY, FakeClock, capture, open_store, picture, search


def test_everything_in_the_state_directory_is_private(store: Store, state_dir: Path) -> None:
    capture(store)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in state_dir.iterdir()} == {0o600}


def test_a_directory_that_others_may_read_is_closed_to_them(state_dir: Path, clock: FakeClock) -> None:
    state_dir.mkdir(mode=0o755)
    open_store(state_dir, clock).close()
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("pragma", "value"),
    [
        ("synchronous", 2),
        ("journal_mode", "wal"),
        ("secure_delete", 1),
        ("foreign_keys", 1),
        ("auto_vacuum", 2),
        ("temp_store", 2),
    ],
)
def test_sqlite_runs_as_durability_and_erasure_need_it(store: Store, pragma: str, value: object) -> None:
    assert store._database.execute(f"PRAGMA {pragma}").fetchone()[0] == value


def test_a_pragma_that_does_not_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.outbox.database._PRAGMAS", (("synchronous", "OFF", 2),))
    with pytest.raises(StorageError, match="synchronous = 0, 2 is needed"):
        Database(tmp_path)


def test_a_second_process_is_locked_out_and_told_who_has_it(store: Store, state_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from edge_agent.outbox import Store; from edge_agent.outbox.clock import SystemClock\n"
        "from edge_agent.errors import StorageError\n"
        "try: Store.open(Path(sys.argv[1]), bytes(range(32)), clock=SystemClock())\n"
        "except StorageError as exc: print(exc.code, exc.message)\n"
    )
    found = subprocess.run([sys.executable, "-c", script, state_dir], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("state_locked ")
    assert f"the process {store_pid(state_dir)} has it" in found.stdout


def store_pid(state_dir: Path) -> int:
    return int((state_dir / "lock").read_text())


def test_the_lock_is_free_after_close(state_dir: Path, clock: FakeClock) -> None:
    open_store(state_dir, clock).close()
    open_store(state_dir, clock).close()


def test_the_lock_is_free_after_a_failed_open(state_dir: Path, clock: FakeClock) -> None:
    open_store(state_dir, clock).close()
    with pytest.raises(StorageError):
        open_store(state_dir, clock, key=bytes(31) + b"x")
    open_store(state_dir, clock).close()


def test_another_key_is_a_mismatch_and_changes_nothing(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock) as store:
        record = capture(store)
    before = (state_dir / "outbox.db").read_bytes()
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock, key=bytes(31) + b"x")
    assert caught.value.code == "key_mismatch"
    assert (state_dir / "outbox.db").read_bytes() == before
    with open_store(state_dir, clock) as store:
        assert store.payload(record.id) == picture(record.id)


def test_a_file_of_a_newer_version_is_left_alone(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock) as store:
        store._database.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock)
    assert caught.value.code == "schema_unknown"


def test_a_file_that_is_no_database_is_called_corrupt(state_dir: Path, clock: FakeClock) -> None:
    state_dir.mkdir()
    (state_dir / "outbox.db").write_bytes(b"not a database, surely" * 500)
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock)
    assert caught.value.code == "storage_corrupt"


def test_a_state_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot prepare the state directory"):
        open_store(tmp_path / "file" / "state", clock)


def test_another_thread_is_refused(store: Store) -> None:
    caught: list[BaseException] = []

    def use() -> None:
        try:
            store.counts()
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "opened by another thread" in str(caught[0])


def test_it_can_be_told_whether_there_is_a_queue(state_dir: Path, clock: FakeClock) -> None:
    assert not database_exists(state_dir)
    open_store(state_dir, clock).close()
    assert database_exists(state_dir)


@pytest.mark.parametrize(
    "material",
    [
        KEY,
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\n",
        b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    ],
)
def test_the_device_key_is_read_raw_as_hex_and_as_base64(material: bytes) -> None:
    assert parse_key(material) == KEY


@pytest.mark.parametrize("material", [b"", b"short", bytes(32), bytes(31), KEY + b"x", b"z" * 64, b"*" * 44])
def test_anything_else_is_no_device_key(material: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_key(material)
    assert caught.value.code == "key_invalid"
    assert material.decode("latin1") not in str(caught.value) or not material


def test_a_generated_key_is_usable_and_never_the_same() -> None:
    assert len(parse_key(generate_key())) == 32
    assert generate_key() != generate_key()


def test_an_error_of_the_storage_ends_the_use_of_the_connection(store: Store) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    assert store._database._translate(error).code == "storage_failed"
    with pytest.raises(StorageError, match="after an error of the storage"):
        search(store)


def test_a_failing_disk_does_not_keep_the_store_from_closing(state_dir: Path, clock: FakeClock) -> None:
    store = open_store(state_dir, clock)
    store._database._broken = "disk I/O error"
    store.close()
    open_store(state_dir, clock).close()


@pytest.mark.parametrize(
    ("extended", "code"),
    [
        (sqlite3.SQLITE_FULL, "storage_full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "storage_full"),
        (sqlite3.SQLITE_CORRUPT, "storage_corrupt"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "storage_corrupt"),
        (sqlite3.SQLITE_NOTADB, "storage_corrupt"),
        (sqlite3.SQLITE_IOERR_WRITE, "storage_failed"),
        (sqlite3.SQLITE_READONLY, "storage_failed"),
        (sqlite3.SQLITE_BUSY, "storage_failed"),
    ],
)
def test_every_error_of_sqlite_comes_out_as_ours(store: Store, extended: int, code: str) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorcode = extended
    translated = store._database._translate(error)
    assert (translated.code, translated.retryable) == (code, extended == sqlite3.SQLITE_BUSY)
    assert translated.message.startswith("cannot ")


def test_a_full_disk_under_sqlite_is_called_so(store: Store) -> None:
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    record = search(store)
    with pytest.raises(StorageError) as caught:
        store.commit_capture(record.id, picture(size=500_000), quality_score=1, liveness_score=1)
    assert caught.value.code == "storage_full"
    assert store.cancel(record.id).state == "cancelled"  # the store goes on
