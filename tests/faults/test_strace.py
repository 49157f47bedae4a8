"""The sync precedes the acknowledgement, seen in the system calls; and a disk that fails makes nobody lie."""

from __future__ import annotations

import pytest

from tests.faults.scene import Scene
from tests.faults.strace import Acknowledgement, acknowledgements, needs_strace, traced

CALLS = "trace=fdatasync,fsync,write,sendto,sendmsg,pwrite64"
ENQUEUE = ("--do", "enqueue", "--captures", 4, "--sizes", 20_000, 60_000)


def acknowledged_by(here: Scene, synchronous: str) -> list[Acknowledgement]:
    done = traced(here.folder, here.arguments(*ENQUEUE, "--synchronous", synchronous), "-e", CALLS)
    assert done.status == 0, done.errors
    found = acknowledgements(done.trace)
    assert len(found) == 4
    assert all(ack.wal_writes >= 5 for ack in found), "the pictures are not in the trace"
    return found


def test_the_sync_of_the_log_comes_after_its_last_write_and_before_the_acknowledgement(here: Scene) -> None:
    needs_strace()
    found = acknowledged_by(here, "FULL")
    assert all(ack.synced and ack.syncs >= 2 for ack in found), found  # one for create, one for the capture


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_the_sync_the_same_look_finds_it_missing(here: Scene, synchronous: str) -> None:
    needs_strace()
    assert not any(ack.synced for ack in acknowledged_by(here, synchronous))


WRITE = r'7 pwrite64(8</s/outbox.db-wal>, "..."..., 4096, 32) = 4096'
ACK = r'7 write(1</dev/null>, "{\"event\": \"ack\", \"id\""..., 99) = 99'


@pytest.mark.parametrize(
    ("trace", "synced"),
    [
        ([WRITE, "7 fdatasync(8</s/outbox.db-wal>) = 0", ACK], True),
        ([WRITE, ACK, "7 fdatasync(8</s/outbox.db-wal>) = 0"], False),
        (["7 fdatasync(8</s/outbox.db-wal>) = 0", WRITE, ACK], False),
        ([WRITE, "7 fdatasync(8</s/outbox.db-wal>) = -1 EIO (Input/output error) (INJECTED)", ACK], False),
        ([WRITE, "7 fdatasync(9</s/outbox.db>) = 0", ACK], False),
        ([WRITE, "7 fdatasync(8</s/outbox.db-wal> <unfinished ...>", "7 <... fdatasync resumed>) = 0", ACK], True),
        ([WRITE, "7 fdatasync(8</s/outbox.db-wal> <unfinished ...>", ACK], False),
        (
            [WRITE, "7 fdatasync(8</s/outbox.db-wal> <unfinished ...>", WRITE, "7 <... fdatasync resumed>) = 0", ACK],
            False,
        ),
    ],
)
def test_the_reading_of_a_trace(trace: list[str], synced: bool) -> None:
    assert [ack.synced for ack in acknowledgements(trace)] == [synced]


# -- a failing disk ---------------------------------------------------------------------------------------------------

ONCE = [3, 11, 22, 31, 42]
FAULTS = [f"fdatasync,fsync:error=EIO:when={n}" for n in ONCE]
FAULTS += ["fdatasync,fsync:error=EIO:when=14+"]
FAULTS += [f"pwrite64:error=EIO:when={n}" for n in (90, 220)]
FAULTS += [f"pwrite64:error=ENOSPC:when={n}" for n in (60, 150, 300)]
FAULTS += ["pwrite64:error=ENOSPC:when=120+"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_disk_refused_is_never_acknowledged_and_the_next_start_is_sound(here: Scene, fault: str) -> None:
    needs_strace()
    work = here.arguments("--captures", 6, "--users", 3, "--live-share", 0.5, "--hurry")
    done = traced(here.folder, work, "-e", "trace=fdatasync,fsync,pwrite64", "-e", f"inject={fault}")
    assert done.injected > 0, "the fault was not met"
    assert done.status in {0, 4}, done.errors
    here.ledger.absorb(done.lines)
    here.run_here("--captures", 3, "--seed", "after", "--hurry")
    here.must_be_good(drained=True)
    assert len(here.ledger.acknowledged) >= 3
