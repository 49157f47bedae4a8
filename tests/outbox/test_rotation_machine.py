"""Random histories with rotations in them: everything reads back, and an old key alone opens nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.errors import StorageError
from edge_agent.outbox.crypto import Rotation
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, crash, finish, lease, open_store, pending, picture

USERS = st.sampled_from(["alice", "bob", "carol"])


class Rotations(RuleBasedStateMachine):
    """The model is the pictures that must read back, and the keys in the order of their use."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.keys = [bytes([1]) * 32]
        self.pictures: dict[str, tuple[str, bytes]] = {}
        self.ended: dict[str, State] = {}
        self.store = open_store(self.folder / "state", self.clock, **self.given())
        self.store.recover()

    def given(self) -> dict[str, Any]:
        return {"key": self.keys[-1], "previous_key": self.keys[-2] if len(self.keys) > 1 else None}

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        if self.store.rotation is not Rotation.NONE:
            self.finish_rotation()
        self.every_picture_reads_back()
        self.store.close()
        for key in self.keys[:-1]:
            with pytest.raises(StorageError) as caught:
                open_store(self.folder / "state", self.clock, key=key)
            assert caught.value.code == "key_mismatch"
        open_store(self.folder / "state", self.clock, key=self.keys[-1]).close()
        shutil.rmtree(self.folder)

    def finish_rotation(self) -> None:
        if self.store.rotation in {Rotation.DUE, Rotation.RUNNING}:
            self.store.rotate(actor="test")
        assert self.store.rotation is Rotation.DONE

    # -- the store at work

    @rule(user=USERS)
    def capture(self, user: str) -> None:
        record = pending(self.store, user)
        self.pictures[record.id] = (user, picture(record.id))

    @precondition(lambda self: self.pictures)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        # in the order of their making: ids are random, and the same example must do the same again
        key = data.draw(st.sampled_from(list(self.pictures)))
        self.store.withdraw(key)
        self.end(key, State.DELETED)

    @rule(user=USERS)
    def delete_user(self, user: str) -> None:
        self.store.delete_user(user)
        for key in [key for key, (owner, _) in self.pictures.items() if owner == user]:
            self.end(key, State.DELETED)
        for key in [key for key in self.ended if self.store.get(key).erased]:
            assert self.store.get(key).user_id is None

    @precondition(lambda self: self.pictures)
    @rule(positive=st.booleans())
    def verdict(self, positive: bool) -> None:
        record = finish(self.store, lease(self.store), positive=positive)
        self.end(record.id, State.VERIFIED if positive else State.NOT_VERIFIED)

    def end(self, key: str, state: State) -> None:
        del self.pictures[key]
        self.ended[key] = state

    # -- the operator and the world

    @precondition(lambda self: self.store.rotation in {Rotation.NONE, Rotation.DONE})
    @rule()
    def give_a_new_key(self) -> None:
        self.keys.append(bytes([len(self.keys) + 1]) * 32)
        self.restart()

    @precondition(lambda self: self.store.rotation is Rotation.DUE)
    @rule()
    def begin(self) -> None:
        self.store.begin_rotation(actor="test")
        assert self.store.rotation is Rotation.RUNNING

    @precondition(lambda self: self.store.rotation is Rotation.RUNNING)
    @rule(batch=st.integers(1, 5))
    def step(self, batch: int) -> None:
        self.store.rotate_step(batch=batch)

    @rule()
    def restart(self) -> None:
        """The process dies; the next one is not the daemon (it does not recover)."""
        crash(self.store)
        self.store = open_store(self.folder / "state", self.clock, **self.given())

    @rule()
    def start_again(self) -> None:
        running = self.store.rotation is Rotation.RUNNING
        self.restart()
        assert self.store.recover().rotation_finished is running

    # -- what always holds

    @invariant()
    def every_picture_reads_back(self) -> None:
        if hasattr(self, "store"):
            assert {key: self.store.payload(key) for key in self.pictures} == {
                key: jpeg for key, (_, jpeg) in self.pictures.items()
            }
            assert {key: self.store.get(key).user_id for key in self.pictures} == {
                key: user for key, (user, _) in self.pictures.items()
            }
            assert {key: self.store.get(key).state for key in self.ended} == self.ended

    @invariant()
    def everything_authenticates(self) -> None:
        if hasattr(self, "store"):
            report, audit = self.store.verify(), self.store.verify_audit()
            assert report.ok and audit.ok, (report.problems, audit.problem)


Rotations.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,  # a sync takes as long as it takes
    suppress_health_check=[HealthCheck.too_slow],
)
TestRotations = Rotations.TestCase
