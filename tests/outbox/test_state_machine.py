"""Random histories against a model: nothing is lost, everything ends once, one lease per user, the audit verifies."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from edge_agent.outbox.records import Leased, LeaseLost, StateConflict
from edge_agent.types import FINAL_STATES, State
from tests.outbox.fakes import ENVIRONMENT, FakeClock, crash, open_store, picture, request, upload, verdict

USERS = st.sampled_from(["alice", "bob"])
LEASE_S = 100


@dataclass
class Expected:
    """What the model says about one verification."""

    user: str
    state: State
    stored: bool = False
    parked: bool = False


class Outbox(RuleBasedStateMachine):
    ids = Bundle("ids")
    leases = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.store = open_store(self.folder / "state", self.clock)
        self.store.recover()
        self.model: dict[str, Expected] = {}
        self.passed_s = 0
        self.held: dict[str, tuple[str, int]] = {}  # user -> token, and when it ends

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert self.store.verify_audit().ok
            crash(self.store)
            shutil.rmtree(self.folder)

    # -- the terminal

    @rule(target=ids, user=USERS)
    def create(self, user: str) -> str:
        record, _ = self.store.create(request(user))
        self.model[record.id] = Expected(user, State.SEARCHING)
        return record.id

    @rule(key=ids)
    def capture(self, key: str) -> None:
        self.move(key, {State.SEARCHING: State.CAPTURED}, lambda: self.commit(key), stored=True)

    def commit(self, key: str) -> None:
        self.store.commit_capture(key, picture(key, 300), quality_score=0.5, liveness_score=0.9)

    @rule(key=ids)
    def cancel(self, key: str) -> None:
        self.move(key, {State.SEARCHING: State.CANCELLED}, lambda: self.store.cancel(key))

    @rule(key=ids)
    def reject(self, key: str) -> None:
        self.move(key, {State.SEARCHING: State.REJECTED}, lambda: self.store.reject(key, ["too_dark"]))

    @rule(key=ids)
    def pend(self, key: str) -> None:
        expected = self.model[key]
        self.store.pend(key)
        if expected.state in {State.CAPTURED, State.MATCHING}:
            expected.state = State.PENDING

    def move(self, key: str, allowed: dict[State, State], operation: object, *, stored: bool = False) -> None:
        expected = self.model[key]
        if expected.state not in allowed:
            with pytest.raises(StateConflict):
                operation()  # type: ignore[operator]
            return
        operation()  # type: ignore[operator]
        expected.state, expected.stored = allowed[expected.state], stored

    # -- the forwarder

    @rule(target=leases)
    def lease(self) -> object:
        leased = self.store.lease_next(ENVIRONMENT, lease_s=LEASE_S)
        if leased is None:
            return multiple()
        expected = self.model[leased.record.id]
        self.expect_no_other_lease(expected.user)
        assert self.first_of(expected.user) == leased.record.id
        assert expected.stored and self.store.payload(leased.record.id) == picture(leased.record.id, 300)
        if expected.state is State.CAPTURED:
            expected.state = State.MATCHING
        self.held[expected.user] = leased.lease.token, self.passed_s + LEASE_S
        return leased

    def expect_no_other_lease(self, user: str) -> None:
        assert user not in self.held

    def first_of(self, user: str) -> str:
        """The live captures first, then in order of creation."""
        live = {State.CAPTURED, State.MATCHING}
        waiting = [
            (e.state not in live, n, key)
            for n, (key, e) in enumerate(self.model.items())
            if e.user == user and e.state in live | {State.PENDING}
        ]
        return min(waiting)[2]

    def holds(self, leased: Leased) -> bool:
        token, _ = self.held.get(self.model[leased.record.id].user, (None, 0))
        return token == leased.lease.token

    @rule(leased=consumes(leases), positive=st.booleans())
    def verdict(self, leased: Leased, positive: bool) -> None:
        expected = self.model[leased.record.id]
        if not self.holds(leased):
            with pytest.raises(LeaseLost):
                upload(self.store, leased)
            return
        answer = verdict(leased, upload(self.store, leased), positive=positive)
        self.store.commit_verdict(leased.record.id, leased.lease, answer)
        del self.held[expected.user]
        expected.state, expected.stored = (State.VERIFIED if positive else State.NOT_VERIFIED), False

    @rule(leased=consumes(leases), wait_s=st.sampled_from([0, 30]), begun=st.booleans())
    def release(self, leased: Leased, wait_s: int, begun: bool) -> None:
        expected = self.model[leased.record.id]
        if not self.holds(leased):
            with pytest.raises(LeaseLost):
                self.store.release(leased.record.id, leased.lease, next_attempt_in_s=wait_s, code="network")
            return
        if begun:
            upload(self.store, leased)
        self.store.release(leased.record.id, leased.lease, next_attempt_in_s=wait_s, code="network")
        del self.held[expected.user]
        if expected.state is State.MATCHING:
            expected.state = State.CAPTURED

    @rule(leased=consumes(leases))
    def park(self, leased: Leased) -> None:
        if self.holds(leased):
            expected = self.model[leased.record.id]
            self.store.park(leased.record.id, leased.lease, code="unknown_user")
            del self.held[expected.user]
            expected.state, expected.parked = State.FAILED, True

    @rule(key=ids)
    def reopen(self, key: str) -> None:
        expected = self.model[key]
        if expected.parked:
            self.store.reopen(key, actor="test")
            expected.state, expected.parked = State.PENDING, False

    # -- the world

    @rule()
    def crash(self) -> None:
        """The process dies; another instance starts."""
        crash(self.store)
        self.store = open_store(self.folder / "state", self.clock)
        self.store.recover()
        self.held.clear()
        for expected in self.model.values():
            if expected.state is State.SEARCHING:
                expected.state = State.FAILED
            elif expected.state in {State.CAPTURED, State.MATCHING}:
                expected.state = State.PENDING

    @rule(seconds=st.sampled_from([1, 40, 101]))
    def time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.passed_s += seconds
        ended = {user for user, (_, ends_s) in self.held.items() if ends_s <= self.passed_s}
        self.held = {user: held for user, held in self.held.items() if user not in ended}
        for key, expected in self.model.items():
            if expected.user in ended and expected.state is State.MATCHING:  # its lease ran out; the next one voids it
                expected.state = self.store.get(key).state
        self.store.tick()

    @rule()
    def reboot(self) -> None:
        self.clock.reboot(off_s=1000)
        self.crash()

    @rule(key=ids)
    def withdraw(self, key: str) -> None:
        self.store.withdraw(key)
        self.erased(key)

    @rule(user=USERS)
    def delete_user(self, user: str) -> None:
        self.store.delete_user(user)
        for key, expected in self.model.items():
            if expected.user == user:
                self.erased(key)

    def erased(self, key: str) -> None:
        expected = self.model[key]
        if expected.state in {State.CAPTURED, State.MATCHING, State.PENDING} and self.store.get(key).lease is None:
            leases = [r for r in self.store.list() if r.lease and r.user_hmac == self.store.get(key).user_hmac]
            if not leases:
                self.held.pop(expected.user, None)
        if expected.state not in FINAL_STATES or expected.parked:
            expected.state = State.DELETED
        expected.stored = expected.parked = False

    # -- what always holds

    @invariant()
    def every_verification_is_where_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        records = {record.id: record for record in self.store.list(limit=10_000)}
        assert records.keys() == self.model.keys()
        for key, expected in self.model.items():
            # a lease that ran out is voided by the next lease of that user only
            actual = records[key].state
            overdue = {actual, expected.state} == {State.MATCHING, State.CAPTURED}
            assert actual is expected.state or overdue, key
            assert (records[key].image_bytes > 0) is expected.stored
        leased = [record.user_hmac for record in records.values() if record.lease]
        assert len(leased) == len(set(leased))

    @invariant()
    def the_counts_are_those_of_the_rows(self) -> None:
        if hasattr(self, "store"):
            states = [record.state for record in self.store.list(limit=10_000)]
            assert self.store.counts() == {state: states.count(state) for state in State}
            queued = {State.CAPTURED, State.MATCHING, State.PENDING, State.PROVISIONALLY_VERIFIED}
            assert self.store.queue().depth == sum(state in queued for state in states)

    @invariant()
    def every_row_and_picture_authenticates(self) -> None:
        if hasattr(self, "store"):
            report = self.store.verify()
            assert report.ok, report.problems
            assert self.store.queue().payload_items == sum(e.stored for e in self.model.values())


Outbox.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,  # a sync takes as long as it takes
    suppress_health_check=[HealthCheck.too_slow],
)
TestOutbox = Outbox.TestCase
