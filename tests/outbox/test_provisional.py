"""The offline policy in the store: every condition that withholds an answer, what is counted, and what a verdict undoes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.outbox import Store
from edge_agent.outbox.provisional_records import (
    Likeness,
    NewTemplate,
    ProvisionalLimits,
    Withheld,
)
from edge_agent.outbox.records import Consent, Environment, Leased, LeaseLost, Limits, VerificationRecord, approved
from edge_agent.outbox.salvage import salvage
from edge_agent.outbox.templates import superfluous
from edge_agent.types import State
from tests.outbox import fakes
from tests.outbox.fakes import ENVIRONMENT, OTHER_ENVIRONMENT, FakeClock, finish, open_store, reopen

MODEL = "embedder/1"
FACE = bytes(range(64)) * 4
PROVISIONAL = ProvisionalLimits(
    max_amounts={"EUR": Decimal(50), "JPY": Decimal(5000)},
    without_amount=False,
    max_answers=5,
    max_answers_per_user_day=3,
    max_offline_s=8 * 3600.0,
    max_templates=3,
)
WITH_TEMPLATE = Consent("consent-1", ("match", "template"))
HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "provisional"


@pytest.fixture
def store(folder: Path, clock: FakeClock) -> Iterator[Store]:
    with open_store(folder, clock, limits=Limits(provisional=PROVISIONAL, max_failures=0)) as opened:
        yield opened


def limit(store: Store, **changes: Any) -> None:
    store.limits = replace(store.limits, provisional=replace(PROVISIONAL, **changes))


def captured(store: Store, user: str = "alice", **values: Any) -> VerificationRecord:
    defaults: dict[str, Any] = {"consent": WITH_TEMPLATE, "amount": Decimal("12.50"), "currency": "EUR"}
    return fakes.capture(store, user, **(defaults | values))


def lease_of(store: Store, record: VerificationRecord) -> Leased:
    leased = store.lease_one(record.id, lease_s=600.0)
    assert leased is not None
    return leased


def confirm(store: Store, user: str = "alice", **values: Any) -> VerificationRecord:
    """Verified online, in time; then a template is learned of it."""
    record = finish(store, lease_of(store, captured(store, user, **values)))
    store.keep_template(record.id, NewTemplate(FACE, MODEL, 0.8))
    return record


def give_back(store: Store, leased: Leased) -> VerificationRecord:
    return store.release(leased.record.id, leased.lease, next_attempt_in_s=0.0, code="connect", failure="transient")


def like(cosine: float = 0.9, template: str = "", threshold: float = 0.6, model: str = MODEL) -> Likeness:
    return Likeness(template, cosine, threshold, model, "a test")


def answer_to(store: Store, leased: Leased, *, cosine: float = 0.9, model: str = MODEL) -> VerificationRecord:
    """What the forwarder does after a failure to connect, the comparison left out."""
    considered = store.consider(leased.record.id, leased.lease, model)
    if considered.withheld is None:
        assert considered.templates[0].embedding == FACE
        store.answer(leased.record.id, leased.lease, like(cosine, considered.templates[0].id, model=model))
    give_back(store, leased)
    return store.get(leased.record.id)


def offline(store: Store, user: str = "alice", *, cosine: float = 0.9, **values: Any) -> VerificationRecord:
    return answer_to(store, lease_of(store, captured(store, user, **values)), cosine=cosine)


def online(store: Store, record: VerificationRecord, *, positive: bool = True) -> VerificationRecord:
    return finish(store, lease_of(store, record), positive=positive)


def templates(store: Store, user: str = "alice") -> list[Any]:
    return store._templates_of(store._keys.user_hmac(user))


def events(store: Store) -> list[str]:
    return [row["event"] for row in store._database.execute("SELECT event FROM audit ORDER BY seq")]


# -- the answer


def test_whom_cypherface_confirmed_is_answered_offline_and_confirmed_later(store: Store, clock: FakeClock) -> None:
    confirm(store)
    record = offline(store)
    assert (record.state, record.reasons, record.final) == (State.PROVISIONALLY_VERIFIED, (), False)
    assert store.pend(record.id).state is State.PROVISIONALLY_VERIFIED  # the deadline does not take it back
    assert not approved(record, record.created, 120.0)
    assert store.payload(record.id)  # still queued
    clock.advance(60)
    later = online(store, record)
    assert (later.state, later.late, later.contradicted) == (State.VERIFIED, True, False)
    assert not approved(later, later.created, 120.0)
    assert store.verify().ok
    assert store.verify_audit().ok


def test_the_answer_is_audited_with_its_evidence_and_without_a_face(store: Store) -> None:
    confirm(store)
    entry = next(e for e in store.describe(offline(store).id).history if e.event == "answer")
    assert (entry.from_state, entry.to_state) == ("matching", "provisionally_verified")
    (template,) = templates(store)
    expected = {"template": template["id"], "cosine": 0.9, "threshold": 0.6, "model": MODEL, "evidence": "a test"}
    assert entry.detail == expected


# -- every condition that withholds it

Change = Callable[[Store, FakeClock], None]


def _nothing(store: Store, clock: FakeClock) -> None:
    del store, clock


def _unsynchronised(store: Store, clock: FakeClock) -> None:
    del store
    clock.sync = False


def _reboot(store: Store, clock: FakeClock) -> None:
    del store
    clock.reboot(off_s=60.0, sync=False)


def _later(seconds: float) -> Change:
    return lambda _, clock: clock.advance(seconds)


def _long_offline(store: Store, clock: FakeClock) -> None:
    offline(store)
    clock.advance(PROVISIONAL.max_offline_s)


def _answers(number: int, *, same_user: bool) -> Change:
    def change(store: Store, clock: FakeClock) -> None:
        del clock
        for n in range(number):
            user = "alice" if same_user else f"user-{n}"
            if not same_user:
                confirm(store, user)
        for n in range(number):
            user = "alice" if same_user else f"user-{n}"
            assert offline(store, user).state is State.PROVISIONALLY_VERIFIED

    return change


def _refused_online(store: Store, clock: FakeClock) -> None:
    del clock
    online(store, captured(store), positive=False)


def _parked_after_a_yes(store: Store, clock: FakeClock) -> None:
    del clock
    record = offline(store)
    leased = lease_of(store, record)
    store.park(record.id, leased.lease, code="unknown_user", status=404)


def _purged_after_a_yes(store: Store, clock: FakeClock) -> None:
    del clock
    store.purge(offline(store).id, actor="root")


def _withdrawn_after_a_yes(store: Store, clock: FakeClock) -> None:
    del clock
    store.withdraw(offline(store).id, actor="uid:1000")


def _expired_after_a_yes(store: Store, clock: FakeClock) -> None:
    record = offline(store)
    store.limits = replace(store.limits, max_age_s=HOUR)
    clock.advance(HOUR)
    store.tick()
    assert store.get(record.id).state is State.EXPIRED


def _withdrawn(store: Store, clock: FakeClock) -> None:
    del clock
    store.withdraw(store.list(state=State.VERIFIED)[0].id)


def _deleted(store: Store, clock: FakeClock) -> None:
    del clock
    store.delete_user("alice")


def _policy_off(store: Store, clock: FakeClock) -> None:
    del clock
    store.limits = replace(store.limits, provisional=None)


def _end_of_the_policy(store: Store, clock: FakeClock) -> None:
    _policy_off(store, clock)
    store.tick()


def _forged(table: str, column: str, value: object) -> Change:
    def change(store: Store, clock: FakeClock) -> None:
        del clock
        assert store._database.execute(f"UPDATE {table} SET {column} = :value", value=value).rowcount

    return change


CASES: list[tuple[str, Withheld, Change, dict[str, Any]]] = [
    ("the policy is another one", Withheld.UNAVAILABLE, _policy_off, {}),
    ("the clock is not synchronised", Withheld.CLOCK_UNTRUSTED, _unsynchronised, {}),
    ("after a reboot without network", Withheld.CLOCK_UNTRUSTED, _reboot, {}),
    ("no consent", Withheld.NO_CONSENT, _nothing, {"consent": None}),
    ("consent for the match alone", Withheld.NO_CONSENT, _nothing, {"consent": Consent("c", ("match",))}),
    ("CypherFace refused the user since", Withheld.BLOCKED, _refused_online, {}),
    ("an answer was parked unconfirmed", Withheld.BLOCKED, _parked_after_a_yes, {}),
    ("an answer expired unconfirmed", Withheld.BLOCKED, _expired_after_a_yes, {}),
    ("an answer was purged unconfirmed", Withheld.BLOCKED, _purged_after_a_yes, {}),
    ("an answer was withdrawn unconfirmed", Withheld.BLOCKED, _withdrawn_after_a_yes, {}),
    ("no amount", Withheld.AMOUNT_UNKNOWN, _nothing, {"amount": None}),
    ("no currency", Withheld.AMOUNT_UNKNOWN, _nothing, {"currency": None}),
    ("a currency without a limit", Withheld.AMOUNT_UNKNOWN, _nothing, {"currency": "USD"}),
    ("a cent too much", Withheld.AMOUNT_OVER_LIMIT, _nothing, {"amount": Decimal("50.01")}),
    ("too long offline", Withheld.OFFLINE_TOO_LONG, _long_offline, {}),
    ("too many answers", Withheld.COUNT_LIMIT, _answers(5, same_user=False), {}),
    ("too many for this user today", Withheld.USER_LIMIT, _answers(3, same_user=True), {}),
    ("the template is too old", Withheld.NO_TEMPLATE, _later(Limits().template_age_s), {}),
    ("another CypherFace", Withheld.NO_TEMPLATE, _nothing, {"environment": OTHER_ENVIRONMENT}),
    ("never confirmed", Withheld.NO_TEMPLATE, _nothing, {"user": "bob"}),
    ("consent was withdrawn", Withheld.NO_TEMPLATE, _withdrawn, {}),
    ("the user was deleted", Withheld.NO_TEMPLATE, _deleted, {}),
    ("a forged model", Withheld.NO_TEMPLATE, _forged("templates", "model", f"{MODEL}x"), {}),
    ("a forged date", Withheld.NO_TEMPLATE, _forged("templates", "made_running_s", 1e9), {}),
]  # fmt: skip


AS_UNDER_QUEUE = {Withheld.UNAVAILABLE, Withheld.NOT_LIVE, Withheld.NO_CONSENT, Withheld.NO_TEMPLATE}
"""The customer could not have been answered, and may still be verified in time; the others are told at once."""


@pytest.mark.parametrize(("withheld", "change", "values"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_nothing_is_answered_without_every_condition(
    store: Store, clock: FakeClock, withheld: Withheld, change: Change, values: dict[str, Any]
) -> None:
    confirm(store)
    change(store, clock)
    record = offline(store, **({"user": "alice"} | values))
    waits = State.CAPTURED if withheld in AS_UNDER_QUEUE else State.PENDING
    assert (record.state, record.reasons) == (waits, (withheld.value,))
    pending = store.pend(record.id)
    assert (pending.state, pending.reasons) == (State.PENDING, (withheld.value,))
    assert not approved(pending, pending.created, 120.0)
    assert "answer" not in [entry.event for entry in store.describe(record.id).history]
    assert store.verify_audit().ok


def test_the_table_has_every_reason_that_the_store_gives_by_itself() -> None:
    elsewhere = {Withheld.NOT_LIVE, Withheld.FACE_DIFFERS}
    assert {case[1] for case in CASES} | elsewhere == set(Withheld)


@pytest.mark.parametrize(("began", "now"), [(True, False), (False, True)])
def test_the_clock_is_trusted_from_the_beginning_to_the_answer(
    store: Store, clock: FakeClock, began: bool, now: bool
) -> None:
    confirm(store)
    clock.sync = began
    leased = lease_of(store, captured(store))
    clock.sync = now
    assert answer_to(store, leased).reasons == (Withheld.CLOCK_UNTRUSTED,)


@pytest.mark.parametrize("cosine", [0.5999, 0.0, -1.0, float("nan"), float("-inf")])
def test_another_face_is_never_answered(store: Store, cosine: float) -> None:
    confirm(store)
    record = offline(store, cosine=cosine)
    assert (record.state, record.reasons) == (State.PENDING, (Withheld.FACE_DIFFERS,))


@pytest.mark.parametrize("cosine", [0.6, 0.61, 1.0])
def test_the_threshold_itself_is_the_same_face(store: Store, cosine: float) -> None:
    confirm(store)
    assert offline(store, cosine=cosine).state is State.PROVISIONALLY_VERIFIED


def test_who_is_told_pending_at_once_may_still_be_verified_in_time(store: Store, clock: FakeClock) -> None:
    confirm(store)
    record = offline(store, amount=Decimal(51))
    clock.advance(5)
    done = online(store, record)
    assert (done.state, done.late) == (State.VERIFIED, False)
    assert approved(done, done.verdict_instant or done.created, 120.0)


@pytest.mark.parametrize(
    ("amount", "currency"), [(Decimal(50), "EUR"), (Decimal("0.01"), "EUR"), (Decimal(5000), "JPY")]
)
def test_an_amount_up_to_the_limit_is_answered(store: Store, amount: Decimal, currency: str) -> None:
    confirm(store)
    assert offline(store, amount=amount, currency=currency).state is State.PROVISIONALLY_VERIFIED


def test_requests_without_an_amount_are_answered_where_the_operator_says_so(store: Store) -> None:
    confirm(store)
    limit(store, without_amount=True)
    assert offline(store, amount=None, currency=None).state is State.PROVISIONALLY_VERIFIED


def test_only_the_first_attempt_of_a_capture_is_answered(store: Store) -> None:
    confirm(store)
    first = lease_of(store, captured(store))
    give_back(store, first)  # whatever came of it was no failure to connect
    record = answer_to(store, lease_of(store, first.record))
    assert (record.state, record.reasons) == (State.CAPTURED, (Withheld.NOT_LIVE,))


def test_nobody_is_answered_after_the_deadline(store: Store, clock: FakeClock) -> None:
    confirm(store)
    leased = lease_of(store, captured(store))
    clock.advance(15.1)
    record = answer_to(store, leased)
    assert (record.state, record.reasons) == (State.CAPTURED, (Withheld.NOT_LIVE,))


def test_a_backlog_capture_is_never_answered(store: Store) -> None:
    confirm(store)
    record = captured(store)
    store.pend(record.id)
    record = answer_to(store, lease_of(store, record))
    assert (record.state, record.reasons) == (State.PENDING, ())


@pytest.mark.parametrize("between", ["wipe", "block", "deadline", "policy", "lease"])
def test_what_changes_during_the_comparison_counts(store: Store, clock: FakeClock, between: str) -> None:
    """The comparison takes place outside of any transaction: what allowed it is looked at again."""
    confirm(store)
    leased = lease_of(store, captured(store))
    (template,) = store.consider(leased.record.id, leased.lease, MODEL).templates
    clock.advance({"deadline": 15.1, "lease": 600.0}.get(between, 0.0))
    if between == "wipe":
        with store._change() as now:
            store._wipe_templates(store._keys.user_hmac("alice"), "a test", now)
    elif between == "block":
        with store._change() as now:
            store._block(store._keys.user_hmac("alice"), leased.record, "a test", now)
    elif between == "policy":
        store.limits = replace(store.limits, provisional=None)
    if between == "lease":
        with pytest.raises(LeaseLost):
            store.answer(leased.record.id, leased.lease, like(template=template.id))
    else:
        after = store.answer(leased.record.id, leased.lease, like(template=template.id))
        assert after.state is (State.PENDING if between == "block" else State.MATCHING)
    assert store.provisional_summary().answers == 0


# -- the limits hold


@settings(max_examples=15, deadline=None)
@given(plan=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["capture", "reopen", "day"])), max_size=10))
def test_no_order_of_captures_restarts_and_days_exceeds_a_limit(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[str, str]]
) -> None:
    clock, folder = FakeClock(), tmp_path_factory.mktemp("limits")
    limits = Limits(provisional=replace(PROVISIONAL, max_answers=4, max_answers_per_user_day=2, max_offline_s=1e9),
                    max_failures=0)  # fmt: skip
    store = open_store(folder, clock, limits=limits)
    try:
        for user in "abc":
            confirm(store, user)
        given_at: list[tuple[str, float]] = []
        for user, step in plan:
            if step == "reopen":
                store = reopen(store, folder, clock, limits=limits)
            elif step == "day":
                clock.advance(86400.0)
            elif offline(store, user).state is State.PROVISIONALLY_VERIFIED:
                given_at.append((user, clock.boottime))
            today = [u for u, at in given_at if clock.boottime - at < 86400.0]
            assert len(given_at) <= 4
            assert all(today.count(u) <= 2 for u in "abc")
            assert store.provisional_summary().answers == store.provisional_summary().unconfirmed == len(given_at)
    finally:
        store.close()


def test_a_count_is_committed_with_its_answer_or_not_at_all(
    store: Store, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm(store)
    leased = lease_of(store, captured(store))
    (template,) = store.consider(leased.record.id, leased.lease, MODEL).templates

    def power_cut(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_must", power_cut)
        with pytest.raises(RuntimeError):
            store.answer(leased.record.id, leased.lease, like(template=template.id))
    again = reopen(store, folder, clock, limits=store.limits)
    with again:
        assert again.provisional_summary().answers == 0
        assert again.get(leased.record.id).state is State.PENDING


def test_one_verdict_among_many_answers_does_not_reset_the_count(store: Store, clock: FakeClock) -> None:
    """Whoever holds the line could let one through and cut it again."""
    confirm(store)
    confirm(store, "bob")
    first, second = offline(store), offline(store, "bob")
    clock.advance(HOUR)
    online(store, first)
    summary = store.provisional_summary()
    assert (summary.answers, summary.unconfirmed, summary.offline_s) == (2, 1, HOUR)
    limit(store, max_answers=2)
    assert offline(store).reasons == (Withheld.COUNT_LIMIT,)
    limit(store)
    online(store, second)
    summary = store.provisional_summary()
    assert (summary.answers, summary.unconfirmed, summary.offline_s) == (0, 0, None)


def test_an_outage_without_answers_ends_with_the_first_verdict(store: Store) -> None:
    confirm(store)
    record = offline(store, amount=Decimal(1000))
    assert store.provisional_summary().offline_s == 0.0
    online(store, record)
    assert store.provisional_summary().offline_s is None


def test_the_outage_and_its_answers_survive_a_restart(store: Store, folder: Path, clock: FakeClock) -> None:
    confirm(store)
    offline(store)
    clock.advance(60)
    with reopen(store, folder, clock, limits=store.limits) as again:
        summary = again.provisional_summary()
        assert (summary.answers, summary.unconfirmed, summary.offline_s) == (1, 1, 60.0)


def test_a_forged_count_answers_nothing(store: Store) -> None:
    confirm(store)
    offline(store)
    forged = b'{"boot_id": "boot-1", "running_s": 100.0, "answers": 0}'
    store._database.execute("UPDATE meta SET value = :value WHERE name = 'outage'", value=forged)
    leased = lease_of(store, captured(store))
    with pytest.raises(Exception, match="cannot trust meta outage"):
        store.consider(leased.record.id, leased.lease, MODEL)


def test_an_answer_that_was_dated_back_counts_all_the_same(store: Store) -> None:
    confirm(store)
    for _ in range(3):
        offline(store)
    store._database.execute("UPDATE provisional_answers SET at_running_s = -1e6")
    assert offline(store).reasons == (Withheld.USER_LIMIT,)


def test_an_outage_begins_once(store: Store, clock: FakeClock) -> None:
    store.begin_outage()
    clock.advance(HOUR)
    store.begin_outage()
    assert store.provisional_summary().offline_s == HOUR


def test_deleting_a_user_does_not_give_back_what_was_answered_today(store: Store) -> None:
    confirm(store)
    for _ in range(3):
        offline(store)
    store.delete_user("alice")
    confirm(store)
    assert offline(store).reasons == (Withheld.USER_LIMIT,)


# -- what CypherFace says later


def test_a_contradiction_wipes_the_templates_and_blocks_until_a_verdict_in_time(store: Store, clock: FakeClock) -> None:
    confirm(store)
    record, other = offline(store), offline(store)
    no = online(store, record, positive=False)
    assert (no.state, no.contradicted) == (State.NOT_VERIFIED, True)
    assert (templates(store), store.provisional_summary().blocked) == ([], 1)
    assert events(store)[-3:] == ["verdict", "template_destroyed", "contradicted"]
    clock.advance(60)
    late = online(store, other)  # a backlog capture vouches for nobody who stands here now
    assert (late.state, late.late) == (State.VERIFIED, True)
    assert not store.keep_template(late.id, NewTemplate(FACE, MODEL, 0.9))
    assert offline(store).reasons == (Withheld.BLOCKED,)
    confirm(store)
    assert (len(templates(store)), store.provisional_summary().blocked) == (1, 0)
    assert offline(store).state is State.PROVISIONALLY_VERIFIED


def test_a_no_after_a_yes_contradicts_it_also_where_the_capture_was_set_aside_in_between(store: Store) -> None:
    confirm(store)
    leased = lease_of(store, offline(store))
    assert store.park(leased.record.id, leased.lease, code="not_found", status=404).state is State.FAILED
    store.reopen(leased.record.id, actor="forwarder")
    no = online(store, leased.record, positive=False)
    assert (no.state, no.contradicted) == (State.NOT_VERIFIED, True)
    assert (templates(store), events(store)[-1]) == ([], "contradicted")
    assert store.verify().ok


def test_a_yes_after_a_yes_contradicts_nothing_and_neither_does_a_no_to_what_had_no_answer(store: Store) -> None:
    confirm(store)
    answered = lease_of(store, offline(store))
    store.park(answered.record.id, answered.lease, code="not_found", status=404)
    store.reopen(answered.record.id, actor="forwarder")
    assert not online(store, answered.record).contradicted
    assert not online(store, captured(store), positive=False).contradicted


def test_a_contradiction_of_one_user_is_nobody_elses(store: Store) -> None:
    confirm(store)
    confirm(store, "bob")
    online(store, offline(store), positive=False)
    assert offline(store, "bob").state is State.PROVISIONALLY_VERIFIED


def test_a_no_to_somebody_without_a_template_blocks_nobody(store: Store) -> None:
    online(store, captured(store), positive=False)
    assert store.provisional_summary().blocked == 0


# -- templates


def with_verdict(store: Store, user: str = "alice", *, positive: bool = True, **values: Any) -> VerificationRecord:
    similarity = values.pop("similarity", 97.0)
    leased = lease_of(store, captured(store, user, **values))
    verdict = fakes.verdict(leased, fakes.upload(store, leased), positive=positive, similarity=similarity)
    return store.commit_verdict(leased.record.id, leased.lease, verdict)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, True),
        ({"positive": False}, False),
        ({"similarity": None}, False),
        ({"consent": None}, False),
        ({"consent": Consent("c", ("match",))}, False),
    ],
)
def test_a_template_is_kept_only_of_a_confirmation_with_similarity_and_consent(
    store: Store, values: dict[str, Any], kept: bool
) -> None:
    record = with_verdict(store, **values)
    assert store.keep_template(record.id, NewTemplate(FACE, MODEL, 0.8)) is kept
    assert len(templates(store)) == kept
    assert not store.keep_template(record.id, NewTemplate(FACE, MODEL, 0.8)), "one per capture"


def test_nothing_is_kept_of_a_capture_without_a_verdict_or_without_the_policy(store: Store) -> None:
    waiting, done = captured(store, "bob"), with_verdict(store)
    assert not store.keep_template(waiting.id, NewTemplate(FACE, MODEL, 0.8))
    store.limits = replace(store.limits, provisional=None)
    assert not store.keep_template(done.id, NewTemplate(FACE, MODEL, 0.8))
    assert not store.keep_template(store.withdraw(done.id).id, NewTemplate(FACE, MODEL, 0.8))


def test_a_new_model_invalidates_the_templates_of_the_old_one(store: Store) -> None:
    confirm(store)
    leased = lease_of(store, captured(store))
    assert store.consider(leased.record.id, leased.lease, "embedder/2").withheld is Withheld.NO_TEMPLATE
    give_back(store, leased)
    record = online(store, leased.record)
    store.keep_template(record.id, NewTemplate(FACE, "embedder/2", 0.5))
    assert [row["model"] for row in templates(store)] == ["embedder/2"]


@pytest.mark.parametrize(
    ("made", "most", "gone"),
    [
        ([(0, 0.5), (10, 0.6)], 3, []),
        ([(0, 0.5), (10, 0.6), (20, 0.7), (1000, 0.1)], 3, [0]),  # two that are close: the poorer goes
        ([(0, 0.9), (10, 0.6), (500, 0.7), (1000, 0.1)], 3, [10]),
        ([(0, 0.9), (500, 0.6), (501, 0.1), (1000, 0.1)], 3, [501]),  # the new one may be the one
        ([(0, 0.5), (1, 0.5)], 1, [0]),  # of equals the older one
        ([(0, 0.5)], 0, [0]),
    ],
)
def test_of_too_many_the_better_ones_that_are_spread_over_time_stay(
    made: list[tuple[float, float]], most: int, gone: list[float]
) -> None:
    rows: list[Any] = [{"made_running_s": at, "quality": quality} for at, quality in made]
    assert [row["made_running_s"] for row in superfluous(rows, most)] == gone


def test_a_user_has_few_templates(store: Store, clock: FakeClock) -> None:
    for _ in range(6):
        confirm(store)
        clock.advance(HOUR)
    assert len(templates(store)) == 3
    assert events(store).count("template_destroyed") == 3


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda s, c: (c.advance(Limits().template_age_s), s.tick()), "expired"),
        (_end_of_the_policy, "policy"),
        (lambda s, _: s.withdraw(s.list(state=State.VERIFIED)[0].id), "erasure"),
        (lambda s, _: online(s, offline(s), positive=False), "contradicted"),
    ],
)
def test_a_template_that_ends_leaves_a_record_of_its_destruction(
    store: Store, clock: FakeClock, end: Callable[[Store, FakeClock], Any], why: str
) -> None:
    confirm(store)
    (template,) = templates(store)
    end(store, clock)
    assert templates(store) == []
    rows = store._database.execute("SELECT detail FROM audit WHERE event = 'template_destroyed'").fetchall()
    assert [row["detail"] for row in rows] == [f'{{"template": "{template["id"]}", "why": "{why}"}}']


def test_many_templates_without_a_purpose_go_in_one_tick(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.retention._BATCH", 2)
    for user in "abcde":
        confirm(store, user)
    _end_of_the_policy(store, clock)
    assert store.provisional_summary().templates == 0
    assert events(store).count("template_destroyed") == 5


def test_nothing_of_a_template_is_in_the_files_in_clear_or_after_its_users_deletion(
    store: Store, folder: Path, clock: FakeClock
) -> None:
    def found(trace: bytes) -> list[str]:
        return [path.name for path in folder.iterdir() if trace in path.read_bytes()]

    face = fakes.picture("a face", 2048)
    record = with_verdict(store)
    store.keep_template(record.id, NewTemplate(face, MODEL, 0.8))
    (template,) = templates(store)
    sealed = template["embedding"]
    assert found(sealed[40:72])
    assert found(face[:32]) == []
    done = store.delete_user("alice")
    assert not done.traces_left
    assert templates(store) == []
    assert found(sealed[40:72]) == []
    with pytest.raises(Exception, match="it is missing"):
        store._open_template(template)


def test_templates_answers_and_blocks_go_through_a_rotation_of_the_key(
    store: Store, folder: Path, clock: FakeClock
) -> None:
    confirm(store)
    confirm(store, "bob")
    offline(store)
    online(store, offline(store, "bob"), positive=False)
    store.close()
    new = b"n" * 32
    limits = store.limits
    with open_store(folder, clock, key=new, previous_key=fakes.KEY, limits=limits) as rotating:
        rotating.recover()
        rotating.rotate(actor="root")
        assert rotating.verify().ok
    with open_store(folder, clock, key=new, limits=limits) as again:
        again.recover()
        assert again.verify().ok
        assert offline(again, "bob").reasons == (Withheld.BLOCKED,)
        assert offline(again).state is State.PROVISIONALLY_VERIFIED
        assert again.provisional_summary().answers == 3


def test_a_salvage_leaves_templates_behind_and_keeps_answers_and_blocks(
    store: Store, folder: Path, clock: FakeClock
) -> None:
    confirm(store)
    confirm(store, "bob")
    offline(store)
    online(store, offline(store, "bob"), positive=False)
    limits = store.limits
    store.close()
    salvage(folder, fakes.KEY, clock=clock)
    with open_store(folder, clock, limits=limits) as again:
        again.recover()
        assert again.verify().ok
        summary = again.provisional_summary()
        assert (summary.templates, summary.blocked, summary.answers, summary.unconfirmed) == (0, 1, 2, 1)
        assert len(again._database.execute("SELECT * FROM provisional_answers").fetchall()) == 2
        assert offline(again).reasons == (Withheld.NO_TEMPLATE,)


def test_a_later_attempt_does_not_hide_the_reason_that_the_first_one_gave(store: Store) -> None:
    confirm(store)
    record = offline(store, consent=None)
    assert record.reasons == (Withheld.NO_CONSENT,)
    again = answer_to(store, lease_of(store, record))
    assert (again.attempts, again.reasons) == (2, (Withheld.NO_CONSENT,))


# -- retention


def test_a_template_outlives_what_it_was_made_of_and_its_user_goes_with_it(store: Store, clock: FakeClock) -> None:
    store.limits = replace(store.limits, verdict_age_s=HOUR, template_age_s=3 * HOUR)
    record = confirm(store)
    clock.advance(2 * HOUR)
    store.sweep()
    assert (store.get(record.id).erased, len(templates(store))) == (True, 1)
    assert offline(store).state is State.PROVISIONALLY_VERIFIED
    online(store, store.list(state=State.PROVISIONALLY_VERIFIED)[0])
    clock.advance(2 * HOUR)
    store.sweep()
    assert templates(store) == []
    assert [row[0] for row in store._database.execute("SELECT count(*) FROM users")] == [0]
    assert store.verify().ok


def test_a_consent_that_is_withdrawn_after_its_verification_was_stripped_ends_its_templates(
    store: Store, clock: FakeClock
) -> None:
    store.limits = replace(store.limits, verdict_age_s=HOUR, template_age_s=24 * HOUR)
    record = confirm(store)
    clock.advance(HOUR)
    store.tick()
    assert (store.get(record.id).erased, len(templates(store))) == (True, 1)
    store.withdraw(record.id, actor="uid:0")
    assert templates(store) == []
    assert store._query("user", user_hmac=store._keys.user_hmac("alice")).fetchone() is None
    assert not store.erasure_pending


def test_the_user_of_a_verification_that_waits_stays_without_a_template(store: Store, clock: FakeClock) -> None:
    confirm(store)
    waiting = offline(store)
    clock.advance(store.limits.template_age_s)
    store.limits = replace(store.limits, max_age_s=10 * store.limits.template_age_s)
    store.tick()
    assert (templates(store), store.get(waiting.id).user_id) == ([], "alice")


# -- what CypherFace said, for people


def test_the_last_verdicts_of_a_user_are_shown_up_to_a_number_and_an_age(store: Store, clock: FakeClock) -> None:
    store.limits = replace(store.limits, max_matches=2, match_ttl_s=HOUR)
    old = [confirm(store).id for _ in range(3)]
    assert [r.id for r in store.verdicts_of("alice")] == [old[2], old[1]]
    clock.advance(HOUR / 2)
    new = online(store, captured(store), positive=False)
    assert [r.id for r in store.verdicts_of("alice")] == [new.id, old[2]]
    clock.advance(HOUR / 2)
    assert [r.id for r in store.verdicts_of("alice")] == [new.id]
    summary = store.verdict_summary()
    assert (summary.verified, summary.not_verified, summary.newest_at) == (3, 1, new.verdict_at)


def test_verdicts_of_another_service_are_not_a_template_here(store: Store) -> None:
    elsewhere = Environment("https://elsewhere.example/", ENVIRONMENT.merchant_id)
    confirm(store, environment=elsewhere)
    assert offline(store).reasons == (Withheld.NO_TEMPLATE,)
