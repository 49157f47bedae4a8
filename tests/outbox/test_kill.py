"""A process that is killed at any moment: what it acknowledged is there, complete and authentic."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

from edge_agent.outbox import Store
from edge_agent.types import State
from tests.outbox.fakes import KEY, FakeClock, open_store, picture

KILLS = 8
ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from pathlib import Path
from tests.outbox.fakes import FakeClock, finish, open_store, picture, request
store = open_store(Path(sys.argv[1]), FakeClock())
store.recover()
for number in range(10_000):
    name = f"{sys.argv[2]}/{number}"
    record, _ = store.create(request(f"user-{number % 5}", idempotency_key=name))
    jpeg = picture(record.id, 30_000)
    store.commit_capture(record.id, jpeg, quality_score=0.9, liveness_score=0.9)
    print("captured", record.id, flush=True)
    store.pend(record.id)
    if number % 3 == 0:
        leased = store.lease_one(record.id, lease_s=600)
        if leased:
            finish(store, leased)
            print("verified", record.id, flush=True)
"""


def run_until_killed(state_dir: Path, round_number: int, lines: int) -> list[list[str]]:
    """Start the writer, kill it as soon as it acknowledged ``lines`` times (it is in the middle of the next)."""
    command = [sys.executable, "-c", WRITER, str(state_dir), str(round_number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        seen = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.readlines()
    return [line.split() for line in seen if line.endswith("\n")]


def check(store: Store, acknowledged: dict[str, str]) -> None:
    assert store.verify_audit().ok
    report = store.verify()
    assert report.ok, report.problems
    for key, what in acknowledged.items():
        record = store.get(key)
        if what == "verified":
            assert record.state is State.VERIFIED
        elif record.state is not State.VERIFIED:  # killed between the verdict's commit and its line
            assert record.state is State.PENDING
            assert store.payload(key) == picture(key, 30_000)


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20300601)
    acknowledged: dict[str, str] = {}
    for number in range(KILLS):
        lines = run_until_killed(tmp_path / "state", number, chance.randint(1, 25))
        acknowledged |= {key: what for what, key in lines}
        store = open_store(tmp_path / "state", FakeClock())
        store.recover()
        check(store, acknowledged)
        store.close()
    assert len(acknowledged) > KILLS


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    run_until_killed(tmp_path / "state", 0, 1)
    open_store(tmp_path / "state", FakeClock(), key=KEY).close()


def test_a_kill_between_put_and_verdict_runs_the_sequence_again(tmp_path: Path) -> None:
    script = WRITER.replace("finish(store, leased)", "store.record_upload(record.id, leased.lease, 'i'); break")
    command = [sys.executable, "-c", script, str(tmp_path / "state"), "0"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    key = found.stdout.split()[1]
    with open_store(tmp_path / "state", FakeClock()) as store:
        recovery = store.recover()
        assert recovery.leases_voided == 1
        record = store.get(key)
        assert (record.state, record.lease, record.attempts) == (State.PENDING, None, 1)
        assert store.lease_one(key, lease_s=60) is not None
