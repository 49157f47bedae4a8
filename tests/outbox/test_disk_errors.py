"""Errors of the disk injected into the system calls of a child process: what failed is never acknowledged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.types import State
from tests.outbox.fakes import FakeClock, open_store, pending, picture

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from pathlib import Path
from edge_agent.errors import StorageError
from tests.outbox.fakes import FakeClock, open_store, picture, request
store = open_store(Path(sys.argv[1]), FakeClock())
store.recover()
errors = 0
for number in range(60):
    try:
        record, _ = store.create(request(f"user-{number}", idempotency_key=str(number)))
        store.commit_capture(record.id, picture(record.id, 30_000), quality_score=0.9, liveness_score=0.9)
        print("captured", record.id, flush=True)
    except StorageError as exc:
        errors += 1
        print(exc.code, "after" if "after an error of the storage" in exc.message else "at", flush=True)
        if errors == 3:
            try:
                store.counts()
            except StorageError as exc:
                print("reading", exc.code, flush=True)
            break
store.close()
print("closed", flush=True)
"""


def run_with(injected: str, state_dir: Path) -> list[list[str]]:
    """Run the writer while a system call on the write-ahead log fails; returns its lines, split."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here")
    open_store(state_dir, FakeClock()).close()  # so that the counted calls are those of transactions
    calls = injected.split(":", 1)[0]
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(state_dir / "outbox.db-wal"), "-e", f"trace={calls}"]
    command = [*strace, "-e", f"inject={injected}", sys.executable, "-c", WRITER, str(state_dir)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return [line.split() for line in found.stdout.splitlines()]


def acknowledged_is_there(state_dir: Path, lines: list[list[str]]) -> None:
    ids = [line[1] for line in lines if line[0] == "captured"]
    assert ids
    with open_store(state_dir, FakeClock()) as store:
        store.recover()
        assert store.verify().ok
        assert store.verify_audit().ok
        for key in ids:
            assert store.get(key).state is State.PENDING
            assert store.payload(key) == picture(key, 30_000)
        assert pending(store, "after").state is State.PENDING


@pytest.mark.parametrize("injected", ["fdatasync,fsync:error=EIO:when=20", "pwrite64:error=EIO:when=400"])
def test_after_an_input_output_error_nothing_is_acknowledged_until_it_is_opened_again(
    tmp_path: Path, injected: str
) -> None:
    lines = run_with(injected, tmp_path / "state")
    failures = [line for line in lines if line[0].startswith("storage")]
    assert failures == [["storage_failed", "at"], ["storage_failed", "after"], ["storage_failed", "after"]]
    assert lines[-2:] == [["reading", "storage_failed"], ["closed"]]
    assert ["captured"] not in [line[:1] for line in lines[lines.index(failures[0]) :]]
    acknowledged_is_there(tmp_path / "state", lines)


def test_where_the_disk_was_full_once_the_transaction_is_undone_and_the_store_goes_on(tmp_path: Path) -> None:
    lines = run_with("pwrite64:error=ENOSPC:when=400", tmp_path / "state")
    assert [line for line in lines if line[0] != "captured"] == [["storage_full", "at"], ["closed"]]
    assert len(lines) == 61
    acknowledged_is_there(tmp_path / "state", lines)


def test_a_disk_that_stays_full_is_named_every_time_and_the_old_stays_readable(tmp_path: Path) -> None:
    lines = run_with("pwrite64:error=ENOSPC:when=400+", tmp_path / "state")
    assert [line for line in lines if line[0] != "captured"] == [["storage_full", "at"]] * 3 + [["closed"]]
    acknowledged_is_there(tmp_path / "state", lines)
