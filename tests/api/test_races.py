"""What happens between the steps: faults of the parts at the wrong moment, and requests that cross each other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient, ApiError, ServerEvent
from edge_agent.daemon import serve_until
from edge_agent.errors import ConfigurationError, EnvironmentFault, ModelError, StorageError
from edge_agent.events import EventBus
from edge_agent.outbox import Store
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.storekeeper import starting
from edge_agent.types import Frame, Measurement, State
from tests.api.calls import SOURCE, raw, start, until_final
from tests.faces import measurement
from tests.keepers import fail_once, intercept
from tests.terminal import Terminal, terminal


def once(owner: Any, name: str, error: Exception) -> None:
    """The next call of ``owner.name`` fails; later ones work."""
    original = getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        setattr(owner, name, original)
        raise error

    setattr(owner, name, failing)


# -- a part fails at the wrong moment ---------------------------------------------------------------------------------


def test_a_capture_that_cannot_be_handed_over_is_pending_at_its_deadline(
    running: Terminal, client: AgentClient
) -> None:
    fail_once(running.agent.keeper, Store.lease_one, StorageError("cannot use the database: busy"))
    intercept(running.agent.keeper, Store.lease_next, lambda *_, **__: None)
    record = client.verify("alice", wait_s=5)
    assert record.state is State.PENDING


def test_a_camera_that_cannot_be_closed_does_not_block_the_terminal(running: Terminal, client: AgentClient) -> None:
    once(running.camera, "close", RuntimeError("the driver is gone"))
    assert client.verify("alice", wait_s=5).approved
    assert client.verify("alice", wait_s=5).approved


def test_a_search_that_cannot_be_concluded_is_over_all_the_same(running: Terminal, client: AgentClient) -> None:
    fail_once(running.agent.keeper, Store.commit_capture, RuntimeError("unexpected"))
    record = client.verify("alice", wait_s=5)
    assert record.error is not None
    assert (record.state, record.error.code) == (State.FAILED, "internal_error")
    assert client.verify("alice", wait_s=5).approved


def test_a_full_disk_at_the_capture_fails_the_session_and_never_pends(running: Terminal, client: AgentClient) -> None:
    fail_once(
        running.agent.keeper, Store.commit_capture, StorageError("cannot take a new capture", code="storage_full")
    )
    record = client.verify("alice", wait_s=5)
    assert record.error is not None
    assert (record.state, record.error.code) == (State.FAILED, "storage_full")


def test_a_camera_that_repeats_its_picture_fails_and_never_rejects(running: Terminal, client: AgentClient) -> None:
    def frozen(frame: Frame) -> Measurement:
        del frame
        return replace(measurement(luminance=0.1), digest=b"the same")

    running.eyes.measure = frozen  # type: ignore[method-assign]
    record = client.verify("alice", wait_s=5)
    assert record.error is not None
    assert (record.state, record.error.code) == (State.FAILED, "camera_frozen")


def test_policy_deny_takes_new_verifications_once_the_network_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    with SandboxServer(folder=folder) as first:
        first.enrol("alice", SOURCE)
        port, credentials, url = first.port, first.credentials, first.base_url
    with Terminal(tmp_path, url, credentials, offline={"policy": "deny"}) as t, t.client() as client:
        assert client.verify("alice", wait_s=5).state is State.FAILED
        with SandboxServer(folder=folder, port=port):
            deadline = time.monotonic() + 10
            while client.status()["network"]["state"] == "offline":
                assert time.monotonic() < deadline, "nobody noticed that the network is back"
                time.sleep(0.05)
            assert client.verify("alice", wait_s=5).approved


# -- what an error looks like -----------------------------------------------------------------------------------------


def test_an_unexpected_error_is_a_problem_document_that_quotes_nothing(
    running: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    fail_once(running.agent.keeper, Store.find_replay, ValueError("secret-of-alice"))
    answer = start(running, json={"user_id": "alice"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret-of-alice" not in answer.text + caplog.text
    assert "ValueError" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("cannot use the row: its mac is wrong", code="tampered"), "storage_failed"),
        (StorageError("cannot use the file", code="schema_unknown"), "storage_failed"),
        (ConfigurationError("cannot read the secret", code="secret_missing"), "key_unavailable"),
        (ConfigurationError("cannot use the secret", code="secret_exposed"), "key_unavailable"),
        (ConfigurationError("cannot use the key", code="key_invalid"), "key_unavailable"),
        (ModelError("cannot run the model", code="inference_failed"), "models_missing"),
        (ModelError("cannot use the provider", code="provider_unavailable"), "models_missing"),
        (EnvironmentFault("cannot say"), "environment"),
    ],
)
def test_a_fault_of_the_device_is_a_503_with_a_documented_code(refusing: Terminal, error: Exception, code: str) -> None:
    fail_once(refusing.agent.keeper, Store.find_replay, error)
    answer = start(refusing, json={"user_id": "alice"})
    assert (answer.status_code, answer.json()["code"]) == (503, code)


def test_refusing_for_days_does_not_pile_up_memory(tmp_path: Path, sandbox: SandboxServer) -> None:
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)
    t.vision_error = ModelError("cannot load: missing")
    (tmp_path / "device.key").write_text("nonsense")
    with t:
        lengths = []
        for number in range(3):
            start(t, f"k-{number}", json={"user_id": "alice"})
            lengths.append(_frames(t.agent.faults["store"]))
        assert len(set(lengths)) == 1


def _frames(error: BaseException) -> int:
    count, trace = 0, error.__traceback__
    while trace is not None:
        count, trace = count + 1, trace.tb_next
    return count


def test_enrolling_without_the_store_is_refused_before_anything_is_uploaded(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    with terminal(tmp_path, sandbox) as t:
        t.agent.keeper._fault = starting()
        with raw(t) as http:
            answer = http.put("/v1/users/carol/source", content=b"x", headers={"Content-Type": "image/jpeg"})
        t.agent.keeper._fault = None
        assert (answer.status_code, answer.json()["code"]) == (503, "starting")
        assert [seen for seen in sandbox.requests if seen.step == "generate_url"] == []


def test_retry_after_is_never_too_short() -> None:
    from edge_agent.api.answers import problem_of
    from edge_agent.errors import SessionRefused

    answer = problem_of(SessionRefused("cannot start", code="locked_out", retry_after_s=3.4))
    assert answer.headers["retry-after"] == "4"


def test_an_id_that_is_none_cannot_resume_events(refusing: Terminal) -> None:
    with raw(refusing) as http:
        for value in ("x", "9" * 5000, "-1", "0123456-1", "0123456789-1", "01234567-", "01234567-1-1"):
            answer = http.get("/v1/events", headers={"Last-Event-ID": value})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


# -- requests that cross each other -----------------------------------------------------------------------------------


def test_whoever_learns_of_a_cancel_can_start_at_once(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 30.0}) as t, t.client() as client:
        original = t.camera.read

        def slow(timeout_s: float) -> Frame:
            time.sleep(0.2)
            return original(timeout_s)

        t.camera.read = slow  # type: ignore[method-assign]
        t.eyes.sees = measurement(())
        record = client.verify("alice")
        told: list[VerificationBody] = []

        def wait_then_start() -> None:
            with t.client() as other:
                told.append(other.get(record.id, wait_s=10))
                told.append(other.verify("alice"))

        thread = threading.Thread(target=wait_then_start)
        thread.start()
        client.cancel(record.id)
        thread.join(10)
        assert [r.state for r in told] == [State.CANCELLED, State.SEARCHING]


def test_a_cancel_that_overtakes_the_start_films_nobody(tmp_path: Path, sandbox: SandboxServer) -> None:
    """The id is known from the event before the POST is answered."""
    with terminal(tmp_path, sandbox, session={"search_timeout_s": 30.0}) as t, t.client() as client:
        t.eyes.sees = measurement(())
        created = threading.Event()

        def create(store: Store, new: Any) -> Any:
            answer = store.create(new)
            ids.append(answer[0].id)
            created.set()
            return answer

        ids: list[str] = []
        intercept(t.agent.keeper, Store.create, create)
        thread = threading.Thread(target=lambda: start(t, json={"user_id": "alice"}))
        thread.start()
        assert created.wait(5)
        client.cancel(ids[0])
        thread.join(5)
        assert not t.agent.searching
        assert not t.camera.is_open


def test_a_cancel_and_a_capture_at_once_have_one_winner(tmp_path: Path, sandbox: SandboxServer) -> None:
    outcomes = set()
    changes: dict[str, Any] = {"session": {"search_timeout_s": 5.0, "capture_window_s": 0.0}}
    with terminal(tmp_path, sandbox, **changes) as t, t.client() as client:
        for number in range(30):  # a little later each time, until either has won
            record = client.verify("alice")
            time.sleep(0.02 * number)
            answer = _cancel(client, record)
            final = until_final(client, record).state
            assert (answer, final) in {("cancelled", State.CANCELLED), ("not_cancellable", State.VERIFIED)}
            outcomes.add(final)
            if len(outcomes) == 2:
                break
    assert outcomes == {State.CANCELLED, State.VERIFIED}
    assert len(sandbox.judged) == 1


def _cancel(client: AgentClient, record: VerificationBody) -> str:
    try:
        return client.cancel(record.id).state.value
    except ApiError as exc:
        return exc.code


# -- a yes that is read later -----------------------------------------------------------------------------------------


def test_an_old_yes_does_not_approve_when_events_are_replayed(tmp_path: Path, sandbox: SandboxServer) -> None:
    with terminal(tmp_path, sandbox, session={"result_valid_s": 4.0}) as t, t.client() as client:
        record = client.verify("alice", wait_s=5)
        assert record.approved
        fresh = _verified(client, record)
        while client.get(record.id).approved:
            time.sleep(0.02)
        assert (fresh, _verified(client, record)) == (True, False)


def _verified(client: AgentClient, record: VerificationBody) -> bool:
    """``approved`` in the event that tells of the verdict."""
    for event in client.events(record.id, after=FROM_THE_START):
        if event.data.get("state") == "verified":
            return bool(event.data["approved"])
    raise AssertionError("no such event")


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_a_reader_that_comes_during_the_stop_is_not_left_waiting() -> None:
    async def scenario() -> None:
        bus = EventBus()
        bus.close()
        with bus.subscribe() as reader, pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(reader.next(60.0), 1.0)

    asyncio.run(scenario())


def test_stopping_is_quick_while_events_are_read_and_requests_wait(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="hang", times=None))
    threads: list[threading.Thread] = []
    with terminal(
        tmp_path, sandbox, session={"verdict_timeout_s": 30.0}, cypherface={"timeouts": {"match_s": 60.0}}
    ) as t:
        with t.client() as client:
            record = client.verify("alice")
            for work in (_read_events, _wait_long):
                thread = threading.Thread(target=work, args=(t, record))
                thread.start()
                threads.append(thread)
            while client.get(record.id).state is not State.MATCHING:
                time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def _read_events(t: Terminal, record: VerificationBody) -> None:
    del record
    with t.client() as client:
        list(client.events())


def _wait_long(t: Terminal, record: VerificationBody) -> None:
    with t.client() as client:
        client.get(record.id, wait_s=60)


def test_a_server_that_fails_still_closes_the_store(tmp_path: Path, sandbox: SandboxServer) -> None:
    t = Terminal(tmp_path, sandbox.base_url, sandbox.credentials)

    async def scenario(failing: Callable[..., Any]) -> None:
        agent = Agent(t._config, camera_factory=t._make_camera, vision_factory=t._open_vision)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edge_agent.daemon._Server.serve", failing)
            with pytest.raises(OSError, match="no more files"):
                await serve_until(asyncio.Event(), agent)

    async def failing(*_: object, **__: object) -> None:
        raise OSError("no more files")

    asyncio.run(scenario(failing))
    assert not t.socket.exists()
    with t, t.client() as client:  # neither the lock of the state directory nor the socket was kept
        assert client.verify("alice", wait_s=5).approved


# -- the storage fails under a running daemon -------------------------------------------------------------------------


def test_an_error_of_the_disk_is_said_and_the_terminal_serves_again_without_a_restart(
    running: Terminal, client: AgentClient
) -> None:
    def broken(store: Store, *_: object) -> None:
        store._database._broken = "disk I/O error"
        store.counts()

    undo = intercept(running.agent.keeper, Store.find_replay, broken)
    with pytest.raises(ApiError) as caught:
        client.verify("alice")
    undo()
    assert (caught.value.code, caught.value.status) == ("storage_failed", 503)
    deadline = time.monotonic() + 10
    while not client.ready():
        assert time.monotonic() < deadline, "the store was not opened anew"
        time.sleep(0.02)
    assert client.verify("alice", wait_s=5).approved
    assert running.agent.keeper.reopened == 1
    told = [(event.data["state"], event.data["code"]) for event in _events(client) if event.kind == "storage"]
    assert told[-2:] == [("missing", "storage_failed"), ("open", None)]


def _events(client: AgentClient) -> list[ServerEvent]:
    found = []
    for event in client.events(after=FROM_THE_START):
        found.append(event)
        if event.kind == "state" and event.data["state"] == "verified":
            return found
    return found
