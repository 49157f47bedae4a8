"""Cannot start: refused with the code that says why, the idempotency key unused, nobody filmed, nothing stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import ModelError
from edge_agent.outbox import Store
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.api.calls import SOURCE, start
from tests.faces import measurement, scores
from tests.keepers import intercept
from tests.terminal import Terminal, terminal

Undo = Callable[[], None]
CHANGES: dict[str, Any] = {
    "session": {"search_timeout_s": 20.0, "verdict_timeout_s": 5.0, "capture_window_s": 0.0, "max_failures": 2},
    "offline": {"policy": "deny"},
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        for user in ("alice", "no-bob", "no-eve"):
            server.enrol(user, SOURCE)
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxServer) -> Iterator[Terminal]:
    with terminal(tmp_path_factory.mktemp("cannot-start"), sandbox, **CHANGES) as t:
        yield t


def no_camera(t: Terminal, sandbox: SandboxServer) -> Undo:
    t.camera.cannot_open = True
    return lambda: setattr(t.camera, "cannot_open", False)


def no_models(t: Terminal, sandbox: SandboxServer) -> Undo:
    t.agent._parts.vision, t.vision_error = None, ModelError("cannot load: missing")
    return lambda: setattr(t, "vision_error", None)


def full_disk(t: Terminal, sandbox: SandboxServer) -> Undo:
    store = t.agent.keeper._need()
    before = store._reserve._free_bytes
    store._reserve._free_bytes = lambda _: 0
    return lambda: setattr(store._reserve, "_free_bytes", before)


def deny_while_offline(t: Terminal, sandbox: SandboxServer) -> Undo:
    assert t.agent.forwarder is not None
    availability = t.agent.forwarder._availability
    usual = availability.set

    async def cut() -> None:
        usual("offline")
        availability.set = lambda _: None  # type: ignore[assignment, method-assign]  # an answer under way brings nothing back

    async def undo() -> None:
        availability.set = usual  # type: ignore[method-assign]
        usual("online")

    t.run(cut())
    return lambda: t.run(undo())


def stopping(t: Terminal, sandbox: SandboxServer) -> Undo:
    t.agent._verifications.stopping = True
    return lambda: setattr(t.agent._verifications, "stopping", False)


def locked_out(t: Terminal, sandbox: SandboxServer) -> Undo:
    keeper = t.agent.keeper

    def clear(store: Store) -> None:
        store._query("prune_failures", before_s=1e12)

    def fill(store: Store) -> None:
        for _ in range(2):
            store.record_failure("alice", "spoof")

    t.run(keeper.run(fill))
    return lambda: t.run(keeper.run(clear))


def busy(t: Terminal, sandbox: SandboxServer) -> Undo:
    t.eyes.sees = measurement(())
    first = start(t, uuid.uuid4().hex, json={"user_id": "no-bob"}).json()

    def undo() -> None:
        with t.client() as client:
            client.cancel(first["id"])
        t.eyes.sees = measurement()

    return undo


@pytest.mark.parametrize(
    ("prepare", "status", "code"),
    [
        (no_camera, 503, "camera_unavailable"),
        (no_models, 503, "models_missing"),
        (full_disk, 503, "storage_full"),
        (deny_while_offline, 503, "offline"),
        (locked_out, 429, "locked_out"),
        (stopping, 503, "stopping"),
        (busy, 409, "busy"),
    ],
)
def test_a_refused_start_says_why_and_leaves_the_key_unused(
    running: Terminal,
    sandbox: SandboxServer,
    prepare: Callable[[Terminal, SandboxServer], Undo],
    status: int,
    code: str,
) -> None:
    key = f"key-{code}"
    undo = prepare(running, sandbox)
    before = [r.id for r in running.run(running.agent.list(limit=1000))]
    refused = [start(running, key, json={"user_id": "alice"}) for _ in range(2)]
    stored = [r.id for r in running.run(running.agent.list(limit=1000))]
    filming = running.camera.is_open
    undo()
    assert [(r.status_code, r.json()["code"], r.json()["retryable"]) for r in refused] == [(status, code, True)] * 2
    assert stored == before
    assert filming is (code == "busy")
    with running.client() as client:
        record = client.verify("alice", idempotency_key=key, wait_s=5)
        assert (record.state, record.replayed) == (State.VERIFIED, False)


@pytest.mark.parametrize("code", ["locked_out", "stopping", "busy"])
def test_a_key_that_was_used_is_answered_whatever_keeps_others_from_starting(running: Terminal, code: str) -> None:
    """A POS that lost the answer must get it; except from an agent that stops, which it asks again."""
    with running.client() as client:
        first = client.verify("alice", idempotency_key=f"used-{code}", wait_s=5)
        undo = {"locked_out": locked_out, "stopping": stopping, "busy": busy}[code](running, None)  # type: ignore[arg-type]
        again = start(running, f"used-{code}", json={"user_id": "alice"})
        undo()
    if code == "stopping":
        assert again.json()["code"] == "stopping"
    else:
        assert (again.json()["id"], again.json()["replayed"]) == (first.id, True)


# -- lock-out ---------------------------------------------------------------------------------------------------------


def is_locked_out(client: AgentClient, user: str) -> bool:
    """False when a verification of this user can start. The wait is what is left of 180 s; tests may be slow."""
    try:
        client.cancel(client.verify(user).id)
    except ApiError as exc:
        refusal = exc
    else:
        return False
    assert refusal.code == "locked_out"
    assert 120 < float(refusal.problem["retry_after_s"]) <= 180
    return True


def spoof(t: Terminal, client: AgentClient, user: str) -> None:
    t.eyes.scores = scores(0.9, 0.1)
    assert client.verify(user, search_timeout_s=1.0, wait_s=5).reasons == ["spoof_suspected"]
    t.eyes.scores = scores(0.9, 0.9)


def mismatch(t: Terminal, client: AgentClient, user: str) -> None:
    del t
    assert client.verify(user, wait_s=5).state is State.NOT_VERIFIED


def late_mismatch(t: Terminal, client: AgentClient, user: str) -> None:
    """One whose verdict comes after the session counts against the user only."""
    keeper = t.agent.keeper
    commit = Store.commit_verdict

    def late(store: Store, verification_id: str, *args: Any) -> Any:
        sql = "UPDATE verifications SET deadline_boottime_s = 0.0 WHERE id = :id"
        store._database.execute(sql, id=verification_id)
        row = dict(store._query("by_id", id=verification_id).fetchone())
        del row["mac"]
        sealed = store._sealed_values("verifications", row)
        store._database.execute("UPDATE verifications SET mac = :m WHERE id = :id", m=sealed["mac"], id=verification_id)
        return commit(store, verification_id, *args)

    undo = intercept(keeper, Store.commit_verdict, late)
    record = client.verify(user, wait_s=5)
    undo()
    assert (record.state, record.late) == (State.NOT_VERIFIED, True)


def test_failures_lock_out_and_a_restart_does_not_help(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, **CHANGES) as t, t.client() as client:
        t.eyes.sees = measurement(luminance=0.1)
        for _ in range(3):  # a rejection for anything else is no failure
            assert client.verify("alice", search_timeout_s=1.0, wait_s=5).state is State.REJECTED
        t.eyes.sees = measurement()
        spoof(t, client, "alice")
        assert not is_locked_out(client, "alice")
        mismatch(t, client, "no-bob")
        assert is_locked_out(client, "alice")  # the terminal is, for everybody
        answer = start(t, json={"user_id": "no-eve"})
        assert (answer.status_code, 120 < int(answer.headers["retry-after"]) <= 180) == (429, True)
        client.delete_user("alice")
    with terminal(tmp_path, sandbox, **CHANGES) as t, t.client() as client:
        assert is_locked_out(client, "alice")
        assert t.camera.opened == 0


def test_late_failures_lock_their_user_out_and_nobody_else(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, **CHANGES) as t, t.client() as client:
        for _ in range(2):
            late_mismatch(t, client, "no-bob")
        assert is_locked_out(client, "no-bob")
        assert not is_locked_out(client, "no-eve")


def test_a_service_that_is_down_locks_nobody_out(running: Terminal, sandbox: SandboxServer) -> None:
    with running.client() as client:
        for number in range(3):
            sandbox.inject(Fault(step="generate_url", kind="status", status=400))
            assert client.verify("alice", idempotency_key=f"down-{number}", wait_s=5).state is State.FAILED
        sandbox.clear_faults()
        assert client.verify("alice", wait_s=5).approved
