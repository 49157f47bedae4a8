"""Each purpose keeps what it holds for as long as it may, and not longer; what goes leaves a record and no trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import Config, InvalidConfiguration, parse
from edge_agent.errors import InputError
from edge_agent.outbox import Store, audit
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.core import Listener
from edge_agent.outbox.records import AuditReport, Limits, VerificationRecord
from edge_agent.outbox.salvage import salvage
from edge_agent.outbox.structure import Structure
from edge_agent.types import State
from tests.outbox.fakes import KEY, FakeClock, finish, lease, open_store, pending, reopen, request, search
from tests.outbox.test_erasure import ciphertexts, every_byte, found_in

pytestmark = pytest.mark.arm

DAY_S = 86_400.0
HOUR_S = 3_600.0
LIMITS = Limits()


def ended(store: Store, user: str = "alice", **values: object) -> VerificationRecord:
    pending(store, user, **values)
    return finish(store, lease(store))


def age(store: Store, clock: FakeClock, days: float) -> None:
    """Let days go by; housekeeping runs at the end of them."""
    clock.advance(days * DAY_S)
    store.tick()


def events(store: Store, event: str) -> list[dict[str, object]]:
    rows = store._database.execute("SELECT * FROM audit WHERE event = :event ORDER BY seq", event=event).fetchall()
    return [dict(row) for row in rows]


def sound(store: Store, state_dir: Path) -> bool:
    with Structure(state_dir, SystemClock()) as structure:
        return store.verify().ok and store.verify_audit().ok and not structure.check().problems


# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_an_ended_verification_names_nobody_once_its_period_is_over(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    record = ended(store, "jane-roe", reference="order-of-jane")
    blobs = ciphertexts(store, "jane-roe")
    age(store, clock, 29.9)
    assert store.get(record.id).user_id == "jane-roe"
    age(store, clock, 0.1)
    after = store.get(record.id)
    assert (after.state, after.erased, after.user_id, after.reference, after.verdict) == (
        State.VERIFIED, True, None, None, None,
    )  # fmt: skip
    files = every_byte(state_dir)
    assert len(blobs) == 3
    assert [name for name, blob in blobs.items() if found_in(files, blob[:32])] == []
    assert store.verdicts_of("jane-roe") == []
    assert [(e["verification_id"], e["detail"]) for e in events(store, "erase")] == [
        (record.id, '{"max_age_s": 2592000.0, "purpose": "verdict"}')
    ]
    assert sound(store, state_dir)


def test_the_period_of_a_verdict_begins_at_its_end(store: Store, clock: FakeClock) -> None:
    store.limits = replace(LIMITS, max_age_s=90 * DAY_S)
    record = pending(store)
    age(store, clock, 40)
    finish(store, lease(store))
    age(store, clock, 29)
    assert not store.get(record.id).erased
    age(store, clock, 1)
    assert store.get(record.id).erased


@pytest.mark.parametrize("how", ["searching", "pending", "parked"])
def test_what_has_not_ended_is_left_to_the_period_of_captures(store: Store, clock: FakeClock, how: str) -> None:
    store.limits = replace(LIMITS, max_age_s=90 * DAY_S)
    record = search(store) if how == "searching" else pending(store)
    if how == "parked":
        store.park(record.id, lease(store).lease, code="unknown_user")
    age(store, clock, 80)
    assert not store.get(record.id).erased


def test_a_users_key_goes_with_the_last_verification_that_needs_it(store: Store, clock: FakeClock) -> None:
    ended(store)
    age(store, clock, 20)
    second = ended(store)
    age(store, clock, 10)
    assert store.get(second.id).user_id == "alice"
    age(store, clock, 20)
    assert store._database.execute("SELECT count(*) FROM users").fetchone()[0] == 0


def test_a_row_that_was_tampered_with_goes_too_and_the_log_says_so(store: Store, clock: FakeClock) -> None:
    record = ended(store)
    store._database.execute("UPDATE verifications SET caller = 'uid:666' WHERE id = :id", id=record.id)
    age(store, clock, 30)
    assert store.get(record.id).erased
    assert '"tampered": true' in str(events(store, "erase")[0]["detail"])


def test_nobody_is_told_of_what_ended_long_ago(state_dir: Path, clock: FakeClock) -> None:
    told: list[str] = []
    listener: Listener = lambda record: told.append(record.id)  # noqa: E731 - one line says it
    with open_store(state_dir, clock, listener=listener) as store:
        record = ended(store)
        told.clear()
        age(store, clock, 30)
        assert store.get(record.id).erased
    assert told == []


def test_many_are_swept_a_slice_at_a_time(store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.outbox.sweep._SLICE", 4)
    monkeypatch.setattr("edge_agent.outbox.sweep._BATCH", 3)
    made = [store.cancel(search(store, f"user-{n}").id) for n in range(10)]
    clock.advance(30 * DAY_S)
    left = []
    for _ in range(4):
        store.tick()
        left.append(sum(not store.get(record.id).erased for record in made))
    assert left == [6, 2, 0, 0]
    later = store.cancel(search(store, "later").id)
    age(store, clock, 30)  # more slices than one, from the beginning again
    for _ in range(4):
        store.tick()
    assert store.get(later.id).erased


def test_many_are_destroyed_over_several_ticks_or_at_once_on_demand(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.sweep._DESTROYED_AT_ONCE", 4)
    for number in range(11):
        store.cancel(search(store, f"user-{number}").id)
    clock.advance(30 * DAY_S)
    store.tick()
    assert len(events(store, "erase")) == 4
    assert store.sweep().verdicts == 7
    assert store.sweep().verdicts == 0
    clock.advance(365 * DAY_S)
    swept = store.sweep()
    assert (swept.audit_records > 20, swept.traces_left, store.verify_audit().ok) == (True, False, True)


def test_it_is_swept_once_an_hour(store: Store, clock: FakeClock) -> None:
    record = ended(store)
    age(store, clock, 30 - 0.5 / 24)
    clock.advance(0.75 * HOUR_S)
    store.tick()
    assert not store.get(record.id).erased
    clock.advance(0.25 * HOUR_S)
    store.tick()
    assert store.get(record.id).erased


def test_a_deletion_that_was_cut_short_is_finished_by_a_sweep_where_no_agent_starts(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    record = pending(store)
    store._destroy_key(store._keys.user_hmac("alice"), None)  # and the power fails
    store.close()
    with open_store(state_dir, clock) as alone:
        alone.sweep()
        assert (alone.get(record.id).state, alone.queue().payload_items) == (State.DELETED, 0)
        assert sound(alone, state_dir)


# -- the audit log ----------------------------------------------------------------------------------------------------


def test_the_log_is_cut_off_with_a_signed_anchor_and_the_rows_go_with_their_records(
    store: Store, state_dir: Path, clock: FakeClock
) -> None:
    old = ended(store)
    age(store, clock, 30)
    age(store, clock, 70)
    young = ended(store, "bob")
    age(store, clock, 295)
    records = store.verify_audit().records
    with pytest.raises(InputError, match="none with this id"):
        store.describe(old.id)
    assert store.get(young.id).erased
    (cut,) = events(store, "audit_pruned")
    first = store._database.execute("SELECT min(seq) FROM audit").fetchone()[0]
    assert f'"last": {first - 1}' in str(cut["detail"])
    assert '"verifications": 1' in str(cut["detail"])
    assert len(store.describe(young.id).history) == 7
    assert records == store._database.execute("SELECT count(*) FROM audit").fetchone()[0]
    assert sound(store, state_dir)
    store._database.execute("UPDATE audit_anchors SET seq = seq - 1")
    assert not store.verify_audit().ok


def test_a_log_that_does_not_verify_is_not_cut_off(store: Store, clock: FakeClock) -> None:
    ended(store)
    age(store, clock, 100)
    store._database.execute("DROP TRIGGER audit_is_append_only")
    store._database.execute("UPDATE audit SET event = 'nothing' WHERE seq = 3")
    age(store, clock, 300)
    assert store._database.execute("SELECT min(seq) FROM audit").fetchone()[0] == 1
    assert store.verify_audit().first_bad == 3


def test_a_walk_in_parts_over_a_log_that_is_cut_off_meanwhile_finds_nothing_wrong(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PART", 3)
    ended(store)
    clock.advance(31 * DAY_S)
    store.sweep()
    walked = store.walk_audit(None, None)
    clock.advance(335 * DAY_S)
    store.sweep()
    while not isinstance(walked, AuditReport):
        walked = store.walk_audit(walked, None)
    assert (walked.ok, walked.problem) == (True, None)


def test_a_record_that_a_living_row_refers_to_stays(store: Store, state_dir: Path, clock: FakeClock) -> None:
    store.limits = replace(LIMITS, max_age_s=1000 * DAY_S)
    ended(store)
    waiting = pending(store, "bob")
    age(store, clock, 400)
    assert store._database.execute("SELECT min(seq) FROM audit").fetchone()[0] > 1
    assert store.get(waiting.id).user_id == "bob"
    assert sound(store, state_dir)


def test_a_key_is_still_known_when_its_verification_is_gone(store: Store, clock: FakeClock) -> None:
    asked = request("alice")
    record = store.create(asked)[0]
    store.cancel(record.id)
    age(store, clock, 31)
    age(store, clock, 365)
    assert store.counts()[State.CANCELLED] == 0
    with pytest.raises(InputError) as refused:
        store.create(asked)
    assert refused.value.code == "idempotency_expired"
    tombstone = store._database.execute("SELECT verification_id FROM idempotency").fetchone()
    assert tombstone["verification_id"] == ""
    assert store.verify().ok


def test_a_long_log_is_cut_off_in_steps(store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.outbox.sweep._PRUNED_AT_ONCE", 10)
    for number in range(60):
        store.note("noise", number=number)
    clock.advance(365 * DAY_S)
    firsts = []
    for _ in range(3):
        store.tick()
        firsts.append(store._database.execute("SELECT min(seq) FROM audit").fetchone()[0])
        assert store.verify_audit().ok
    assert firsts == [41, 62, 62]


def test_retention_survives_a_restart_a_rotation_and_a_salvage(store: Store, state_dir: Path, clock: FakeClock) -> None:
    ended(store)
    age(store, clock, 31)
    age(store, clock, 365)
    kept = ended(store, "bob")
    store = reopen(store, state_dir, clock, key=bytes(range(1, 33)), previous_key=KEY)
    store.rotate(actor="uid:0")
    assert sound(store, state_dir)
    store.close()
    report = salvage(state_dir, bytes(range(1, 33)), clock=clock)
    assert (report.captures_lost, report.states_lost, report.audit_gaps) == ((), (), ())
    assert {name: count.lost for name, count in report.tables.items() if count.lost} == {}
    with open_store(state_dir, clock, key=bytes(range(1, 33))) as store:
        assert store.get(kept.id).user_id == "bob"
        assert store.verify().ok
        assert store.verify_audit().ok


# -- the settings -----------------------------------------------------------------------------------------------------

SERVICE = {
    "base_url": "https://staging.example/",
    "merchant_id": "0" * 24,
    "api_key": {"env": "API_KEY"},
    "upload_hosts": ["uploads.example"],
}


@pytest.mark.parametrize(
    ("outbox_s", "days", "expected_s"), [(259_200, None, 259_200), (259_200, 1, DAY_S), (3_600, 1, 3_600)]
)
def test_of_two_periods_for_a_picture_the_shorter_counts(outbox_s: int, days: float | None, expected_s: float) -> None:
    sections = {"outbox": {"max_age_s": outbox_s}, "retention": {"capture_days": days}}
    assert Limits.of(Config.model_validate({"cypherface": SERVICE, **sections})).max_age_s == expected_s


def test_the_defaults_of_the_store_are_those_of_the_configuration() -> None:
    configured = Limits.of(Config.model_validate({"cypherface": SERVICE}))
    assert configured == Limits()
    assert (configured.verdict_age_s, configured.audit_age_s) == (30 * DAY_S, 365 * DAY_S)


@pytest.mark.parametrize("name", ["capture_days", "template_days", "verdict_days"])
def test_the_log_must_outlive_what_it_tells_of(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="audit_days must not be shorter"):
        parse(f"cypherface: {json.dumps(SERVICE)}\nretention: {{{name}: 40, audit_days: 39}}")
