"""What the terminal keeps of a person, and how it goes: enrolment, verdicts, withdrawal, destruction."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from edge_agent.api.wire import VerificationBody
from edge_agent.client import FROM_THE_START, AgentClient, ApiError
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadTarget
from edge_agent.errors import AgentError, SessionRefused
from edge_agent.outbox import Store
from edge_agent.outbox.records import Destruction
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import Frame, Measurement, State
from tests.api.calls import SOURCE, raw
from tests.faces import measurement, scores
from tests.terminal import Terminal, terminal

NOBODY = measurement(())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxServer) -> Iterator[Terminal]:
    changes: dict[str, Any] = {
        "session": {"search_timeout_s": 20.0, "verdict_timeout_s": 5.0, "capture_window_s": 0.0, "hint_hold_s": 0.05,
                    "max_failures": 0},
        "cypherface": {"timeouts": {"connect_s": 1.0, "request_s": 5.0, "match_s": 5.0}},
    }  # fmt: skip
    with terminal(tmp_path_factory.mktemp("people"), sandbox, **changes) as t:
        yield t


@pytest.fixture
def running(shared: Terminal, sandbox: SandboxServer) -> Terminal:
    """One terminal for all of them; everything a test changes is as at the start."""
    sandbox.reset()
    for user in ("alice", "no-bob"):
        sandbox.enrol(user, SOURCE)
    shared.eyes.sees, shared.eyes.scores = measurement(), scores(0.9, 0.9)
    for user in ("alice", "no-bob"):
        shared.run(shared.agent.delete_user(user, actor="test"))
    return shared


@pytest.fixture
def client(running: Terminal) -> Iterator[AgentClient]:
    with running.client() as c:
        yield c


def jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((720, 1280, 3), 128, np.uint8))[1].tobytes())


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def steps(sandbox: SandboxServer) -> list[str]:
    return [seen.step for seen in sandbox.requests if seen.step in {"generate_url", "put", "match"}]


def history(t: Terminal, verification_id: str) -> list[str]:
    with t.client() as client:
        return [entry.event for entry in client.outbox_show(verification_id).history]


# -- enrolment with a picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sees", "live", "checks"),
    [
        (measurement(inter_eye_px=80.0), 0.9, [("too_far", "inter_eye", 80.0, 90.0, "px")]),
        (measurement(sharpness=0.45, luminance=0.25), 0.9,
         [("too_dark", "luminance", 0.25, 0.3, "0-1"), ("too_blurry", "sharpness", 0.45, 0.5, "0-1")]),
        (measurement(), 0.1, [("spoof_suspected", "liveness", None, None, "")]),
    ],
)  # fmt: skip
def test_a_picture_that_the_gate_would_take_may_be_too_poor_to_enrol(
    running: Terminal, client: AgentClient, sandbox: SandboxServer, sees: Measurement, live: float, checks: list[Any]
) -> None:
    running.eyes.sees, running.eyes.scores = sees, scores(0.9, live)
    with pytest.raises(ApiError) as caught:
        client.enrol("carol", jpeg())
    problem = caught.value.problem
    assert (caught.value.status, caught.value.code) == (422, "picture_refused")
    assert problem["reasons"] == [check[0] for check in checks]
    assert [tuple(check.values()) for check in problem["checks"]] == checks
    assert steps(sandbox) == []


def test_many_pictures_at_once_do_not_keep_a_customers_frames_waiting(
    running: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, order, go = running.agent, list[str](), threading.Event()

    def measure(frame: Frame) -> Measurement:
        order.append("picture")
        go.wait(5)
        return measurement()

    async def scenario() -> None:
        pictures = [asyncio.create_task(agent.enrol(f"user-{n}", jpeg(), actor="test")) for n in range(4)]
        await asyncio.to_thread(until, lambda: bool(order), "no picture was screened")
        frame = asyncio.create_task(agent._rooms.inference.run(order.append, "frame"))
        await asyncio.sleep(0.02)
        go.set()
        await asyncio.gather(frame, *pictures)

    monkeypatch.setattr(running.eyes, "measure", measure)
    running.run(scenario())
    assert order == ["picture", "frame", "picture", "picture", "picture"]


def test_the_first_source_stays_and_the_second_is_a_conflict(client: AgentClient, sandbox: SandboxServer) -> None:
    client.enrol("carol", jpeg())
    assert client.verify("carol", wait_s=5).approved
    with pytest.raises(ApiError) as caught:
        client.enrol("carol", jpeg())
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (409, "source_exists", False)
    assert "does not replace" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("step", "kind", "hint"),
    [("generate_url", "drop", ""), ("put", "status", "may have arrived"), ("put", "drop", "may have arrived")],
)
def test_an_enrolment_that_cannot_be_uploaded_is_refused_and_never_queued(
    client: AgentClient, sandbox: SandboxServer, step: Any, kind: Any, hint: str
) -> None:
    sandbox.inject(Fault(step=step, kind=kind, times=None))
    with pytest.raises(ApiError) as caught:
        client.enrol("carol", jpeg())
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, "offline", True)
    assert hint in str(caught.value.hint)
    assert client.outbox_list().items == []
    seen = len(steps(sandbox))
    sandbox.clear_faults()
    assert len(steps(sandbox)) == seen


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ({}, jpeg(), 415, "unsupported_media_type"),
        ({"from": "disk"}, b"", 400, "invalid_request"),
        ({"from": "camera"}, b"x", 400, "invalid_request"),
        ({"from": "camera", "search_timeout_s": "121"}, b"", 400, "invalid_request"),
        ({"from": "camera", "search_timeout_s": "0.5"}, b"", 400, "invalid_request"),
    ],
)
def test_a_request_to_enrol_must_make_sense(
    running: Terminal, query: dict[str, str], content: bytes, status: int, code: str
) -> None:
    with raw(running) as http:
        answer = http.put("/v1/users/carol/source", params=query, content=content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


# -- enrolment from the camera ----------------------------------------------------------------------------------------


def test_whoever_stands_before_the_camera_is_enrolled_and_nothing_is_kept(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    after = running.agent.bus.last_seq
    running.eyes.sees = measurement(inter_eye_px=80.0)  # enough for the gate, not for a source
    opened, before = running.camera.opened, len(client.matches("carol").items)
    threading.Timer(0.4, lambda: setattr(running.eyes, "sees", measurement())).start()
    client.enrol_from_camera("carol")
    assert (running.camera.opened, running.camera.is_open) == (opened + 1, False)
    assert client.outbox_list().items == []
    told = [e for e in running.agent.bus._kept if e.seq > after and e.kind in {"hint", "enrolment"}]
    assert [e.data["state"] for e in told if e.kind == "enrolment"] == ["searching", "uploading", "ended"]
    hints = [e for e in told if e.kind == "hint"]
    assert hints[0].data["code"] == "too_far"
    assert all(e.verification_id is None and e.data["enrolment"] for e in hints)
    assert client.verify("carol", wait_s=5).approved
    assert len(client.matches("carol").items) == before + 1


@pytest.mark.parametrize(("prepare", "status", "code"), [("enrolled", 409, "source_exists"), ("down", 503, "offline")])
def test_nobody_is_filmed_for_a_source_that_has_nowhere_to_go(
    running: Terminal, client: AgentClient, sandbox: SandboxServer, prepare: str, status: int, code: str
) -> None:
    opened = running.camera.opened
    if prepare == "down":
        sandbox.inject(Fault(step="generate_url", kind="drop", times=None))
    with pytest.raises(ApiError) as caught:
        client.enrol_from_camera("alice")
    assert (caught.value.status, caught.value.code) == (status, code)
    assert running.camera.opened == opened


@pytest.mark.parametrize(
    ("sees", "broken", "status", "code", "reasons"),
    [
        (measurement(luminance=0.1), None, 422, "picture_refused", ["too_dark"]),
        (measurement(), "camera_unavailable", 503, "camera_unavailable", None),
    ],
)
def test_an_enrolment_that_finds_no_picture_says_why(
    running: Terminal, client: AgentClient, sees: Measurement, broken: str | None, status: int, code: str, reasons: Any
) -> None:
    running.eyes.sees, running.camera.broken = sees, broken
    with pytest.raises(ApiError) as caught:
        client.enrol_from_camera("carol", search_timeout_s=1.0)
    running.camera.broken = None
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.problem.get("reasons") == reasons
    assert not running.camera.is_open


class Sitting:
    """An enrolment from the camera that finds nobody, asked for in a thread."""

    def __init__(self, t: Terminal, user: str = "carol") -> None:
        t.eyes.sees = NOBODY
        self.t, self.user = t, user
        self.answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        until(lambda: t.agent._enroller.sitting is not None, "the enrolment did not begin")

    def _ask(self) -> None:
        with raw(self.t) as http:
            self.answer = http.put(f"/v1/users/{self.user}/source", params={"from": "camera"})

    def code(self) -> str:
        self._thread.join(10)
        assert self.answer is not None
        return f"{self.answer.status_code} {self.answer.json()['code']}"


def test_an_enrolment_and_a_verification_exclude_each_other(running: Terminal, client: AgentClient) -> None:
    sitting = Sitting(running)
    assert running.agent.searching
    for ask in (lambda: client.verify("alice"), lambda: client.enrol_from_camera("dave")):
        with pytest.raises(ApiError) as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (409, "busy")
    assert running.run(running.agent.try_camera()) is None
    client.delete_user("carol")
    assert sitting.code() == "409 state_conflict"
    record = client.verify("alice")
    with pytest.raises(ApiError) as caught:
        client.enrol_from_camera("dave")
    assert (caught.value.status, caught.value.code) == (409, "busy")
    client.cancel(record.id)


def test_hanging_up_ends_the_filming(running: Terminal) -> None:
    after = running.agent.bus.last_seq
    running.eyes.sees = NOBODY
    with raw(running) as http, pytest.raises(httpx.ReadTimeout):
        http.put("/v1/users/carol/source", params={"from": "camera"}, timeout=0.3)
    until(lambda: not running.agent.searching, "the filming went on")
    assert not running.camera.is_open
    ended = [e.data for e in running.agent.bus._kept if e.seq > after and e.kind == "enrolment"]
    assert ended[-1] == {"state": "ended", "code": "cancelled"}


def test_a_camera_that_opens_after_the_client_hung_up_is_closed(
    running: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow driver: the request is gone before there is anything to film with."""
    agent, opened, called = running.agent, threading.Event(), asyncio.Event()
    open_camera = running.camera.open

    def slowly() -> None:
        running._loop.call_soon_threadsafe(called.set)
        opened.wait(5)
        open_camera()

    async def hang_up() -> None:
        asking = asyncio.create_task(agent.enrol_from_camera("carol", actor="test"))
        await called.wait()
        asking.cancel()
        opened.set()
        with pytest.raises(asyncio.CancelledError):
            await asking

    monkeypatch.setattr(running.camera, "open", slowly)
    running.run(hang_up())
    assert not running.camera.is_open
    assert not agent.searching


def test_no_task_is_called_by_the_name_of_a_user(running: Terminal, client: AgentClient) -> None:
    """The loop's own complaints, in the log, name the task they are about."""
    sitting = Sitting(running, "carol-4711")

    async def names() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks()]

    told = running.run(names())
    client.delete_user("carol-4711")
    assert sitting.code() == "409 state_conflict"
    assert [name for name in told if "4711" in name] == []


@pytest.mark.parametrize("origin", ["camera", "body"])
def test_who_is_deleted_while_an_enrolment_is_prepared_is_neither_filmed_nor_sent(
    running: Terminal, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    agent, opened, generate_url = running.agent, running.camera.opened, CypherFaceClient.generate_url
    picture = jpeg()

    async def scenario() -> tuple[Destruction, bool]:
        asked, deleted = asyncio.Event(), asyncio.Event()

        async def slowly(*args: Any) -> UploadTarget:
            asked.set()
            await deleted.wait()
            return await generate_url(*args)

        monkeypatch.setattr(CypherFaceClient, "generate_url", slowly)
        work = (
            agent.enrol("carol", picture, actor="t")
            if origin == "body"
            else agent.enrol_from_camera("carol", actor="t")
        )
        enrolling = asyncio.create_task(work)
        await asyncio.wait_for(asked.wait(), 10)
        done = await agent.delete_user("carol", actor="test")
        deleted.set()
        with pytest.raises(AgentError) as caught:
            await enrolling
        assert caught.value.code == "state_conflict"
        return done

    assert running.run(scenario())[1] is False, "nobody was filmed"
    assert (running.camera.opened, "put" in steps(sandbox)) == (opened, False)
    monkeypatch.undo()
    running.run(agent.enrol("carol", picture, actor="test"))


def test_a_stop_ends_the_enrolment(running: Terminal) -> None:
    sitting = Sitting(running)
    running.run(running.agent._enroller.end(SessionRefused("cannot enrol: stopping", code="stopping")))
    assert sitting.code() == "503 stopping"
    assert not running.camera.is_open


# -- withdrawal -------------------------------------------------------------------------------------------------------


Reach = Callable[[Terminal, AgentClient, SandboxServer, str], VerificationBody]


def asked(client: AgentClient, key: str, **options: Any) -> VerificationBody:
    return client.verify("alice", idempotency_key=key, reference="order 7", **options)


def searching(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del sandbox
    t.eyes.sees = NOBODY
    return asked(client, key)


def leased(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del sandbox
    record = asked(client, key)
    until(lambda: "lease" in history(t, record.id), "it was not leased")
    return client.get(record.id)


def uploading(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del sandbox
    record = asked(client, key)
    until(lambda: "upload" in history(t, record.id), "nothing was uploaded")
    return client.get(record.id)


def matching(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del t
    record = asked(client, key)
    until(lambda: "put" in steps(sandbox), "nothing was uploaded")
    return client.get(record.id)


def pending(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del sandbox
    record = asked(client, key)
    until(lambda: client.get(record.id).error is not None, "no attempt failed")
    t.run(t.agent.keeper.run(Store.pend, record.id))
    return client.get(record.id)


def over(t: Terminal, client: AgentClient, sandbox: SandboxServer, key: str) -> VerificationBody:
    del t, sandbox
    return asked(client, key, wait_s=5)


@pytest.mark.parametrize(
    ("reach", "fault", "before", "after", "not_sent"),
    [
        (searching, None, State.SEARCHING, State.DELETED, {"generate_url", "put", "match"}),
        (leased, Fault(step="generate_url", kind="latency", latency_s=2.0), State.MATCHING, State.DELETED, {"put"}),
        (uploading, Fault(step="put", kind="hang"), State.MATCHING, State.DELETED, {"match"}),
        (matching, Fault(step="match", kind="latency", latency_s=2.0), State.MATCHING, State.DELETED, set()),
        (pending, Fault(step="generate_url", kind="drop", times=None), State.PENDING, State.DELETED, {"put"}),
        (over, Fault(step="generate_url", kind="status", status=400), State.FAILED, State.DELETED, {"put"}),
        (over, None, State.VERIFIED, State.VERIFIED, set()),
    ],
    ids=["searching", "leased", "uploading", "matching", "pending", "parked", "verified"],
)
def test_a_withdrawal_ends_what_is_not_over_and_leaves_nothing_personal(
    running: Terminal,
    client: AgentClient,
    sandbox: SandboxServer,
    request: pytest.FixtureRequest,
    reach: Reach,
    fault: Fault | None,
    before: State,
    after: State,
    not_sent: set[str],
) -> None:
    if fault is not None:
        sandbox.inject(fault)
    key = request.node.callspec.id
    record = reach(running, client, sandbox, key)
    assert record.state is before
    withdrawn = client.withdraw(record.id)
    assert not running.agent.searching
    assert not running.camera.is_open
    assert running.agent.forwarder is not None and not running.agent.forwarder._sequences
    said = (withdrawn.state, withdrawn.approved, withdrawn.user_id, withdrawn.reference, withdrawn.similarity)
    assert said == (after, False, None, None, None)
    assert not any(event.data.get("approved") for event in client.events(record.id, after=FROM_THE_START))
    assert client.outbox_list().items == []
    assert client.withdraw(record.id).state is after  # again: nothing happens
    again = asked(client, key)
    assert (again.id, again.replayed, again.state) == (record.id, True, after)
    assert history(running, record.id).count("erase") == 1
    assert not_sent.isdisjoint(steps(sandbox))
    forget_quarantines(running)


def forget_quarantines(t: Terminal) -> dict[str, float]:
    """How long the captures of other verifications still wait for each; the next test need not."""

    def forget(store: Store) -> dict[str, float]:
        now_s = store._now().running_s
        marks = [dict(mark) for mark in store._query("upload_marks")]
        store._query("prune_upload_marks", running_s=1e12)
        return {mark["verification_id"]: mark["until_running_s"] - now_s for mark in marks}

    left: dict[str, float] = t.run(t.agent.keeper.run(forget))
    return left


def test_the_answer_for_what_was_withdrawn_verifies_nobody(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    """Also where the sequence could not be cut short: without the lease its result is not taken."""
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.3))
    record = matching(running, client, sandbox, "thrown-away")
    running.run(running.agent.keeper.run(Store.withdraw, record.id))
    until(lambda: not running.agent.forwarder_status.active, "the sequence did not end")  # type: ignore[union-attr]
    assert sandbox.judged != ()
    assert client.get(record.id).state is State.DELETED
    assert "verdict" not in history(running, record.id)
    forget_quarantines(running)


def test_whoever_withdrew_during_an_upload_waits_no_longer_than_the_quarantine(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    sandbox.inject(Fault(step="put", kind="hang"))
    record = uploading(running, client, sandbox, "quarantine")
    client.withdraw(record.id)
    assert 0 < forget_quarantines(running)[record.id] <= 60.0


def test_nobody_withdraws_what_there_is_not(client: AgentClient) -> None:
    with pytest.raises(ApiError) as caught:
        client.withdraw("nope")
    assert (caught.value.status, caught.value.code) == (404, "not_found")


# -- what the audit log knows of a request ----------------------------------------------------------------------------


def test_the_audit_log_proves_the_request_without_telling_it(running: Terminal, client: AgentClient) -> None:
    fields: dict[str, Any] = {"reference": "order 7", "amount": "12.50", "currency": "EUR"}
    fields["consent"] = {"reference": "form 17", "scopes": ["match", "template"]}
    record = client.verify("alice", **fields, wait_s=5)
    created = client.outbox_show(record.id).history[0].detail
    keys = running.run(running.agent.keeper.run(lambda store: store._keys))
    for name, value in {**fields, "consent": "form 17"}.items():
        assert created[name] == keys.claim_hmac(record.id, name, value).hex()
    assert created["consent_scopes"] == ["match", "template"]
    kept = running.run(running.agent.get(record.id))
    assert (kept.consent.reference, kept.consent.scopes) == ("form 17", ("match", "template"))
    client.withdraw(record.id)
    assert client.outbox_show(record.id).history[0].detail == created


# -- verdicts and destruction -----------------------------------------------------------------------------------------


def test_the_last_verdicts_of_a_user_come_newest_first_and_bounded(client: AgentClient, sandbox: SandboxServer) -> None:
    ids = [client.verify("alice", wait_s=5).id for _ in range(3)]
    client.verify("no-bob", wait_s=5)
    found = client.matches("alice", limit=2).items
    assert [item.verification_id for item in found] == ids[:0:-1]
    assert (found[0].state, found[0].similarity, found[0].attempts, found[0].late) == (State.VERIFIED, 99.5, 1, False)
    assert found[0].at is not None
    evidence, judged = found[0].evidence, sandbox.judged[2]
    assert evidence is not None
    assert (evidence.answer, evidence.http_status) == ("200: match=true, similarity=99.5", 200)
    assert evidence.image_sha256 == judged.target_sha256
    assert [item.state for item in client.matches("no-bob").items] == [State.NOT_VERIFIED]
    client.withdraw(ids[2])
    assert [item.verification_id for item in client.matches("alice").items] == ids[1::-1]
    assert client.matches("nobody").items == []


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1"])
def test_the_list_of_verdicts_is_bounded(running: Terminal, limit: str) -> None:
    with raw(running) as http:
        answer = http.get("/v1/users/alice/matches", params={"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_deleted_user_leaves_a_record_of_the_destruction_only(
    running: Terminal, client: AgentClient, sandbox: SandboxServer
) -> None:
    client.verify("alice", wait_s=5)
    sandbox.inject(Fault(step="generate_url", kind="drop", times=None))
    client.verify("alice", idempotency_key="d")
    until(lambda: client.status()["network"]["state"] == "offline", "the service was reached")
    running.eyes.sees = NOBODY
    search = client.verify("alice")
    done = client.delete_user("alice")
    assert (done.verifications, done.captures, done.filming_ended, done.traces_left) == (3, 1, True, False)
    assert not running.camera.is_open
    assert client.get(search.id).state is State.DELETED
    assert client.matches("alice").items == []
    assert client.verify("alice", idempotency_key="d").state is State.DELETED
    nothing = client.delete_user("alice")
    assert (nothing.verifications, nothing.captures, nothing.filming_ended) == (0, 0, False)
    assert nothing.audit_seq > done.audit_seq
    assert client.audit_verify().ok


def test_a_deleted_user_is_not_matched_any_more(running: Terminal, client: AgentClient, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="put", kind="hang"))
    record = uploading(running, client, sandbox, "not-matched")
    client.delete_user("alice")
    assert running.agent.forwarder is not None and not running.agent.forwarder._sequences
    assert "match" not in steps(sandbox)
    assert client.get(record.id).state is State.DELETED
    assert 0 < forget_quarantines(running)[record.id] <= 60.0
