"""Who is admitted, as what, and to which routes: users, groups, tokens, and pages in a browser."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import Response

from edge_agent.agent import Agent
from edge_agent.api import routes
from edge_agent.api.access import Access, resolve
from edge_agent.api.calls import Call
from edge_agent.api.operations import OPERATIONS
from edge_agent.api.peer import Credentials
from edge_agent.config import UNMAPPED_ID, ApiSection, Config
from edge_agent.errors import ConfigurationError
from edge_agent.settings import Settings
from tests.api.forged import PORT, ask, bearer, process

POS, ENROL, ADMIN = "p" * 32, "e" * 32, "a" * 32
STRANGER, POS_USER, POS_GROUP, ENROL_USER, ADMIN_USER = 4000, 4001, 5001, 4002, 4003
CYPHERFACE = {
    "base_url": "http://127.0.0.1:9/",
    "merchant_id": "0" * 24,
    "api_key": {"env": "KEY"},
    "upload_hosts": ["127.0.0.1:9"],
}


def section(folder: Path, **changes: Any) -> ApiSection:
    """Every role has a user, one has a group, each has a token."""
    for name, token in (("pos", POS), ("enrol", ENROL), ("admin", ADMIN)):
        write_secret(folder / name, token)
    values = {
        "socket": folder / "api.sock",
        "socket_group": None,
        "tcp": f"127.0.0.1:{PORT}",
        "token": {"file": folder / "pos"},
        "enrol_token": {"file": folder / "enrol"},
        "admin_token": {"file": folder / "admin"},
        "roles": {
            "pos": {"users": [POS_USER], "groups": [POS_GROUP]},
            "enrol": {"users": [ENROL_USER]},
            "admin": {"users": [ADMIN_USER]},
        },
    }
    return ApiSection.model_validate({**values, **changes})


def write_secret(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def access_of(api: ApiSection) -> Access:
    access = Access()
    access.prepare(api, strict=True)()
    return access


async def answered(call: Call) -> Response:
    return Response(f"{call.peer.caller} {' '.join(sorted(call.peer.roles))}")


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Access:
    return access_of(section(tmp_path_factory.mktemp("access")))


@pytest.fixture(scope="module")
def app(access: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starlette]:
    """Every route as it is, with handlers that only say who called."""
    agent = Agent(Config.model_validate({"state_dir": tmp_path_factory.mktemp("state"), "cypherface": CYPHERFACE}))
    table = [entry._replace(handler=answered) for entry in routes.route_table()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "route_table", lambda: table)
        yield routes.application(agent, Settings(agent, None), access)


def get(
    app: Starlette, path: str, credentials: Credentials | None = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    return asyncio.run(ask(app, "GET", path, credentials, headers=headers))


def test_a_daemon_that_runs_as_nobody_does_not_take_everybody_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose map names neither, its own user and every stranger look the same."""
    monkeypatch.setattr(os, "geteuid", lambda: UNMAPPED_ID)
    assert Access().peer_of(process(UNMAPPED_ID)) is None
    assert resolve(ApiSection())[0].roles_of(process(UNMAPPED_ID)) == frozenset()


# -- every route, every role, both ways -------------------------------------------------------------------------------

EVERYTHING = {"any", "pos", "enrol", "admin"}
CALLERS: list[tuple[str, Credentials | None, str | None, set[str], str]] = [
    ("root", process(0), None, EVERYTHING, "forbidden"),
    ("the daemon's user", process(os.geteuid()), None, EVERYTHING, "forbidden"),
    ("an admin", process(ADMIN_USER), None, EVERYTHING, "forbidden"),
    ("a POS", process(POS_USER), None, {"any", "pos"}, "forbidden"),
    ("a POS by its group", process(STRANGER, POS_GROUP), None, {"any", "pos"}, "forbidden"),
    ("an enroller", process(ENROL_USER), None, {"any", "enrol"}, "forbidden"),
    ("an enroller in the POS group", process(ENROL_USER, POS_GROUP), None, {"any", "enrol", "pos"}, "forbidden"),
    ("a stranger", process(STRANGER), None, set(), "forbidden"),
    ("a stranger with a token", process(STRANGER), ADMIN, set(), "forbidden"),
    ("the admin token", None, ADMIN, EVERYTHING, "forbidden"),
    ("the POS token", None, POS, {"any", "pos"}, "forbidden"),
    ("the enroller's token", None, ENROL, {"any", "enrol"}, "forbidden"),
    ("a wrong token", None, "x" * 32, set(), "unauthenticated"),
    ("no token", None, None, set(), "unauthenticated"),
]


@pytest.mark.parametrize(
    ("credentials", "token", "may", "refusal"), [c[1:] for c in CALLERS], ids=[c[0] for c in CALLERS]
)
def test_every_route_is_open_to_its_roles_and_to_no_other(
    app: Starlette, credentials: Credentials | None, token: str | None, may: set[str], refusal: str
) -> None:
    headers = bearer(token) if token else {}

    async def all_routes() -> list[tuple[str, str, str]]:
        wrong = []
        for entry in routes.route_table():
            path = re.sub(r"\{\w+\}", "somebody", entry.path)
            payload = OPERATIONS[entry.method, entry.path].payload
            fitting = {"Content-Type": payload.media_types[0]} if payload is not None else {}
            answer = await ask(app, entry.method, path, credentials, headers=headers | fitting)
            got = "open" if answer.status_code == 200 else answer.json()["code"]
            if got != ("open" if entry.role in may else refusal):
                wrong.append((entry.method, entry.path, got))
        return wrong

    assert asyncio.run(all_routes()) == []


def test_who_has_no_role_learns_of_no_path(app: Starlette) -> None:
    assert get(app, "/nowhere", process(STRANGER)).json()["code"] == "forbidden"
    assert get(app, "/nowhere").json()["code"] == "unauthenticated"
    assert get(app, "/nowhere", process(POS_USER)).json()["code"] == "not_found"


def test_callers_are_told_apart_by_user_or_by_token(app: Starlette) -> None:
    assert get(app, "/v1/health", process(POS_USER)).text == "uid:4001 pos"
    assert get(app, "/v1/health", headers=bearer(POS)).text == "token:pos pos"
    assert get(app, "/v1/health", headers=bearer(ADMIN)).text == "token:admin admin enrol pos"


def test_a_request_without_its_peer_is_never_one_from_the_socket(app: Starlette) -> None:
    """A protocol that forgot to say who it is gets what TCP gets."""
    transport = httpx.ASGITransport(app=app)

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{PORT}") as http:
            return await http.get("/v1/health")

    assert asyncio.run(request()).status_code == 401


# -- what a page in a browser can send --------------------------------------------------------------------------------

REFUSED_HEADERS: list[tuple[dict[str, str], int, str]] = [
    ({"Origin": "http://evil.example"}, 403, "cross_origin"),
    ({"Origin": f"http://127.0.0.1:{PORT}"}, 403, "cross_origin"),
    ({"Origin": "null"}, 403, "cross_origin"),
    ({"Sec-Fetch-Site": "cross-site"}, 403, "cross_origin"),
    ({"Sec-Fetch-Site": "same-origin"}, 403, "cross_origin"),
    ({"Host": "evil.example"}, 421, "misdirected"),
    ({"Host": f"evil.example:{PORT}"}, 421, "misdirected"),
    ({"Host": "127.0.0.1"}, 421, "misdirected"),
    ({"Host": "127.0.0.1:80"}, 421, "misdirected"),
    ({"Host": ""}, 421, "misdirected"),
    ({"Authorization": f"Basic {POS}"}, 401, "unauthenticated"),
    ({"Authorization": POS}, 401, "unauthenticated"),
    ({"Authorization": "Bearer "}, 401, "unauthenticated"),
    ({"Authorization": f"Bearer {POS}x"}, 401, "unauthenticated"),
    ({"Authorization": f"Bearer {POS[:-1]}"}, 401, "unauthenticated"),
    ({f"X-{number}": "x" for number in range(70)}, 431, "headers_too_large"),
]


@pytest.mark.parametrize(("headers", "status", "code"), REFUSED_HEADERS)
def test_over_tcp_a_request_that_is_not_from_a_program_here_is_refused(
    app: Starlette, headers: dict[str, str], status: int, code: str
) -> None:
    answer = asyncio.run(ask(app, "GET", "/v1/health", headers={**bearer(POS), **headers}))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["connection"] == "close"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_every_name_of_this_machine_is_a_host(app: Starlette, host: str) -> None:
    assert get(app, "/v1/health", headers={"Host": host, **bearer(POS)}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("Authorization", f"Bearer {POS}"), ("Authorization", f"Bearer {POS}")], "unauthenticated"),
        ([("Authorization", f"Bearer {POS}"), ("Host", f"127.0.0.1:{PORT}"), ("Host", "evil.example")], "misdirected"),
    ],
)
def test_two_tokens_or_two_hosts_are_none(app: Starlette, headers: list[tuple[str, str]], code: str) -> None:
    assert asyncio.run(ask(app, "GET", "/v1/health", headers=headers)).json()["code"] == code


def test_on_the_socket_the_host_does_not_matter_and_a_page_is_refused_all_the_same(app: Starlette) -> None:
    assert get(app, "/v1/health", process(POS_USER), {"Host": "agent"}).status_code == 200
    assert get(app, "/v1/health", process(POS_USER), {"Origin": "http://agent"}).json()["code"] == "cross_origin"


# -- refusals are counted, and do not fill the log --------------------------------------------------------------------


def test_refusals_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    access = Access(clock=lambda: now[0])
    for second in range(0, 120, 10):
        now[0] = float(second)
        access.refuse("forbidden", "cannot do this")
    assert access.describe()["refused"] == {"forbidden": 12}
    assert [record.args for record in caplog.records] == [("cannot do this", 1), ("cannot do this", 7)]


# -- the configuration ------------------------------------------------------------------------------------------------


def test_names_of_users_and_groups_are_looked_up(tmp_path: Path) -> None:
    user = next(u for u in pwd.getpwall() if u.pw_uid not in {0, os.geteuid(), 65534})
    grants = access_of(section(tmp_path, roles={"pos": {"users": [user.pw_name]}}, socket_group="daemon")).grants
    assert grants.roles_of(process(user.pw_uid, 60)) == {"pos"}
    assert grants.roles_of(process(STRANGER, 1)) == {"pos"}
    assert grants.roles_of(process(STRANGER)) == set()


UNUSABLE: list[tuple[Callable[[Path], dict[str, Any]], str, str]] = [
    (lambda _: {"roles": {"pos": {"users": ["no-such-user"]}}}, "user_unknown", "the user no-such-user"),
    (lambda _: {"roles": {"admin": {"groups": ["no-such-group"]}}}, "group_unknown", "the group no-such-group"),
    (lambda _: {"socket_group": "no-such-group"}, "group_unknown", "the group no-such-group"),
    (lambda f: {"token": {"file": f / "none"}}, "secret_missing", "cannot read the secret"),
    (lambda f: {"admin_token": {"file": f / "short"}}, "token_unusable", "api.admin_token"),
    (lambda f: {"enrol_token": {"file": f / "spaced"}}, "token_unusable", "32-1024 characters"),
    (lambda f: {"admin_token": {"file": f / "pos"}}, "token_unusable", "another role has the same one"),
]


@pytest.mark.parametrize(("changes", "code", "said"), UNUSABLE)
def test_who_cannot_be_found_is_left_out_and_the_others_are_admitted(
    tmp_path: Path, changes: Callable[[Path], dict[str, Any]], code: str, said: str
) -> None:
    write_secret(tmp_path / "short", "x" * 31)
    write_secret(tmp_path / "spaced", "x" * 31 + " y")
    api = section(tmp_path, **changes(tmp_path))
    with pytest.raises(ConfigurationError, match=said) as caught:
        Access().prepare(api, strict=True)
    access = Access()
    access.prepare(api, strict=False)()
    assert caught.value.code == code
    assert access.fault is not None
    assert access.fault.code == code
    assert access.grants.roles_of(process(0)) == {"pos", "enrol", "admin"}
    assert all(secret not in caught.value.message for secret in (POS, "x" * 31))


def test_no_token_is_shown_by_what_holds_it(access: Access) -> None:
    assert POS not in repr(access.grants)
    assert access.describe()["tokens"] == ["pos", "enrol", "admin"]


REFUSED_SECTIONS: list[tuple[dict[str, Any], str]] = [
    ({"tcp": "127.0.0.1:8470"}, "tcp needs token"),
    ({"tcp": "0.0.0.0:8470", "token": {"env": "T"}}, "must be a loopback address"),
    ({"tcp": "192.168.0.7:8470", "token": {"env": "T"}}, "must be a loopback address"),
    ({"tcp": "[::]:8470", "token": {"env": "T"}}, "must be a loopback address"),
    ({"tcp": "localhost:8470", "token": {"env": "T"}}, "must be an address and a port"),
    ({"tcp": "127.0.0.1", "token": {"env": "T"}}, "must be an address and a port"),
    ({"tcp": "127.0.0.1:0", "token": {"env": "T"}}, "must be an address and a port"),
    ({"tcp": "127.0.0.1:8470/x", "token": {"env": "T"}}, "must be an address and a port"),
    ({"tcp": "user@127.0.0.1:8470", "token": {"env": "T"}}, "must be an address and a port"),
    ({"token": "secret"}, "a secret is never written in the file"),
    ({"roles": {"pos": {"users": ["nobody"]}}}, "what every user of a container looks like"),
    ({"roles": {"pos": {"users": [65534]}}}, "what every user of a container looks like"),
    ({"roles": {"pos": {"users": [True]}}}, "a name or a number"),
    ({"roles": {"pos": {"users": [-1]}}}, "a number from 0"),
    ({"roles": {"guest": {}}}, "guest"),
    ({"socket_group": "a b"}, "should match pattern"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED_SECTIONS)
def test_a_section_that_would_open_too_much_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ApiSection.model_validate(values)


@pytest.mark.parametrize("address", ["127.0.0.1:8470", "127.8.4.7:1", "[::1]:65535"])
def test_every_loopback_address_is_accepted(address: str) -> None:
    assert ApiSection.model_validate({"tcp": address, "token": {"env": "T"}}).tcp == address
