"""A real file system of 50 MB that others filled to the last byte."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.database import free_bytes
from edge_agent.outbox.records import Limits, VerificationRecord
from edge_agent.outbox.space import Reserve
from edge_agent.types import State
from tests.outbox.disks import fill, small_disk
from tests.outbox.fakes import ENVIRONMENT, FakeClock, capture, finish, lease, open_store, pending, picture, search
from tests.outbox.v1 import make_v1

ROOT = Path(__file__).resolve().parents[2]
RESERVE_BYTES = 16 << 20
SIZE = 100_000
BACKLOG = 60

WRITER = """
import sys
from pathlib import Path
from edge_agent.outbox.database import free_bytes
from tests.outbox.fakes import FakeClock, open_store, pending, picture
store = open_store(Path(sys.argv[1]), FakeClock(), free_bytes=free_bytes, reserve_bytes=int(sys.argv[2]))
store.recover()
for number in range(int(sys.argv[3])):
    print(pending(store, f"user-{number}", jpeg=picture(f"user-{number}", 100_000)).id, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with small_disk(tmp_path, request.param) as folder:
        yield folder


def open_on(disk: Path, clock: FakeClock, reserve_bytes: int = RESERVE_BYTES) -> Store:
    return open_store(disk / "state", clock, free_bytes=free_bytes, reserve_bytes=reserve_bytes)


def backlog(store: Store, number: int = BACKLOG) -> list[VerificationRecord]:
    return [pending(store, f"user-{n}", jpeg=picture(f"user-{n}", SIZE)) for n in range(number)]


def drain(store: Store) -> int:
    """Forward everything, as the forwarder does; returns how many."""
    done = 0
    while leased := store.lease_next(ENVIRONMENT, lease_s=600):
        assert store.payload(leased.record.id)
        assert finish(store, leased).state is State.VERIFIED
        done += 1
    return done


def refused(store: Store, waiting: VerificationRecord) -> None:
    for attempt in (
        lambda: search(store, "new"),
        lambda: store.commit_capture(waiting.id, picture(), quality_score=1, liveness_score=1),
    ):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert (caught.value.code, caught.value.retryable) == ("storage_full", True)


def intact(store: Store) -> None:
    report = store.verify()
    assert report.ok, report.problems
    assert store.verify_audit().ok


def test_a_disk_filled_to_the_last_byte_drains_and_serves_again_when_there_is_space(
    disk: Path, clock: FakeClock
) -> None:
    with open_on(disk, clock) as store:
        store.recover()
        old = backlog(store)
        waiting = search(store, "waiting")
        filler = fill(disk)
        assert free_bytes(disk) == 0
        refused(store, waiting)
        assert [store.payload(r.id) for r in old[:3]] == [picture(f"user-{n}", SIZE) for n in range(3)]
        assert store.withdraw(old[0].id).state is State.DELETED
        assert store.delete_user("user-1").captures == 1
        assert drain(store) == BACKLOG - 2
        refused(store, waiting)
        intact(store)
        filler.unlink()
        store.tick()
        assert store.space().reserve_bytes == RESERVE_BYTES
        assert capture(store, "new").state is State.CAPTURED


def test_captures_also_expire_on_a_full_disk(disk: Path, clock: FakeClock) -> None:
    with open_on(disk, clock, reserve_bytes=4 << 20) as store:
        store.recover()
        old = backlog(store)
        fill(disk)
        clock.advance(Limits().max_age_s + 1)
        store.tick()
        assert store.counts()[State.EXPIRED] == len(old)
        intact(store)


def test_what_becomes_free_may_be_eaten_at_once_and_nothing_old_is_damaged(disk: Path, clock: FakeClock) -> None:
    with open_on(disk, clock) as store:
        store.recover()
        old = backlog(store)
        ended, filler = drain_against_a_greedy_neighbour(store, disk)
        assert ended > 0
        intact(store)
        filler.unlink()
        clock.advance(601)
        assert drain(store) == len(old) - ended
        intact(store)


def drain_against_a_greedy_neighbour(store: Store, disk: Path) -> tuple[int, Path]:
    """Forward until the disk stops it (or all is done), with every free byte taken before each capture."""
    for ended in range(BACKLOG):  # noqa: B007 - how far it got
        filler = fill(disk)
        try:
            finish(store, lease(store))
        except StorageError as exc:
            if exc.code != "storage_full":
                raise
            break
    return ended, filler


@pytest.mark.parametrize("left_bytes", [0, 5000])
def test_a_process_that_was_killed_starts_on_the_full_disk(disk: Path, clock: FakeClock, left_bytes: int) -> None:
    ids = killed_writer(disk, RESERVE_BYTES)
    assert (disk / "state" / "outbox.db-wal").stat().st_size > 0
    fill(disk, leave_bytes=left_bytes)
    with open_on(disk, clock) as store:
        assert store.recover().interrupted == ()
        assert drain(store) == len(ids)
        intact(store)


def killed_writer(disk: Path, reserve_bytes: int) -> list[str]:
    command = [sys.executable, "-c", WRITER, str(disk / "state"), str(reserve_bytes), "30"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        ids = [process.stdout.readline().strip() for _ in range(30)]
        process.kill()
    return ids


def test_a_store_that_was_closed_opens_on_the_full_disk(disk: Path, clock: FakeClock) -> None:
    with open_on(disk, clock) as store:
        store.recover()
        backlog(store)
    assert not (disk / "state" / "outbox.db-wal").exists()
    fill(disk)
    with open_on(disk, clock) as store:
        store.recover()
        assert drain(store) == BACKLOG
        intact(store)


def test_a_reserve_that_does_not_fit_keeps_no_store_from_opening(disk: Path, clock: FakeClock) -> None:
    with open_on(disk, clock) as store:
        store.recover()
        old = backlog(store)
    with open_on(disk, clock, reserve_bytes=64 << 20) as store:
        store.recover()
        space = store.space()
        assert 16 << 20 < space.reserve_bytes < 50 << 20
        assert (space.takes_captures, space.problem) == (False, "the file system is too full")
        with pytest.raises(StorageError, match="the file system is too full") as caught:
            search(store)
        assert "outbox.reserve_bytes" in str(caught.value.hint)
        fill(disk)
        assert drain(store) == len(old)


def test_without_a_reserve_a_full_disk_stops_the_store_but_damages_nothing(disk: Path, clock: FakeClock) -> None:
    with open_on(disk, clock, reserve_bytes=0) as store:
        store.recover()
        old = backlog(store)
        filler = fill(disk)
        with pytest.raises(StorageError) as caught:
            drain(store)
        assert caught.value.code == "storage_full"
        filler.unlink()
        clock.advance(601)
        drain(store)
        assert {store.get(r.id).state for r in old} == {State.VERIFIED}
        intact(store)


def test_an_older_schema_is_migrated_on_the_full_disk(disk: Path, clock: FakeClock) -> None:
    ids = make_v1(disk / "state", 40, picture_bytes=SIZE)
    Reserve(disk / "state", free_bytes).adapt(8 << 20)
    fill(disk)
    with open_on(disk, clock, reserve_bytes=8 << 20) as store:
        store.recover()
        assert drain(store) == len(ids)
        intact(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root mounts by itself")
def test_without_root_all_this_runs_in_a_namespace_of_its_own() -> None:
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "pytest", "-q", "--no-cov", __file__]
    probe = subprocess.run([*command[:3], "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no namespace of its own here: {probe.stderr.decode().strip()}")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
