"""The keys stand once more beside the database: private, complete, and worth nothing without the device key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store, keyfile
from edge_agent.outbox.database import database_exists
from tests.outbox.fakes import KEY, FakeClock, capture, crash, open_store


def test_a_new_store_has_its_key_file_private_and_with_a_format_version(store: Store, state_dir: Path) -> None:
    file = state_dir / "keys"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b'"format": 1' in file.read_bytes()


def test_the_key_file_holds_what_the_database_holds_and_no_key_in_clear(store: Store, state_dir: Path) -> None:
    material = keyfile.load(state_dir)
    for table in ("device_keys", "secrets"):
        rows = [dict(row) for row in store._database.execute(f"SELECT * FROM {table}")]
        assert sorted(map(str, getattr(material, table))) == sorted(map(str, rows))
    assert {row["name"] for row in material.meta} == {"store_id", "machine"}
    content = (state_dir / "keys").read_bytes()
    for key in (KEY, store._keys.lookup, *store._keys.rows.values(), *store._keys.audits.values()):
        assert key not in content
        assert key.hex().encode() not in content


def test_a_missing_or_outdated_key_file_is_written_at_the_next_start(state_dir: Path, clock: FakeClock) -> None:
    open_store(state_dir, clock).close()
    content = (state_dir / "keys").read_bytes()
    for damage in (None, b"", b'{"format": 1}', content.replace(b'"generation": 1', b'"generation": 2')):
        (state_dir / "keys").unlink()
        if damage is not None:
            (state_dir / "keys").write_bytes(damage)
        open_store(state_dir, clock).close()
        assert (state_dir / "keys").read_bytes() == content


def test_an_unchanged_key_file_is_not_written_again(state_dir: Path, clock: FakeClock) -> None:
    open_store(state_dir, clock).close()
    before = (state_dir / "keys").stat()
    open_store(state_dir, clock).close()
    assert (state_dir / "keys").stat() == before


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "meta": [{"value": {"hex": "x"}}]}']
)
def test_a_garbled_key_file_holds_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)
    assert keyfile.load(tmp_path) == keyfile.KeyMaterial()


def test_a_full_disk_does_not_keep_the_store_from_opening(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(state_dir, clock).close()
    (state_dir / "keys").unlink()

    def full(*_: object) -> None:
        raise StorageError("cannot write: no space", code="storage_full")

    monkeypatch.setattr("edge_agent.outbox.keyfile.replace_file", full)
    store = open_store(state_dir, clock)
    capture(store)
    crash(store)


def test_the_key_file_alone_tells_that_there_was_a_queue(state_dir: Path, clock: FakeClock) -> None:
    open_store(state_dir, clock).close()
    (state_dir / "outbox.db").unlink()
    assert database_exists(state_dir)
