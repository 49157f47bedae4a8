"""What is erased is gone from every file, and what is stored is never readable there."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import InputError
from edge_agent.outbox import Store
from edge_agent.outbox.records import Consent
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, capture, finish, lease, open_store, pending, picture, reopen, search

pytestmark = pytest.mark.arm

USER = "customer-4711-jane-roe"
OTHER = "customer-0815-john-doe"
SECRETS = ("order-99-of-jane", "consent-form-jane", "no such user: " + USER)


def every_byte(state_dir: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in state_dir.rglob("*") if file.is_file()}


def found_in(files: dict[str, bytes], needle: bytes) -> list[str]:
    return [name for name, content in files.items() if needle in content]


def slices_found(files: dict[str, bytes], blob: bytes) -> list[str]:
    """Files that hold any 32-byte slice of the blob, looked for at every offset of the files."""
    slices = {blob[i : i + 32] for i in range(0, len(blob) - 32, 32)}
    return [
        name
        for name, content in files.items()
        if any(content[i : i + 32] in slices for i in range(max(0, len(content) - 31)))
    ]


def ciphertexts(store: Store, user: str) -> dict[str, bytes]:
    user_hmac = bytes.fromhex(store.user_hmac(user))
    row = store._database.execute("SELECT * FROM users WHERE user_hmac = :u", u=user_hmac).fetchone()
    blobs = {"wrapped key": row["wrapped_key"], "user id": row["user_id"]}
    sql = "SELECT p.* FROM payloads p JOIN verifications v USING (seq) WHERE v.user_hmac = :u"
    for payload in store._database.execute(sql, u=user_hmac):
        blobs |= {f"row key {payload['seq']}": payload["row_key"], f"picture {payload['seq']}": payload["picture"]}
    for row in store._database.execute("SELECT * FROM verifications WHERE user_hmac = :u", u=user_hmac):
        blobs |= {f"{name} {row['seq']}": row[name] for name in ("private", "error_detail") if row[name]}
    return blobs


def fill(store: Store) -> None:
    consent = Consent(SECRETS[1], ("verification",))
    pending(store, USER, jpeg=picture("one", 20_000), reference=SECRETS[0], consent=consent)
    leased = lease(store)
    store.release(leased.record.id, leased.lease, next_attempt_in_s=5, code="network", detail=SECRETS[2])
    capture(store, USER, jpeg=picture("two", 20_000))
    pending(store, OTHER, jpeg=picture("three", 20_000))


def test_no_picture_and_no_user_id_is_readable_in_any_file(store: Store, state_dir: Path) -> None:
    fill(store)
    files = every_byte(state_dir)
    assert any(name.endswith("-wal") and content for name, content in files.items())
    for name in ("one", "two", "three"):
        assert not slices_found(files, picture(name, 20_000))
    for text in (USER, OTHER, *SECRETS):
        assert not found_in(files, text.encode())


def test_after_a_user_is_destroyed_no_key_and_no_ciphertext_of_it_is_left(store: Store, state_dir: Path) -> None:
    fill(store)
    blobs, others = ciphertexts(store, USER), ciphertexts(store, OTHER)
    files = every_byte(state_dir)
    assert len(blobs) == 8
    assert all(found_in(files, blob[:32]) for blob in blobs.values())  # the search can find them
    destroyed = store.delete_user(USER)
    assert (destroyed.captures, destroyed.records, destroyed.traces_left) == (2, 2, False)
    files = every_byte(state_dir)
    assert not [name for name, blob in blobs.items() if found_in(files, blob[:32]) or slices_found(files, blob)]
    assert all(found_in(files, blob[:32]) for blob in others.values())
    assert store.verify().ok and store.verify_audit().ok


@pytest.mark.parametrize("how", ["delete_user", "withdraw"])
def test_no_copy_of_a_destroyed_key_is_left_where_pages_were_split(store: Store, state_dir: Path, how: str) -> None:
    # SQLite copies rows when it splits a page and leaves the old bytes in the page's unused middle
    store._keys = replace(store._keys, lookup=bytes(32))  # so that the pages are split where they were last time
    with store._database.transaction():
        for number in range(3000):
            store._ensure_user(store._keys.user_hmac(f"user-{number}"), "x" * (number * 7 % 160))
    rows = store._database.execute("SELECT user_hmac, wrapped_key FROM users").fetchall()
    wrapped = {row["user_hmac"]: row["wrapped_key"] for row in rows}
    store._wipe()
    file = (state_dir / "outbox.db").read_bytes()
    split = [number for number in range(3000) if file.count(wrapped[store._keys.user_hmac(f"user-{number}")]) > 1]
    assert split  # otherwise this test shows nothing: take more users
    for number in split:
        if how == "delete_user":
            store.delete_user(f"user-{number}")
        else:
            store.withdraw(search(store, f"user-{number}").id)
    left = every_byte(state_dir)
    assert not [n for n in split if found_in(left, wrapped[store._keys.user_hmac(f"user-{n}")])]


def test_the_records_of_a_destroyed_user_name_nobody(store: Store) -> None:
    capture(store, USER)
    verified = finish(store, lease(store))
    open_one = pending(store, USER, reference="order")
    store.delete_user(USER)
    after = store.get(open_one.id)
    assert (after.state, after.erased, after.user_id, after.reference) == (State.DELETED, True, None, None)
    kept = store.get(verified.id)
    assert (kept.state, kept.erased, kept.user_id, kept.verdict) == (State.VERIFIED, True, None, None)


def test_a_destroyed_user_can_come_back_as_new(store: Store) -> None:
    old = pending(store, USER)
    store.delete_user(USER)
    new = pending(store, USER)
    assert (store.get(old.id).user_id, store.get(new.id).user_id) == (None, USER)
    assert store.payload(new.id) == picture(new.id)


def test_destroying_an_unknown_user_leaves_a_record_all_the_same(store: Store) -> None:
    destroyed = store.delete_user("nobody")
    assert (destroyed.captures, destroyed.records) == (0, 0)
    assert store.verify_audit().ok


def test_a_destruction_cut_short_is_finished_at_the_next_start(
    store: Store, state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    blobs = ciphertexts(store, USER)

    def power_cut(_: bytes) -> tuple[int, int]:
        raise RuntimeError("power cut")

    monkeypatch.setattr(store, "_erase_rows", power_cut)
    with pytest.raises(RuntimeError):
        store.delete_user(USER)
    store = reopen(store, state_dir, clock)
    files = every_byte(state_dir)
    assert not [name for name, blob in blobs.items() if found_in(files, blob[:32])]
    assert store.counts()[State.DELETED] == 2
    store.close()


def test_a_withdrawn_capture_is_deleted_and_leaves_no_trace(store: Store, state_dir: Path) -> None:
    record = pending(store, USER, jpeg=picture("one", 20_000), reference=SECRETS[0])
    blobs = ciphertexts(store, USER)
    after = store.withdraw(record.id)
    assert (after.state, after.user_id, after.image_sha256) == (State.DELETED, None, None)
    files = every_byte(state_dir)
    assert not [name for name, blob in blobs.items() if found_in(files, blob[:32])]
    assert store.withdraw(record.id) == store.get(record.id)


def test_withdrawing_one_capture_leaves_the_users_others(store: Store) -> None:
    first, second = pending(store, USER), pending(store, USER)
    store.withdraw(first.id)
    assert store.payload(second.id) == picture(second.id)
    assert store.get(second.id).user_id == USER


@pytest.mark.parametrize("before", ["searching", "captured", "matching", "pending", "parked"])
def test_consent_can_be_withdrawn_in_every_open_state(store: Store, before: str) -> None:
    record = search(store, USER) if before == "searching" else capture(store, USER)
    if before in {"pending", "parked"}:
        store.pend(record.id)
    if before in {"matching", "parked"}:
        leased = lease(store)
    if before == "parked":
        store.park(record.id, leased.lease, code="unknown_user")
    assert store.withdraw(record.id).state is State.DELETED
    assert store.queue().payload_items == 0
    assert store.lease_next(record.environment, lease_s=60) is None
    assert store.verify().ok


def test_a_reader_in_the_way_leaves_traces_until_a_later_tick(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.database.BUSY_TIMEOUT_S", 0.0)
    with open_store(state_dir, clock) as store:
        fill(store)
        reader = sqlite3.connect(state_dir / "outbox.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM payloads").fetchone()
        blobs = ciphertexts(store, USER)
        assert store.delete_user(USER).traces_left
        reader.close()
        store.tick()
        assert not store.erasure_pending
        files = every_byte(state_dir)
        assert not [name for name, blob in blobs.items() if found_in(files, blob[:32])]


def test_the_picture_of_a_verdict_is_gone_from_the_files_after_the_next_tick(store: Store, state_dir: Path) -> None:
    capture(store, USER, jpeg=picture("one", 20_000))
    blobs = {k: v for k, v in ciphertexts(store, USER).items() if "picture" in k or "row key" in k}
    finish(store, lease(store))
    store.tick()
    assert len(blobs) == 2
    assert not [name for name, blob in blobs.items() if slices_found(every_byte(state_dir), blob)]


def test_no_user_key_outlives_its_transaction(store: Store) -> None:
    pending(store, "alice")
    assert store._user_keys is None
    with pytest.raises(InputError):
        store.cancel("unknown")
    assert store._user_keys is None, "nor one that failed"


def test_a_destroyed_key_opens_nothing_in_the_transaction_that_destroys_it(store: Store) -> None:
    record = pending(store, "alice")
    user_hmac = bytes.fromhex(record.user_hmac)
    with store._change():
        assert store._user_key(user_hmac) is not None
        store._delete_user(user_hmac)
        assert store._user_key(user_hmac) is None
