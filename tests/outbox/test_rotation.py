"""Rotation of the device key: resumable at any moment, and afterwards the old key is good for nothing."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import ConfigurationError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.crypto import KEY_BYTES, Rotation, mac
from edge_agent.outbox.database import Database
from edge_agent.outbox.rows import row_mac
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, capture, crash, finish, lease, open_store, pending, picture, search, upload

pytestmark = pytest.mark.arm

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
ROOT = Path(__file__).resolve().parents[2]
BOTH: dict[str, Any] = {"key": NEW, "previous_key": OLD}


class PowerCut(BaseException):
    """Nothing of the program runs after it, its ``except`` clauses included."""


def fill(store: Store) -> dict[str, bytes]:
    """A bit of everything that is wrapped or sealed. Returns the pictures by verification."""
    records = [pending(store, user) for user in ("alice", "bob", "alice")]
    finish(store, lease(store), positive=False)  # a failure for the lock-out
    leased = lease(store)
    upload(store, leased)
    store.release(leased.record.id, leased.lease, next_attempt_in_s=0, code="network", detail="no answer")
    search(store, "carol", reference="order 7")
    return {record.id: picture(record.id) for record in records if store.get(record.id).image_bytes}


def made(folder: Path, clock: FakeClock, stage: str) -> dict[str, bytes]:
    """A store that is wholly under the old key, half rotated, or wholly under the new one."""
    with open_store(folder, clock, key=OLD) as store:
        pictures = fill(store)
    if stage != "old":
        with open_store(folder, clock, **BOTH) as store:
            store.begin_rotation(actor="test")
            store.rotate_step(batch=1)
            if stage == "new":
                store.rotate(actor="test")
    return pictures


def every_byte(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "lock")


def check(store: Store, pictures: dict[str, bytes]) -> None:
    """Everything reads back and authenticates."""
    report, audit = store.verify(), store.verify_audit()
    assert report.ok and audit.ok, (report.problems, audit.problem)
    assert {key: store.payload(key) for key in pictures} == pictures


# -- which keys open which store

MISMATCH = "key_mismatch"


@pytest.mark.parametrize(
    ("key", "previous", "old", "half", "new"),
    [
        (OLD, None, Rotation.NONE, MISMATCH, MISMATCH),
        (NEW, None, MISMATCH, MISMATCH, Rotation.NONE),
        (NEW, OLD, Rotation.DUE, Rotation.RUNNING, Rotation.DONE),
        (OLD, NEW, Rotation.DONE, Rotation.RUNNING, Rotation.DUE),  # the operator mixed them up
        (OLD, OLD, Rotation.DONE, MISMATCH, MISMATCH),
        (NEW, OTHER, MISMATCH, MISMATCH, Rotation.DONE),
        (OTHER, OLD, Rotation.DUE, MISMATCH, MISMATCH),
        (OTHER, NEW, MISMATCH, MISMATCH, Rotation.DUE),
        (OTHER, None, MISMATCH, MISMATCH, MISMATCH),
    ],
)
@pytest.mark.parametrize("stage", ["old", "half", "new"])
def test_a_store_opens_with_the_keys_of_all_its_generations_and_with_no_others(
    state_dir: Path, clock: FakeClock, stage: str, key: bytes, previous: bytes | None, old: str, half: str, new: str
) -> None:
    pictures = made(state_dir, clock, stage)
    expected = {"old": old, "half": half, "new": new}[stage]
    before = every_byte(state_dir)
    if expected == MISMATCH:
        with pytest.raises(StorageError) as caught:
            open_store(state_dir, clock, key=key, previous_key=previous)
        assert (caught.value.code, every_byte(state_dir)) == (MISMATCH, before)
        return
    with open_store(state_dir, clock, key=key, previous_key=previous) as store:
        assert store.rotation == expected
        check(store, pictures)


def test_a_lacking_key_of_an_interrupted_rotation_is_asked_for(state_dir: Path, clock: FakeClock) -> None:
    made(state_dir, clock, "half")
    with pytest.raises(StorageError, match="interrupted, and both keys are needed") as caught:
        open_store(state_dir, clock, key=NEW)
    assert "outbox.previous_key" in str(caught.value.hint)


def test_a_new_store_is_made_under_the_current_key(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, **BOTH) as store:
        assert store.rotation is Rotation.DONE
    open_store(state_dir, clock, key=NEW).close()


@pytest.mark.parametrize("keys", [{"key": OLD}, {"key": OLD, "previous_key": OLD}, {"key": OLD, "previous_key": NEW}])
def test_rotating_to_the_key_that_is_in_use_is_refused(state_dir: Path, clock: FakeClock, keys: dict[str, Any]) -> None:
    pictures = made(state_dir, clock, "old")
    with open_store(state_dir, clock, **keys) as store:
        head = store.audit_head()
        with pytest.raises(ConfigurationError) as caught:
            store.rotate(actor="test")
        assert (caught.value.code, store.audit_head()) == ("rotation_not_due", head)
        check(store, pictures)


# -- a rotation


def test_a_rotation_leaves_one_generation_and_says_who_asked(state_dir: Path, clock: FakeClock) -> None:
    pictures = made(state_dir, clock, "old")
    with open_store(state_dir, clock, **BOTH) as store:
        report = store.rotate(actor="uid:0")
        assert (report.generation, report.users, report.left_alone, report.traces_left) == (2, 3, 0, False)
        assert report.rows == 4 + 4 + 1 + 1  # verifications, idempotency keys, an upload mark, a failure
        assert store.rotation is Rotation.DONE
        check(store, pictures)
        told = store._database.execute("SELECT event, detail FROM audit WHERE event LIKE 'key_%'").fetchall()
    assert [row["event"] for row in told] == ["key_rotation_began", "key_rotated"]
    assert '"actor": "uid:0"' in told[0]["detail"]
    with pytest.raises(StorageError):
        open_store(state_dir, clock, key=OLD)


def test_keys_can_be_rotated_again_and_again(state_dir: Path, clock: FakeClock) -> None:
    pictures = made(state_dir, clock, "old")
    for previous, key in itertools.pairwise([OLD, NEW, OTHER, OLD]):
        with open_store(state_dir, clock, key=key, previous_key=previous) as store:
            store.rotate(actor="test")
    with open_store(state_dir, clock, key=OLD) as store:
        assert (store._keys.generation, len(store._keys.audits), len(store._keys.rows)) == (4, 4, 1)
        check(store, pictures)


def test_tombstones_lock_outs_and_quarantines_hold_over_a_rotation(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, key=OLD) as store:
        known = search(store, idempotency_key="payment 1")
        for _ in range(5):
            store.record_failure("alice", "spoof")
        first = pending(store, "bob")
        leased = lease(store)
        upload(store, leased)
        store.release(first.id, leased.lease, next_attempt_in_s=0, code="network")
        second = pending(store, "bob")
    with open_store(state_dir, clock, **BOTH) as store:
        store.rotate(actor="test")
        assert search(store, idempotency_key="payment 1").id == known.id
        assert store.locked_until("alice") is not None
        assert store.lease_one(second.id, lease_s=60) is None
        assert store.lease_one(first.id, lease_s=60) is not None


def test_the_running_clock_and_the_machine_are_known_after_a_rotation(state_dir: Path, clock: FakeClock) -> None:
    made(state_dir, clock, "old")
    clock.advance(5000)
    with open_store(state_dir, clock, **BOTH) as store:
        store.rotate(actor="test")
        running_s = search(store).created_running_s
    clock.reboot()
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock, key=NEW, machine="another machine")
    assert caught.value.code == "state_moved"
    with open_store(state_dir, clock, key=NEW) as store:
        assert search(store).created_running_s > running_s


def test_no_wrapped_key_and_no_sealed_secret_of_before_is_left_in_any_file(state_dir: Path, clock: FakeClock) -> None:
    with open_store(state_dir, clock, key=OLD) as store:
        fill(store)
        users = dict(many_users(store, 3000))
        sealed = [row["sealed"] for row in store._database.execute("SELECT sealed FROM secrets")]
        wrapped = [row["wrapped_key"] for row in store._database.execute("SELECT wrapped_key FROM users")]
        store.tick()
        before = every_byte(state_dir)
        assert all(blob in before for blob in sealed + wrapped)  # the search can find them
        assert any(before.count(blob) > 1 for blob in wrapped)  # pages were split; otherwise take more users
    with open_store(state_dir, clock, **BOTH) as store:
        store.rotate(actor="test")
        files = every_byte(state_dir)
        assert not [blob for blob in sealed + wrapped if blob in files or blob[-32:] in files]
        assert {user_hmac: store._user_key(user_hmac) for user_hmac in users} == users


def many_users(store: Store, number: int) -> Iterator[tuple[bytes, bytes]]:
    """Users as they are after a long time: enough that pages were split."""
    chance = random.Random(20300601)
    with store._database.transaction():
        for _ in range(number):
            user_hmac, user_key = chance.randbytes(32), chance.randbytes(KEY_BYTES)
            values = {
                "user_hmac": user_hmac,
                "generation": store._keys.generation,
                "user_id": chance.randbytes(chance.randint(40, 200)),
            }
            wrapped = store._keys.device.wrap_user_key(user_hmac, user_key)
            store._query("insert_user", **values, wrapped_key=wrapped)
            yield user_hmac, user_key


def test_the_store_works_while_it_is_rotated(state_dir: Path, clock: FakeClock) -> None:
    pictures = made(state_dir, clock, "old")
    with open_store(state_dir, clock, **BOTH) as store:
        store.begin_rotation(actor="test")
        for number in itertools.count():
            if store.rotate_step(batch=1):
                break
            record = pending(store, f"user-{number}")
            pictures[record.id] = picture(record.id)
            check(store, pictures)
            done = finish(store, lease(store))
            del pictures[done.id]
        assert number > 10
        check(store, pictures)
    with open_store(state_dir, clock, key=NEW) as store:
        check(store, pictures)


# -- interrupted


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch, number: int, *, committed: bool) -> Iterator[None]:
    """Cut the power at the end of the transaction with this number, right before or right after its commit."""
    numbers = itertools.count(1)
    genuine = Database.transaction

    @contextmanager
    def transaction(database: Database) -> Iterator[None]:
        this = next(numbers)
        with genuine(database):
            yield
            if this == number and not committed:
                raise PowerCut
        if this == number:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", transaction)
        yield


@pytest.mark.parametrize("committed", [False, True])
def test_a_power_cut_at_any_transaction_is_resumed_by_the_next_start(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        pictures = made(folder, clock, "old")
        store = open_store(folder, clock, **BOTH)
        try:
            with power_cut(monkeypatch, number, committed=committed):
                store.rotate(actor="test", batch=2)
        except PowerCut:
            crash(store)
        else:
            crash(store)
            break
        with open_store(folder, clock, **BOTH) as store:
            running = store.rotation is Rotation.RUNNING
            check(store, pictures)
            assert store.recover().rotation_finished is running
            if store.rotation is Rotation.DUE:
                store.rotate(actor="test")
            assert store.rotation is Rotation.DONE
            check(store, pictures)
        open_store(folder, clock, key=NEW).close()
    assert number > 8  # the cut was made at each of them


def test_a_power_cut_between_the_last_commit_and_the_wipe_leaves_no_trace_after_the_next_start(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(state_dir, clock, "old")
    store = open_store(state_dir, clock, **BOTH)
    wrapped = [row["wrapped_key"] for row in store._database.execute("SELECT wrapped_key FROM users")]

    def cut() -> None:
        raise PowerCut

    monkeypatch.setattr(store, "_wipe", cut)
    with pytest.raises(PowerCut):
        store.rotate(actor="test")
    assert all(blob in every_byte(state_dir) for blob in wrapped)
    crash(store)
    with open_store(state_dir, clock, key=NEW) as store:
        store.recover()
        assert not [blob for blob in wrapped if blob in every_byte(state_dir)]


ROTATOR = """
import sys
from pathlib import Path
from tests.outbox.fakes import FakeClock, open_store
store = open_store(Path(sys.argv[1]), FakeClock(), key=b"n" * 32, previous_key=b"o" * 32)
print("open", flush=True)
store.begin_rotation(actor="test")
print("began", flush=True)
while not store.rotate_step(batch=1):
    print("step", flush=True)
"""


def test_a_rotation_that_is_killed_again_and_again_ends_with_everything_readable(
    state_dir: Path, clock: FakeClock
) -> None:
    pictures = made(state_dir, clock, "old")
    chance = random.Random(20300601)
    for _ in range(5):
        command = [sys.executable, "-c", ROTATOR, str(state_dir)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout
            for _ in range(chance.randint(1, 6)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        with open_store(state_dir, clock, **BOTH) as store:  # not recovered: the next process goes on
            check(store, pictures)
    with open_store(state_dir, clock, **BOTH) as store:
        store.recover()
        assert store.rotation is Rotation.DONE
        check(store, pictures)


def test_a_full_disk_keeps_a_rotation_for_later_and_the_store_open(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = made(state_dir, clock, "half")
    with open_store(state_dir, clock, **BOTH) as store:

        def full(**_: Any) -> bool:
            raise StorageError("cannot write", code="storage_full")

        with monkeypatch.context() as patch:
            patch.setattr(store, "rotate_step", full)
            assert not store.recover().rotation_finished
        assert store.rotation.value == "running"
        check(store, pictures)
        store.tick()
        assert store.rotation.value == "done"


# -- what was tampered with, and what an old key is still good for


def test_what_does_not_authenticate_is_left_alone_and_named_as_before(state_dir: Path, clock: FakeClock) -> None:
    pictures = made(state_dir, clock, "old")
    with open_store(state_dir, clock, **BOTH) as store:
        record = pending(store, "mallory")
        victim = pending(store, "victim")
        with store._database.transaction():
            store._database.execute("UPDATE verifications SET attempts = 9 WHERE id = :id", id=record.id)
            of_victim = bytes.fromhex(victim.user_hmac)
            store._database.execute("UPDATE users SET wrapped_key = x'01' WHERE user_hmac = :u", u=of_victim)
        assert store.rotate(actor="test").left_alone == 2
        assert store.verify().problems.keys() == {record.id, victim.id}
        for id_ in (record.id, victim.id):
            with pytest.raises(StorageError) as caught:
                store.get(id_)
            assert caught.value.code == "tampered"
        assert {key: store.payload(key) for key in pictures} == pictures
        assert store.verify_audit().ok


def test_a_row_forged_with_the_old_row_key_is_believed_before_the_rotation_only(
    state_dir: Path, clock: FakeClock
) -> None:
    with open_store(state_dir, clock, key=OLD) as store:
        record = capture(store)
        stolen, generation = store._keys.row, store._keys.row_generation

    def forge(store: Store) -> None:
        row = dict(store._query("by_id", id=record.id).fetchone())
        forged = {**row, "state": "verified", "positive": 1, "mac_generation": generation}
        sql = "UPDATE verifications SET state = 'verified', positive = 1, mac_generation = :g, mac = :m WHERE id = :id"
        seal = row_mac(stolen, "verifications", forged)
        with store._database.transaction():
            store._database.execute(sql, g=generation, m=seal, id=record.id)

    with open_store(state_dir, clock, **BOTH) as store:
        with pytest.raises(PowerCut):
            forge_and_roll_back(store, forge, record.id)
        store.rotate(actor="test")
        forge(store)
        with pytest.raises(StorageError) as caught:
            store.get(record.id)
        assert caught.value.code == "tampered"


def forge_and_roll_back(store: Store, forge: Any, id_: str) -> None:
    """The forgery is good: with the old key in force it is believed."""
    before = dict(store._query("by_id", id=id_).fetchone())
    forge(store)
    assert store.get(id_).state is State.VERIFIED
    with store._database.transaction():
        sql = "UPDATE verifications SET state = :state, positive = NULL, mac = :mac WHERE id = :id"
        store._database.execute(sql, state=before["state"], mac=before["mac"], id=id_)
    raise PowerCut


def audit_rows(store: Store) -> list[dict[str, Any]]:
    return [dict(row) for row in store._database.execute("SELECT * FROM audit ORDER BY seq")]


def forged_record(store: Store, stolen: bytes, generation: int, previous: dict[str, Any]) -> dict[str, Any]:
    """A record that follows ``previous``, made with an audit key of that generation."""
    record = {**previous, "seq": previous["seq"] + 1, "event": "verdict", "key_generation": generation}
    columns = [value for name, value in record.items() if name != "mac"]
    return {**record, "mac": mac(stolen, "audit", previous["mac"], *columns)}


@pytest.mark.parametrize("cut", ["at the end", "before the rotation"])
def test_an_audit_record_made_with_a_key_that_was_rotated_away_is_found(
    state_dir: Path, clock: FakeClock, cut: str
) -> None:
    made(state_dir, clock, "new")
    with open_store(state_dir, clock, key=NEW) as store:
        rows = audit_rows(store)
        assert store.verify_audit().ok
        began = next(n for n, row in enumerate(rows) if row["event"] == "key_rotation_began")
        last = rows[-1] if cut == "at the end" else rows[began - 1]
        record = forged_record(store, store._keys.audits[1], 1, last)
        with store._database.transaction():
            store._database.execute("DELETE FROM audit WHERE seq > :seq", seq=last["seq"])
            store._query("append_audit", **record)
        report = store.verify_audit()
        assert (report.ok, report.first_bad) == (False, record["seq"] + (cut != "at the end"))
        assert "rotat" in str(report.problem)


def test_an_anchor_is_signed_anew_and_one_made_with_an_old_key_leads_nowhere(state_dir: Path, clock: FakeClock) -> None:
    made(state_dir, clock, "old")
    with open_store(state_dir, clock, **BOTH) as store:
        third = audit_rows(store)[2]["mac"]
        prune(store, store._keys.audits[1], third)
        assert store.verify_audit().ok
        store.rotate(actor="test")
        assert store.verify_audit().ok
        prune(store, store._keys.audits[1], third)
        assert store.verify_audit().first_bad == 4


def prune(store: Store, key: bytes, chain_mac: bytes) -> None:
    signed = mac(key, "anchor", 3, chain_mac, "pruned", "2030-06-01")
    sql = "INSERT OR REPLACE INTO audit_anchors VALUES (3, :chain_mac, 'pruned', '2030-06-01', 1, :mac)"
    with store._database.transaction():
        store._database.execute(sql, chain_mac=chain_mac, mac=signed)
        store._database.execute("DELETE FROM audit WHERE seq <= 3")


def test_the_copy_of_the_sealed_secrets_is_renewed_at_both_ends_and_at_every_start(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(state_dir, clock, "old")
    seen: list[tuple[int, int]] = []

    def note(store: Store) -> None:
        seen.append((store._keys.generation, len(store._keys.devices)))

    monkeypatch.setattr(Store, "_keys_changed", note)
    with open_store(state_dir, clock, **BOTH) as store:
        store.recover()
        store.rotate(actor="test")
    assert seen == [(1, 1), (2, 2), (2, 1)]


def test_the_keys_in_use_are_not_shown(store: Store) -> None:
    shown = repr(store._keys)
    assert "StoreKeys(" in shown
    assert not [key for key in (store._keys.lookup, store._keys.row, store._keys.audits[1]) if repr(key) in shown]
