"""Whatever is damaged: what authenticates is saved, what is lost is said, and nothing is invented."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox.database import SCHEMA_VERSION
from edge_agent.outbox.salvage import salvage
from edge_agent.outbox.shapes import DERIVED, shapes
from edge_agent.types import State
from tests.outbox.fakes import KEY, FakeClock, open_store
from tests.outbox.wreck import (
    PAGE,
    Wreck,
    build,
    check_intact,
    check_sound,
    forward_some,
    garbage,
    overwrite,
    pages_of,
    root_page,
    salvaged,
)


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Wreck:
    return build(tmp_path_factory.mktemp("wreck"))


def database(folder: Path) -> Path:
    return folder / "outbox.db"


def on_root(name: str) -> Callable[[Path], None]:
    """Garbage on the page from which a table or an index is reached."""
    return lambda folder: overwrite(database(folder), (root_page(database(folder), name) - 1) * PAGE, garbage(PAGE))


def halve(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // PAGE * PAGE + 1000)


def scramble(path: Path, size: int | None = None) -> None:
    path.write_bytes(garbage(path.stat().st_size if size is None else size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "nothing": lambda _: None,
    "the header": lambda folder: overwrite(database(folder), 0, garbage(100)),
    "the first page": lambda folder: overwrite(database(folder), 0, bytes(PAGE)),
    "the start of the verifications": on_root("verifications"),
    "the start of the pictures": on_root("payloads"),
    "the start of the audit log": on_root("audit"),
    "an index": on_root("verifications_by_lane"),
    "a unique index": on_root("sqlite_autoindex_verifications_1"),
    "the users": on_root("users"),
    "the meta table": on_root("meta"),
    "the sealed secrets": on_root("secrets"),
    "the key check values": on_root("device_keys"),
    "the shared memory": lambda folder: scramble(folder / "outbox.db-shm", 32768),
    "the second half": lambda folder: halve(database(folder)),
    "all of it but its name": lambda folder: empty(database(folder)),
    "the whole file": lambda folder: database(folder).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_on_a_damaged_page_is_saved_and_the_rest_is_told(
    wreck: Wreck, tmp_path: Path, clock: FakeClock, damage: str
) -> None:
    folder = wreck.copy(tmp_path / "state")
    before = database(folder).read_bytes()
    DAMAGE[damage](folder)
    intact = captures_off(wreck, damaged_pages(before, folder))
    report = salvaged(folder, clock)
    with open_store(folder, clock) as store:
        check_sound(store, wreck.known, report)
        check_intact(store, wreck.known, intact)
        kept = store.list(limit=1000)
    again = salvaged(folder, clock)
    assert {name for name, count in again.tables.items() if count.lost} <= {"idempotency", "users"}
    assert not again.audit_gaps
    with open_store(folder, clock) as store:
        check_sound(store, wreck.known, again)
        assert [(r.id, r.state, r.image_bytes) for r in store.list(limit=1000)] == [
            (r.id, r.state, r.image_bytes) for r in kept
        ]
        store.recover()
        assert store.queue().depth >= len(intact) - 1  # one of them is parked
        forward_some(store, clock)


def damaged_pages(before: bytes, folder: Path) -> set[int]:
    after = database(folder).read_bytes() if database(folder).exists() else b""
    starts = range(0, len(before), PAGE)
    return {at // PAGE + 1 for at in starts if before[at : at + PAGE] != after[at : at + PAGE]}


def captures_off(wreck: Wreck, damaged: set[int]) -> set[str]:
    return {key for key, pages in wreck.pages.items() if not pages & damaged}


def test_the_damage_of_these_tests_is_what_it_says(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    assert len(wreck.known.states) == 44
    assert len(wreck.pages) == len(wreck.known.pictures) == 32
    assert all(len(pages) >= 3 for pages in wreck.pages.values())
    folder = wreck.copy(tmp_path / "state")
    DAMAGE["the first page"](folder)
    with pytest.raises(StorageError) as caught:
        open_store(folder, clock)
    assert caught.value.code == "storage_corrupt"


def test_random_pages_cost_only_what_was_on_them(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    chance = random.Random(20300601)
    lost = 0
    for number in range(20):
        folder = wreck.copy(tmp_path / f"state-{number}")
        pages = database(folder).stat().st_size // PAGE
        hit = set(chance.sample(range(1, pages + 1), chance.choice((1, 1, 2, 5, 20))))
        for page in hit:
            start = chance.choice((0, 0, PAGE // 2))
            content = chance.choice((bytes(PAGE), garbage(PAGE, page)))
            overwrite(database(folder), (page - 1) * PAGE + start, content[start:])
        report = salvaged(folder, clock)
        with open_store(folder, clock) as store:
            check_sound(store, wreck.known, report)
            check_intact(store, wreck.known, captures_off(wreck, hit))
        lost += len(report.captures_lost)
    assert lost > 5  # the damage was real


LOG_DAMAGE: dict[str, Callable[[Path], None]] = {
    "nothing": lambda _: None,
    "its header": lambda log: overwrite(log, 0, garbage(32)),
    "one frame": lambda log: overwrite(log, 32 + 20 * (PAGE + 24) + 500, garbage(2000)),
    "the start of a frame": lambda log: overwrite(log, 32 + 21 * (PAGE + 24), garbage(24)),
    "its last frame": lambda log: overwrite(log, log.stat().st_size - PAGE, garbage(PAGE)),
    "its second half": halve,
    "all of it": scramble,
    "the file": lambda log: log.unlink(),
}
SURVIVABLE = {"nothing", "its header"}


@pytest.mark.parametrize("damage", LOG_DAMAGE)
def test_a_damaged_log_costs_what_only_it_held(wreck: Wreck, tmp_path: Path, clock: FakeClock, damage: str) -> None:
    folder = wreck.copy(tmp_path / "state", logged=True)
    LOG_DAMAGE[damage](folder / "outbox.db-wal")
    report = salvaged(folder, clock)
    with open_store(folder, clock) as store:
        check_sound(store, wreck.known, report)
        found = {record.id for record in store.list(limit=1000) if record.image_bytes}
        if damage in SURVIVABLE:
            assert found == wreck.known.pictures
            check_intact(store, wreck.known, found)
        else:
            assert len(found) >= 14  # what was in the database file
        store.recover()
        forward_some(store, clock)


@pytest.mark.parametrize("damage", ["its header", "one frame", "the start of a frame"])
def test_a_log_that_sqlite_would_throw_away_is_salvaged_first(
    wreck: Wreck, tmp_path: Path, clock: FakeClock, damage: str
) -> None:
    folder = wreck.copy(tmp_path / "state", logged=True)
    LOG_DAMAGE[damage](folder / "outbox.db-wal")
    before = (folder / "outbox.db-wal").read_bytes()
    with pytest.raises(StorageError, match="its write-ahead log is damaged") as caught:
        open_store(folder, clock)
    assert caught.value.code == "storage_corrupt"
    assert (folder / "outbox.db-wal").read_bytes() == before


@pytest.mark.parametrize("damage", ["nothing", "its last frame", "its second half", "the file"])
def test_what_a_power_cut_leaves_of_the_log_needs_no_salvage(
    wreck: Wreck, tmp_path: Path, clock: FakeClock, damage: str
) -> None:
    folder = wreck.copy(tmp_path / "state", logged=True)
    LOG_DAMAGE[damage](folder / "outbox.db-wal")
    with open_store(folder, clock) as store:
        sqlites = {record.id: record.state for record in store.list(limit=1000)}
    other = wreck.copy(tmp_path / "other", logged=True)
    LOG_DAMAGE[damage](other / "outbox.db-wal")
    salvaged(other, clock)
    with open_store(other, clock) as store:
        ours = {record.id: record.state for record in store.list(limit=1000)}
    leased = {key for key, state in sqlites.items() if state is State.MATCHING}
    assert {**ours, **dict.fromkeys(leased, State.MATCHING)} == sqlites


def test_frames_behind_a_bad_one_are_still_read(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    folder = wreck.copy(tmp_path / "state", logged=True)
    LOG_DAMAGE["one frame"](folder / "outbox.db-wal")
    salvaged(folder, clock)
    with open_store(folder, clock) as store:
        found = {record.id for record in store.list(limit=1000)}
    assert len(found) >= len(wreck.known.states) - 5


def test_a_lost_picture_shows_as_a_failure_with_its_code_and_record(
    wreck: Wreck, tmp_path: Path, clock: FakeClock
) -> None:
    folder = wreck.copy(tmp_path / "state")
    key = next(key for key in sorted(wreck.pages) if wreck.known.states[key] is State.PENDING)
    with open_store(folder, clock) as store:
        row = store._database.execute("SELECT * FROM payloads JOIN verifications USING (seq) WHERE id = :id", id=key)
        blob = row.fetchone()["picture"]
        before = store.get(key).reference
    page = min(pages_of(database(folder), [blob[4200:4700]]))
    overwrite(database(folder), (page - 1) * PAGE + 2000, garbage(100))
    report = salvaged(folder, clock)
    assert key in report.captures_lost
    with open_store(folder, clock) as store:
        record = store.get(key)
        assert (record.state, record.error_code, record.reference) == (State.FAILED, "capture_lost", before)
        events = store._database.execute("SELECT event, to_state FROM audit WHERE verification_id = :id", id=key)
        assert tuple(events.fetchall()[-1]) == ("lose_capture", "failed")


def test_a_wrong_key_changes_nothing(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    for damage in ("nothing", "the first page", "the meta table", "the key check values", "the whole file"):
        folder = wreck.copy(tmp_path / damage)
        DAMAGE[damage](folder)
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.name != "lock"}
        with pytest.raises(StorageError) as caught:
            salvage(folder, KEY[::-1], clock=clock)
        assert caught.value.code == "key_mismatch"
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.name != "lock"} == before


def test_a_newer_schema_is_never_salvaged(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    folder = wreck.copy(tmp_path / "state")
    overwrite(database(folder), 60, (SCHEMA_VERSION + 1).to_bytes(4))
    with pytest.raises(StorageError) as caught:
        salvaged(folder, clock)
    assert caught.value.code == "schema_unknown"
    assert not (folder / "aside").exists()


def test_lost_keys_are_taken_from_the_side_file(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    folder = wreck.copy(tmp_path / "state")
    DAMAGE["the sealed secrets"](folder)
    report = salvaged(folder, clock)
    assert report.keys_from == "side file"
    assert report.captures_lost == ()


def test_without_any_keys_the_files_are_kept_and_the_reason_is_told(
    wreck: Wreck, tmp_path: Path, clock: FakeClock
) -> None:
    folder = wreck.copy(tmp_path / "state")
    DAMAGE["the sealed secrets"](folder)
    keys = (folder / "keys").read_bytes()
    (folder / "keys").unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match="the keys of the store are lost") as caught:
            salvaged(folder, clock)
        assert caught.value.code == "storage_corrupt"
        with pytest.raises(StorageError, match="is not finished"):
            open_store(folder, clock)
    (folder / "keys").write_bytes(keys)  # of a backup
    assert salvaged(folder, clock).captures_kept == len(wreck.known.pictures)


def test_every_table_is_copied_or_derived() -> None:
    assert "verifications" in shapes()
    assert not set(shapes()) & DERIVED


def test_numbers_are_not_given_out_twice(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    folder = wreck.copy(tmp_path / "state")
    DAMAGE["the start of the verifications"](folder)
    with open_store(wreck.copy(tmp_path / "sound"), clock) as store:
        sql = "SELECT name, seq FROM sqlite_sequence ORDER BY name"
        before = [tuple(row) for row in store._database.execute(sql)]
    salvaged(folder, clock)
    with open_store(folder, clock) as store:
        assert [tuple(row) for row in store._database.execute(sql)] == before
