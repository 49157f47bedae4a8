"""Whose verification it is: two POS callers, an admin and a stranger on one running terminal."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from edge_agent.api.access import Access, Grants
from edge_agent.api.ownership import MOST_KNOWN, lens
from edge_agent.api.peer import Credentials, Role
from edge_agent.api.routes import application
from edge_agent.errors import StorageError
from edge_agent.events import Event
from edge_agent.outbox.records import VerificationRecord
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.api.forged import ask, process
from tests.faces import measurement
from tests.terminal import Terminal, terminal

OWNER, OTHER, ADMIN = process(4001), process(4002), process(0)
POS: frozenset[Role] = frozenset({"pos"})


@dataclass
class Desk:
    """A running terminal and its API, for callers of any user."""

    terminal: Terminal
    app: Starlette
    access: Access

    def ask(self, caller: Credentials, method: str, path: str, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.terminal.run(ask(self.app, method, path, caller, **options))
        return answer

    def start(self, caller: Credentials, key: str, user: str = "alice") -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return self.ask(caller, "POST", "/v1/verifications", headers=headers, json={"user_id": user})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Nobody stands before the camera, and the search takes longer than the tests."""
    access = Access()
    access.grants = Grants({**access.grants.users, 4001: POS, 4002: POS})
    session = {"search_timeout_s": 300.0}
    with SandboxServer() as sandbox, terminal(tmp_path_factory.mktemp("desk"), sandbox, session=session) as t:
        sandbox.enrol("alice", SOURCE)
        t.eyes.sees = measurement(())
        yield Desk(t, application(t.agent, t.settings, access), access)


@pytest.fixture
def active(desk: Desk) -> Iterator[str]:
    """A verification of OWNER's that is searching."""
    id_ = desk.start(OWNER, key=uuid.uuid4().hex).json()["id"]
    yield id_
    with contextlib.suppress(KeyError):
        desk.ask(OWNER, "DELETE", f"/v1/verifications/{id_}")


def without_id(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "{}"), ("GET", "{}?wait=30"), ("GET", "{}/events"), ("DELETE", "{}")],
)
def test_what_belongs_to_another_is_answered_exactly_as_what_is_not_there(
    desk: Desk, active: str, method: str, path: str
) -> None:
    foreign = desk.ask(OTHER, method, f"/v1/verifications/{path.format(active)}")
    unknown = desk.ask(OTHER, method, f"/v1/verifications/{path.format('0' * 32)}")
    assert without_id(foreign) == without_id(unknown)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found")
    assert foreign.headers == unknown.headers
    assert desk.ask(OWNER, "GET", f"/v1/verifications/{active}").json()["state"] == "searching"


def test_only_the_owner_says_what_is_on_the_screen(desk: Desk, active: str) -> None:
    answers = [
        desk.ask(caller, "POST", f"/v1/verifications/{active}/challenge", json={"step": 1, "shown": True}).json()[
            "code"
        ]
        for caller in (OWNER, OTHER, ADMIN)
    ]
    assert answers == ["challenge_not_running", "not_found", "forbidden"]


def test_the_owner_and_an_admin_may_read_but_only_the_owner_may_cancel(desk: Desk, active: str) -> None:
    for caller in (OWNER, ADMIN):
        assert desk.ask(caller, "GET", f"/v1/verifications/{active}").json()["id"] == active
    refused = desk.ask(ADMIN, "DELETE", f"/v1/verifications/{active}")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert desk.ask(OWNER, "DELETE", f"/v1/verifications/{active}").json()["state"] == "cancelled"


def test_the_list_is_ones_own_and_an_admins_is_everybodys(desk: Desk, active: str) -> None:
    desk.ask(OWNER, "DELETE", f"/v1/verifications/{active}")
    other = desk.start(OTHER, key="list").json()["id"]
    desk.ask(OTHER, "DELETE", f"/v1/verifications/{other}")

    def listed(caller: Credentials, query: str = "") -> set[str]:
        return {item["id"] for item in desk.ask(caller, "GET", f"/v1/verifications{query}").json()["items"]}

    assert active in listed(OWNER)
    assert listed(OTHER) == listed(OTHER, "?state=cancelled") == {other}
    assert listed(OTHER, "?state=searching") == set()
    assert {active, other} <= listed(ADMIN)


def test_busy_names_the_verification_in_the_way_to_its_owner_alone(desk: Desk, active: str) -> None:
    own = desk.start(OWNER, key="busy-1")
    assert (own.status_code, own.json()["code"], own.json()["active_id"]) == (409, "busy", active)
    for caller in (OTHER, ADMIN):
        foreign = desk.start(caller, key="busy-2")
        assert (foreign.status_code, foreign.json()["code"]) == (409, "busy")
        assert active not in foreign.text


def test_one_key_of_two_callers_is_two_keys(desk: Desk, active: str) -> None:
    desk.ask(OWNER, "DELETE", f"/v1/verifications/{active}")
    first = desk.start(OWNER, key="shared").json()
    desk.ask(OWNER, "DELETE", f"/v1/verifications/{first['id']}")
    second = desk.start(OTHER, key="shared", user="no-bob").json()
    desk.ask(OTHER, "DELETE", f"/v1/verifications/{second['id']}")
    assert (second["replayed"], second["id"] != first["id"]) == (False, True)
    assert desk.start(OWNER, key="shared").json()["id"] == first["id"]


def test_events_of_the_terminal_are_for_everybody_and_others_for_their_owner(desk: Desk, active: str) -> None:
    """Each kind, about a verification and about none; None = not shown, "" = shown without the id."""
    agent = desk.terminal.agent

    def seen(caller: str, kind: str, id_: str | None) -> str | None:
        async def look() -> str | None:
            event = Event("life", 1, agent.clock.wall(), kind, id_, {"final": False})
            shown = await lens(agent, caller)(event)
            return None if shown is None else shown.verification_id or ""

        result: str | None = desk.terminal.run(look())
        return result

    kinds = ["state", "hint", "camera", "dropped"]
    assert [seen("uid:4001", kind, active) for kind in kinds] == [active] * 4
    assert [seen("uid:4002", kind, active) for kind in kinds] == [None, None, "", ""]
    assert [seen("uid:4002", kind, "unknown") for kind in kinds] == [None, None, "", ""]
    assert [seen("uid:4002", kind, None) for kind in ("network", "storage", "configuration")] == [""] * 3


def test_an_owner_is_not_taken_for_a_stranger_because_the_store_was_away_for_a_moment(
    desk: Desk, active: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be looked up is neither shown nor hidden: the reader hears of it and can resume before it."""
    agent = desk.terminal.agent
    event = Event("life", 1, agent.clock.wall(), "state", active, {"final": False})

    async def away(id_: str) -> VerificationRecord:
        raise StorageError("cannot read: the disk is away")

    async def look() -> tuple[Event | None, Event | None]:
        owner, other = lens(agent, "uid:4001"), lens(agent, "uid:4002")
        with monkeypatch.context() as broken:
            broken.setattr(agent, "get", away)
            for see in (owner, other):
                with pytest.raises(StorageError):
                    await see(event)
        return await owner(event), await other(event)

    assert desk.terminal.run(look()) == (event, None)


def test_a_reader_of_weeks_does_not_remember_every_verification(desk: Desk, active: str) -> None:
    agent = desk.terminal.agent
    read: list[str] = []

    class Counting:
        async def get(self, id_: str) -> VerificationRecord:
            read.append(id_)
            return await agent.get(active)

    async def look() -> None:
        see = lens(Counting(), "uid:4001")  # type: ignore[arg-type]  # all that it asks of an agent
        for id_ in ["first", "first", *(str(n) for n in range(MOST_KNOWN)), "first"]:
            assert await see(Event("life", 1, agent.clock.wall(), "hint", id_, {})) is not None

    desk.terminal.run(look())
    assert read.count("first") == 2
    assert len(read) == MOST_KNOWN + 2


def test_a_stream_of_everything_is_looked_at_through_the_callers_lens(desk: Desk, active: str) -> None:
    """The stream has no end: it is read until the word that the test itself publishes."""

    async def read(caller: Credentials) -> str:
        received = ""
        done = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def tee(message: Any) -> None:
                nonlocal received
                received += message.get("body", b"").decode()
                if "the-end" in received:
                    done.set()
                await send(message)

            await desk.app(scope, receive, tee)

        task = asyncio.create_task(ask(app, "GET", "/v1/events", caller, headers={"Last-Event-ID": "0"}))
        await asyncio.sleep(0)
        desk.terminal.agent.bus.publish(
            "storage", {"state": "open", "code": "the-end"}, at=desk.terminal.agent.clock.wall()
        )
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return received

    assert active in desk.terminal.run(read(OWNER))
    assert active in desk.terminal.run(read(ADMIN))
    assert active not in desk.terminal.run(read(OTHER))


@pytest.mark.parametrize(("path", "revoked"), [("/v1/events", True), ("{}/events", True), ("/v1/events", False)])
def test_whose_role_is_taken_away_is_told_nothing_more_also_on_a_stream_that_is_open(
    desk: Desk, active: str, path: str, revoked: bool
) -> None:
    """The stream ends before the next event; with grants that say the same as before it goes on."""
    path = path.format(f"/v1/verifications/{active}")
    before = desk.access.grants
    users = {**before.users} if not revoked else {0: before.users[0]}

    async def read() -> tuple[str, bool]:
        received = asyncio.Queue[str]()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def tee(message: Any) -> None:
                received.put_nowait(message.get("body", b"").decode())
                await send(message)

            await desk.app(scope, receive, tee)

        task = asyncio.create_task(ask(app, "GET", path, OWNER))
        while "edge-agent events" not in await asyncio.wait_for(received.get(), 10):
            pass
        while path != "/v1/events" and "searching" not in await asyncio.wait_for(received.get(), 10):
            pass
        desk.access.grants = Grants(users)
        bus, at = desk.terminal.agent.bus, desk.terminal.agent.clock.wall()
        data = {"code": None, "text": "after", "since": at.isoformat(), "enrolment": False}
        bus.publish("hint", data, at=at, verification_id=active)
        told = await asyncio.wait_for(received.get(), 10)
        ended, _ = await asyncio.wait({task}, timeout=10 if revoked else 0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return told, bool(ended)

    try:
        told, ended = desk.terminal.run(read())
    finally:
        desk.access.grants = before
    assert ("after" in told, ended) == (not revoked, revoked)


def test_a_pos_is_not_told_what_others_asked_and_what_is_configured(desk: Desk) -> None:
    pos = desk.ask(OWNER, "GET", "/v1/status").json()
    admin = desk.ask(ADMIN, "GET", "/v1/status").json()
    assert told(pos["configuration"]) == {"restart_needed": []}
    assert told(pos["storage"]) == {"takes_captures": True}
    assert pos["access"] is None
    assert pos["queue"]["states"] is None
    assert pos["offline"] is None
    assert (admin["offline"]["policy"], admin["offline"]["provisional"]) == ("queue", None)
    assert admin["offline"]["matches"].keys() == {"verified", "not_verified", "newest_at", "ttl_s", "per_user"}
    assert {"file", "restart_needed"} <= admin["configuration"].keys()
    assert {"refused", "tokens"} == admin["access"].keys()
    assert pos.keys() == admin.keys()


def told(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
