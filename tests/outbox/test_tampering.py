"""Whatever is changed from outside is noticed, named, and does not stop the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import InputError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.crypto import mac
from edge_agent.outbox.records import AuditHead
from tests.outbox.fakes import (
    ENVIRONMENT,
    FakeClock,
    capture,
    crash,
    finish,
    lease,
    open_store,
    pending,
    picture,
    reopen,
    request,
    upload,
    verdict,
)

pytestmark = pytest.mark.arm


def execute(store: Store, sql: str, **values: object) -> None:
    changed = store._database.execute(sql, **values).rowcount
    assert changed > 0


STATE_CHANGES = {
    "the state": "state = 'verified'",
    "a late verdict": "late = 1",
    "the deadline": "deadline_boottime_s = 1e9",
    "the environment": "environment = 'm https://evil.example/'",
    "the owner": "caller = 'uid:666'",
    "the order": "seq = 1000",
    "an emptied column": "private = NULL",
    "the attempts": "attempts = 0.5 + 0.5 + 7",
}


@pytest.mark.parametrize("change", STATE_CHANGES)
def test_a_changed_state_row_is_refused_by_name(store: Store, change: str) -> None:
    record = pending(store, "a", reference="order 1")
    if change == "the order":
        store._database.execute("PRAGMA foreign_keys = OFF")
    execute(store, f"UPDATE verifications SET {STATE_CHANGES[change]} WHERE id = :id", id=record.id)
    with pytest.raises(StorageError, match=f"cannot trust verification {record.id}: its mac is wrong") as caught:
        store.get(record.id)
    assert caught.value.code == "tampered"
    assert record.id in store.verify().problems


def test_a_changed_row_does_not_stop_the_others(store: Store, state_dir: Path, clock: FakeClock) -> None:
    bad, good = pending(store, "a"), pending(store, "b")
    execute(store, "UPDATE verifications SET attempts = 7 WHERE id = :id", id=bad.id)
    assert lease(store).record.id == good.id
    assert store.tampered == {bad.id}
    assert [record.id for record in store.list()] == [good.id]
    store.tick()
    store = reopen(store, state_dir, clock)
    assert lease(store).record.id == good.id
    store.close()


def test_a_row_put_back_to_an_earlier_state_is_found(store: Store) -> None:
    capture(store)
    leased = lease(store)
    old = dict(store._database.execute("SELECT * FROM verifications").fetchone())
    finish(store, leased, positive=False)
    columns = ", ".join(f"{name} = :{name}" for name in old)
    execute(store, f"UPDATE verifications SET {columns}, image_bytes = image_bytes", **old)
    problems = store.verify().problems
    assert list(problems) == [leased.record.id]


def test_a_changed_picture_is_refused(store: Store) -> None:
    record = capture(store)
    store._database.execute("DROP TRIGGER payloads_never_change")
    row = store._database.execute("SELECT picture FROM payloads").fetchone()
    changed = bytearray(row["picture"])
    changed[len(changed) // 2] ^= 1
    execute(store, "UPDATE payloads SET picture = :picture", picture=bytes(changed))
    with pytest.raises(StorageError, match="its picture does not authenticate"):
        store.payload(record.id)
    assert record.id in store.verify().problems


def test_pictures_swapped_between_two_captures_are_refused(store: Store) -> None:
    first, second = capture(store, "a"), capture(store, "a")
    store._database.execute("DROP TRIGGER payloads_never_change")
    rows = store._database.execute("SELECT * FROM payloads ORDER BY seq").fetchall()
    for seq, other in ((rows[0]["seq"], rows[1]), (rows[1]["seq"], rows[0])):
        sql = "UPDATE payloads SET row_key = :row_key, picture = :picture WHERE seq = :seq"
        execute(store, sql, seq=seq, row_key=other["row_key"], picture=other["picture"])
    for record in (first, second):
        with pytest.raises(StorageError) as caught:
            store.payload(record.id)
        assert caught.value.code == "tampered"


def test_a_missing_picture_is_tampering_not_an_empty_answer(store: Store) -> None:
    record = capture(store)
    execute(store, "DELETE FROM payloads")
    with pytest.raises(StorageError, match="it is missing"):
        store.payload(record.id)


def test_pictures_are_never_updated_and_the_audit_log_neither(store: Store) -> None:
    capture(store)
    for table in ("payloads SET bytes = 1", "audit SET event = 'x'"):
        with pytest.raises(StorageError), store._database.transaction():
            store._database.execute(f"UPDATE {table}")


def test_a_user_id_replaced_by_anothers_is_refused(store: Store) -> None:
    victim, other = pending(store, "victim"), pending(store, "other")
    sql = "UPDATE users SET user_id = (SELECT user_id FROM users WHERE user_hmac = :other) WHERE user_hmac = :victim"
    execute(store, sql, victim=bytes.fromhex(victim.user_hmac), other=bytes.fromhex(other.user_hmac))
    with pytest.raises(StorageError, match="its user id does not authenticate"):
        store.get(victim.id)
    assert lease(store).record.id == other.id


def test_an_idempotency_key_pointed_at_another_verification_is_refused(store: Store) -> None:
    new = request("a", idempotency_key="k")
    store.create(new)
    other, _ = store.create(request("b", idempotency_key="l"))
    execute(store, "UPDATE idempotency SET verification_id = :id", id=other.id)
    with pytest.raises(StorageError) as caught:
        store.create(new)
    assert caught.value.code == "tampered"


def test_a_forged_upload_mark_brings_no_verdict(store: Store) -> None:
    capture(store)
    leased = lease(store)
    upload(store, leased, "image")
    execute(store, "UPDATE upload_marks SET image_name = 'forged'")
    with pytest.raises(StorageError) as caught:
        store.commit_verdict(leased.record.id, leased.lease, verdict(leased, "forged"))
    assert caught.value.code == "evidence_mismatch"


@pytest.mark.parametrize("name", ["clock", "machine"])
def test_a_changed_fact_about_the_store_is_refused_at_the_start(
    store: Store, state_dir: Path, clock: FakeClock, name: str
) -> None:
    execute(store, "UPDATE meta SET value = x'7b7d' WHERE name = :name", name=name)
    crash(store)
    with pytest.raises(StorageError, match=f"cannot trust meta {name}"):
        open_store(state_dir, clock)


def test_a_changed_store_id_is_a_wrong_key_never_a_new_one(store: Store, state_dir: Path, clock: FakeClock) -> None:
    execute(store, "UPDATE meta SET value = x'00' WHERE name = 'store_id'")
    crash(store)
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock)
    assert caught.value.code == "key_mismatch"


# -- the audit chain


def audited(store: Store) -> int:
    for user in "abc":
        pending(store, user)
    finish(store, lease(store))
    head = store.audit_head()
    assert head is not None and store.verify_audit(head).ok
    store._database.execute("DROP TRIGGER audit_is_append_only")
    return head.seq


AUDIT_CHANGES = {
    "an event": ("UPDATE audit SET event = 'cancel' WHERE seq = 5", 5),
    "a detail": ("UPDATE audit SET detail = '[]' WHERE seq = 4", 4),
    "a time": ("UPDATE audit SET running_s = running_s + 1 WHERE seq = 5", 5),
    "a whole record": ("DELETE FROM audit WHERE seq = 5", 5),
    "the first records": ("DELETE FROM audit WHERE seq <= 2", 1),
    "the order": ("UPDATE audit SET seq = CASE seq WHEN 4 THEN -5 ELSE -4 END WHERE seq IN (4, 5)", 4),
}


@pytest.mark.parametrize("change", AUDIT_CHANGES)
def test_a_change_of_the_audit_log_is_found_where_it_is(store: Store, change: str) -> None:
    audited(store)
    sql, where = AUDIT_CHANGES[change]
    execute(store, sql)
    if change == "the order":
        execute(store, "UPDATE audit SET seq = -seq WHERE seq < 0")
    report = store.verify_audit()
    assert (report.ok, report.first_bad) == (False, where)
    assert report.problem


def test_a_cut_off_end_is_found_against_a_head_kept_elsewhere(store: Store) -> None:
    seq = audited(store)
    head = store.audit_head()
    execute(store, "DELETE FROM audit WHERE seq > :seq", seq=seq - 2)
    report = store.verify_audit(head)
    assert (report.ok, report.first_bad) == (False, seq - 1)
    assert "cut off" in str(report.problem)


def test_a_pruned_log_begins_at_its_signed_anchor_and_a_forged_anchor_leads_nowhere(store: Store) -> None:
    seq = audited(store)
    last = store._database.execute("SELECT mac FROM audit WHERE seq = 3").fetchone()["mac"]
    keys = store._keys.audits
    for key, good in ((keys[1], True), (bytes(32), False)):
        signed = mac(key, "anchor", 3, last, "pruned", "2030-06-01")
        sql = "INSERT OR REPLACE INTO audit_anchors VALUES (3, :last, 'pruned', '2030-06-01', 1, :mac)"
        execute(store, sql, last=last, mac=signed)
        store._database.execute("DELETE FROM audit WHERE seq <= 3")
        report = store.verify_audit()
        assert (report.ok, report.first_bad) == ((True, None) if good else (False, 4))
        assert report.records == (seq - 3 if good else 0)


def test_another_chain_of_the_same_length_is_not_the_noted_one(store: Store) -> None:
    seq = audited(store)
    report = store.verify_audit(AuditHead(seq - 1, "00" * 32))
    assert (report.ok, report.first_bad) == (False, seq - 1)


def test_other_rows_that_were_changed_are_named(store: Store) -> None:
    pending(store, "a")
    upload(store, lease(store), "image")
    store.record_failure("a", "spoof")
    for change in (
        "idempotency SET created_boot_id = 'x'",
        "upload_marks SET until_running_s = 0",
        "failures SET kind = 'x'",
    ):
        execute(store, f"UPDATE {change}")
    assert {name.split(":")[0] for name in store.verify().problems} == {"idempotency", "upload_marks", "failures"}


def test_a_lost_audit_record_shows_in_the_rows_too(store: Store) -> None:
    record = pending(store)
    execute(store, "DELETE FROM audit WHERE seq = :seq", seq=record.audit_seq)
    assert "missing" in store.verify().problems[record.id]


def test_the_head_can_be_told_in_one_word(store: Store) -> None:
    head = store.note("doctor", result="fine")
    assert str(head) == f"{head.seq}:{head.mac}"
    assert head == store.audit_head()


def test_a_rolled_back_change_leaves_no_audit_record(store: Store) -> None:
    before = store.audit_head()
    with pytest.raises(InputError):
        store.cancel("nope")
    record = capture(store)
    with pytest.raises(StorageError):
        store.commit_verdict(record.id, (leased := lease(store)).lease, verdict(leased, "never announced"))
    assert store.verify_audit().ok
    events = [row["event"] for row in store._database.execute("SELECT event FROM audit ORDER BY seq")]
    assert before is not None
    assert events[before.seq :] == ["create", "capture", "lease"]


def test_the_audit_log_holds_the_evidence_and_never_the_servers_words(store: Store) -> None:
    record = pending(store, "jane")
    store.release(record.id, lease(store).lease, next_attempt_in_s=0, code="network", detail="no user jane")
    finish(store, lease(store))
    details = [row["detail"] for row in store._database.execute("SELECT detail FROM audit ORDER BY seq")]
    assert '"liveness_score": 0.97' in "".join(details)
    assert '"similarity": 99.5' in details[-1]
    assert "jane" not in "".join(details)
    assert store.lease_next(ENVIRONMENT, lease_s=1) is None
    assert picture(record.id)
