"""The reserve, and the sizes of the files."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.space import LOW_WATER_BYTES, STEP_BYTES, Reserve, room_for
from edge_agent.types import State
from tests.outbox.fakes import ENVIRONMENT, FakeClock, capture, finish, open_store, pending, picture, search

MB = 1 << 20
PLENTY = 1 << 40


class Disk:
    """What the file system says is free."""

    def __init__(self, free_bytes: int = PLENTY) -> None:
        self.free_bytes = free_bytes

    def __call__(self, _: Path) -> int:
        return self.free_bytes


@pytest.fixture
def disk() -> Disk:
    return Disk()


def allocated(file: Path) -> int:
    return file.stat().st_blocks * 512


# -- the file


def test_the_reserve_is_really_allocated_and_private(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(8 * MB)
    assert (reserve.held_bytes, reserve.problem) == (8 * MB, None)
    assert allocated(reserve.path) >= 8 * MB
    assert stat.S_IMODE(reserve.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_allocation_gets_zeros(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(3 * MB + 5)
    assert reserve.held_bytes == reserve.path.stat().st_size == 3 * MB + 5
    assert allocated(reserve.path) >= 3 * MB + 5


def test_a_file_that_is_only_a_hole_does_not_count(tmp_path: Path, disk: Disk) -> None:
    with (tmp_path / "reserve").open("wb") as file:
        file.truncate(8 * MB)
    reserve = Reserve(tmp_path, disk)
    assert reserve.held_bytes == 0
    reserve.adapt(8 * MB)
    assert allocated(reserve.path) >= 8 * MB


def test_a_reserve_that_cannot_be_made_is_reported_and_never_raised(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "reserve").symlink_to(tmp_path / "elsewhere")
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(8 * MB)
    assert (reserve.held_bytes, reserve.problem) == (0, os.strerror(errno.ELOOP))
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_that_the_disk_had_no_room_for_is_not_kept(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partly(fd: int, start: int, length: int) -> None:
        os.ftruncate(fd, start + length // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", partly)
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(8 * MB)
    assert (reserve.held_bytes, reserve.path.stat().st_size) == (0, 0)
    assert reserve.problem == "No space left on device"


def test_no_reserve_wanted_makes_no_file(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(0)
    reserve.make_room()
    assert not reserve.path.exists()
    assert not reserve.give_back()


@pytest.mark.parametrize(
    ("held", "wanted", "free", "then"),
    [
        (0, 8 * MB, 8 * MB + 2 * LOW_WATER_BYTES, 8 * MB),  # it just fits
        (0, 8 * MB, 8 * MB + 2 * LOW_WATER_BYTES - 1, STEP_BYTES),  # as many steps as fit
        (0, 8 * MB, LOW_WATER_BYTES, 0),
        (STEP_BYTES, 8 * MB, 0, STEP_BYTES),
        (STEP_BYTES, 8 * MB, PLENTY, 8 * MB),
        (8 * MB, 5 * MB, 0, 5 * MB),
        (8 * MB, 0, PLENTY, 0),
    ],
)
def test_the_reserve_follows_the_limit_as_far_as_the_room_allows(
    tmp_path: Path, disk: Disk, held: int, wanted: int, free: int, then: int
) -> None:
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(held)
    disk.free_bytes = free
    reserve.adapt(wanted)
    assert reserve.held_bytes == then
    assert (reserve.problem is None) == (then == wanted)


def test_a_reserve_that_somebody_deleted_is_noticed(tmp_path: Path, disk: Disk) -> None:
    reserve = Reserve(tmp_path, disk)
    reserve.adapt(8 * MB)
    reserve.path.unlink()
    assert not reserve.give_back()
    assert (reserve.held_bytes, reserve.path.exists()) == (0, False)
    reserve.adapt(8 * MB)
    assert allocated(reserve.path) >= 8 * MB


# -- when it is given back


def test_every_operation_on_what_is_stored_gives_a_step_back_first(
    state_dir: Path, clock: FakeClock, disk: Disk
) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=32 * MB) as store:
        first, second = pending(store, "a"), pending(store, "b")
        searching = [search(store, f"s{n}").id for n in range(3)]
        held = store.space().reserve_bytes
        disk.free_bytes = LOW_WATER_BYTES - 1
        for operation in (
            lambda: store.lease_next(ENVIRONMENT, lease_s=60),
            lambda: store.cancel(searching[0]),
            lambda: store.reject(searching[1], ["no_face"]),
            lambda: store.fail(searching[2], "camera_unavailable"),
            lambda: store.destroy(second.id, "offline"),
            lambda: store.note("looked"),
        ):
            operation()
            assert store.space().reserve_bytes == held - STEP_BYTES
            held -= STEP_BYTES
        assert store.payload(first.id) == picture(first.id)


def test_what_is_new_gets_nothing_of_the_reserve(state_dir: Path, clock: FakeClock, disk: Disk) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        waiting = search(store)
        disk.free_bytes = LOW_WATER_BYTES - 1
        for attempt in (
            lambda: search(store),
            lambda: store.commit_capture(waiting.id, picture(), quality_score=1, liveness_score=1),
        ):
            with pytest.raises(StorageError):
                attempt()
        assert store.space().reserve_bytes == 8 * MB


def test_with_room_nothing_is_given_back(state_dir: Path, clock: FakeClock, disk: Disk) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        pending(store)
        disk.free_bytes = LOW_WATER_BYTES
        assert store.lease_next(ENVIRONMENT, lease_s=60)
        store.tick()
        assert store.space().reserve_bytes == 8 * MB


def test_a_transaction_that_was_too_large_leaves_more_room_for_the_next(
    state_dir: Path, clock: FakeClock, disk: Disk
) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=32 * MB) as store:
        record = pending(store)
        store._database.execute(f"PRAGMA max_page_count = {pages(store)}")
        with pytest.raises(StorageError) as caught:
            store.note("long", text="x" * MB)
        assert caught.value.code == "storage_full"
        assert store.space().reserve_bytes == 32 * MB - STEP_BYTES
        store._database.execute(f"PRAGMA max_page_count = {1 << 30}")
        assert store.withdraw(record.id).erased


def pages(store: Store) -> int:
    return int(store._database.execute("PRAGMA page_count").fetchone()[0])


def test_a_tick_survives_a_disk_that_lets_it_neither_shorten_nor_move_the_log(
    state_dir: Path, clock: FakeClock, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> bool:
        raise StorageError("cannot write: it is full", code="storage_full")

    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        record = pending(store)
        with monkeypatch.context() as patched:
            patched.setattr(store._database, "shrink", full)
            patched.setattr(store._database, "truncate_log", full)
            store.withdraw(record.id)
            store.tick()
            assert store.erasure_pending is True
        store.tick()
        assert store.space().reserve_bytes == 8 * MB
        assert store.erasure_pending is False


def test_a_tick_does_not_hide_a_failing_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> bool:
        raise StorageError("cannot write: input/output error")

    monkeypatch.setattr(store._database, "truncate_log", failing)
    store.erasure_pending = True
    with pytest.raises(StorageError, match="input/output error"):
        store.tick()


# -- what a new capture needs


@pytest.mark.parametrize(
    ("free", "taken"),
    [(room_for(100_000), True), (room_for(100_000) - 1, False), (PLENTY, True), (0, False)],
)
def test_a_capture_needs_room_for_its_picture_twice_beside_the_whole_reserve(
    state_dir: Path, clock: FakeClock, disk: Disk, free: int, taken: bool
) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        record = search(store)
        disk.free_bytes = free
        with nullcontext() if taken else pytest.raises(StorageError, match="cannot take a new capture"):
            store.commit_capture(record.id, picture(size=100_000), quality_score=1, liveness_score=1)
        assert store.get(record.id).state is (State.CAPTURED if taken else State.SEARCHING)


def test_nothing_new_is_taken_while_the_reserve_is_not_whole(state_dir: Path, clock: FakeClock, disk: Disk) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        store._reserve.give_back()
        disk.free_bytes = STEP_BYTES + LOW_WATER_BYTES  # enough for the capture, not for the missing step
        assert not store.space().takes_captures
        with pytest.raises(StorageError) as caught:
            search(store)
        assert f"{room_for(0) + STEP_BYTES} are needed (the file system is too full)" in caught.value.message
        disk.free_bytes = PLENTY
        search(store)  # no need to wait for the tick
        assert store.space().reserve_bytes == 8 * MB
        assert store.space().takes_captures


@pytest.mark.parametrize("wanted", [4 * MB, 12 * MB])
def test_the_reserve_follows_a_changed_limit(state_dir: Path, clock: FakeClock, disk: Disk, wanted: int) -> None:
    with open_store(state_dir, clock, free_bytes=disk, reserve_bytes=8 * MB) as store:
        store.limits = replace(store.limits, reserve_bytes=wanted)
        store.tick()
        assert store.space().reserve_bytes == (state_dir / "reserve").stat().st_size == wanted


# -- the sizes of the files


def sizes(state_dir: Path) -> int:
    return sum((state_dir / name).stat().st_size for name in ("outbox.db", "outbox.db-wal"))


def test_the_files_are_small_again_after_a_backlog_has_drained(store: Store, state_dir: Path, clock: FakeClock) -> None:
    for number in range(200):
        pending(store, f"user-{number}", jpeg=os.urandom(100_000))
    full = sizes(state_dir)
    assert full > 200 * 100_000
    while leased := store.lease_next(ENVIRONMENT, lease_s=600):
        finish(store, leased)
    after = []
    for _ in range(4):
        clock.advance(60)
        store.tick()
        after.append(sizes(state_dir))
    assert after[-1] < 2 * MB, after
    assert store.verify().ok


def test_the_log_of_a_burst_behind_a_slow_reader_is_emptied_by_the_next_tick(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    log = state_dir / "outbox.db-wal"
    reader = sqlite3.connect(state_dir / "outbox.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM verifications").fetchone()
    for number in range(120):
        capture(store, f"user-{number}", jpeg=os.urandom(100_000))
    assert log.stat().st_size > 12 * MB
    reader.close()
    clock.advance(60)
    store.tick()
    assert log.stat().st_size == 0
