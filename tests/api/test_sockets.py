"""The sockets themselves: their modes, the credentials that the kernel gives, tokens over TCP and their rotation."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.client import AgentClient, ApiError
from edge_agent.errors import EnvironmentFault, InputError
from edge_agent.listening import bind, bind_tcp, share
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.terminal import Terminal, terminal

POS, ADMIN, FRESH = "p" * 32, "a" * 32, "f" * 32
GROUP = "daemon"
"""Every system has it."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(scope="module")
def served() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        server.enrol("alice", SOURCE)
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_secret(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def over_tcp(folder: Path) -> dict[str, Any]:
    write_secret(folder / "token", POS)
    write_secret(folder / "admin_token", ADMIN)
    names = ("token", "admin_token")
    return {"tcp": f"127.0.0.1:{free_port()}", **{name: {"file": str(folder / name)} for name in names}}


def code_of(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.status, error.value.code


# -- TCP and tokens ---------------------------------------------------------------------------------------------------


def test_over_tcp_the_token_says_who_calls_and_can_be_rotated_by_a_reload(
    tmp_path: Path, served: SandboxServer
) -> None:
    api = over_tcp(tmp_path)
    with (
        terminal(tmp_path, served, api=api) as t,
        t.client() as root,
        AgentClient.over_tcp(api["tcp"], POS) as pos,
        AgentClient.over_tcp(api["tcp"], ADMIN) as admin,
        AgentClient.over_tcp(api["tcp"], FRESH) as fresh,
    ):
        record = pos.verify("alice", wait_s=10)
        assert record.approved
        assert root.outbox_show(record.id).item.caller == "token:pos"
        assert admin.get(record.id).id == record.id
        with pytest.raises(ApiError) as caught:
            pos.outbox_list()
        assert code_of(caught) == (403, "forbidden")
        with pytest.raises(ApiError) as caught:
            fresh.status()
        assert code_of(caught) == (401, "unauthenticated")

        write_secret(tmp_path / "token", "too short")
        with pytest.raises(ApiError) as caught:
            admin.reload()
        assert code_of(caught) == (422, "configuration_refused")
        assert pos.get(record.id).id == record.id

        write_secret(tmp_path / "token", FRESH)
        admin.reload()
        with pytest.raises(ApiError) as caught:
            pos.get(record.id)
        assert code_of(caught) == (401, "unauthenticated")
        assert fresh.get(record.id).id == record.id
        assert admin.status()["access"]["refused"] == {"forbidden": 1, "unauthenticated": 2}


def test_a_role_that_is_taken_away_by_a_reload_is_gone_at_once(tmp_path: Path, served: SandboxServer) -> None:
    api = over_tcp(tmp_path)
    with terminal(tmp_path, served, api=api) as t, AgentClient.over_tcp(api["tcp"], ADMIN) as admin:
        text = yaml.safe_load(t.file.read_text())
        text["api"]["admin_token"] = None
        t.file.write_text(yaml.safe_dump(text))
        assert admin.reload()["restart_needed"] == []
        with pytest.raises(ApiError) as caught:
            admin.reload()
        assert code_of(caught) == (401, "unauthenticated")


def test_tcp_and_its_token_are_taken_out_of_the_file_together_and_end_with_the_restart(
    tmp_path: Path, served: SandboxServer
) -> None:
    api = over_tcp(tmp_path)
    with terminal(tmp_path, served, api=api) as t, AgentClient.over_tcp(api["tcp"], POS) as pos, t.client() as root:
        text = yaml.safe_load(t.file.read_text())
        text["api"] |= {"tcp": None, "token": None}
        t.file.write_text(yaml.safe_dump(text))
        assert root.reload()["restart_needed"] == ["api.tcp", "api.token"]
        assert pos.status()["ready"]


def test_a_port_that_is_taken_degrades_the_agent_which_serves_its_socket(tmp_path: Path, served: SandboxServer) -> None:
    api = over_tcp(tmp_path)
    taken = bind_tcp(api["tcp"])
    with taken, terminal(tmp_path, served, api=api) as t, t.client() as root:
        assert [(f["part"], f["code"]) for f in root.status()["faults"]] == [("tcp", "tcp_unavailable")]
        assert root.verify("alice", wait_s=10).approved


def test_both_kinds_of_loopback_address_can_be_listened_on() -> None:
    with bind_tcp(f"127.0.0.1:{free_port()}") as four:
        assert four.getsockname()[0] == "127.0.0.1"
    if Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text():
        with bind_tcp(f"[::1]:{free_port()}") as six:
            assert six.getsockname()[0] == "::1"


def test_an_answer_over_tcp_does_not_wait_until_its_beginning_is_acknowledged() -> None:
    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[socket.socket] = loop.create_future()

        class Greeter(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set_result(transport.get_extra_info("socket"))

        with bind_tcp("127.0.0.1:0") as listener:
            async with await loop.create_server(Greeter, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                no_delay = (await accepted).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
        return no_delay

    assert asyncio.run(scenario()) != 0


@pytest.mark.parametrize("address", ["10.0.0.7:8470", "pos.example:8470", "0.0.0.0:8470"])
def test_the_client_sends_no_token_over_a_network(address: str) -> None:
    with pytest.raises(InputError, match="loopback address"):
        AgentClient.over_tcp(address, POS)


# -- the group of the socket ------------------------------------------------------------------------------------------


@needs_root
def test_the_members_of_the_socket_group_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with bind(path):
        share(path, GROUP)
        found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, grp.getgrnam(GROUP).gr_gid)


def test_a_socket_that_cannot_be_shared_stays_the_daemons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.sock"

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    other = next(g.gr_name for g in grp.getgrall() if g.gr_gid != os.getegid() and g.gr_name != "edge-agent")
    with bind(path):
        for group, why in ((other, "Operation not permitted"), ("no-such-group", "there is no such group")):
            with pytest.raises(EnvironmentFault, match=why):
                share(path, group)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_the_group_of_the_installation_the_daemon_runs_for_its_own_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", unknown)
    path = tmp_path / "api.sock"
    with bind(path):
        share(path, "edge-agent")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_who_cannot_be_admitted_is_named_and_everybody_else_is_served(tmp_path: Path, served: SandboxServer) -> None:
    api = {"socket_group": "no-such-group", "roles": {"admin": {"users": ["no-such-user"]}}}
    with terminal(tmp_path, served, api=api) as t, t.client() as root:
        faults = {fault["part"]: fault["code"] for fault in root.status()["faults"]}
        assert faults == {"socket": "socket_group_unusable", "access": "user_unknown"}
        assert root.verify("alice", wait_s=10).approved


# -- the kernel's word ------------------------------------------------------------------------------------------------

BECOME = """
import json, os, socket, sys
path, uid, groups, requests = json.loads(sys.argv[1])
os.setgroups(groups), os.setgid(uid), os.setuid(uid)
answers = []
for line in requests:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except PermissionError:
        answers.append(None)
        continue
    connection.sendall(f"{line} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n".encode())
    answers.append(int(connection.recv(65536).split()[1]))
print(json.dumps(answers))
"""
REQUESTS = ["GET /v1/health", "GET /v1/verifications", "PUT /v1/users/carol/source", "GET /v1/outbox"]
GROUP_ID, ENROLLERS = grp.getgrnam(GROUP).gr_gid, 5005
SOMEBODY: list[tuple[int, list[int], list[int | None]]] = [
    (4001, [GROUP_ID], [200, 200, 403, 403]),
    (4001, [], [None, None, None, None]),
    (4001, [ENROLLERS, GROUP_ID], [200, 200, 415, 403]),
    (4003, [GROUP_ID], [200, 200, 415, 200]),
]


@needs_root
def test_the_kernel_says_who_calls(tmp_path: Path, served: SandboxServer) -> None:
    """Real processes of other users: what they may is what their user and their groups may."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    roles = {"enrol": {"groups": [ENROLLERS]}, "admin": {"users": [4003]}}
    api = {"socket": folder / "api.sock", "socket_group": GROUP, "roles": roles}
    try:
        with terminal(tmp_path, served, api=api) as t:
            assert [(uid, groups, answers_of(t, uid, groups)) for uid, groups, _ in SOMEBODY] == SOMEBODY
    finally:
        shutil.rmtree(folder)


def answers_of(t: Terminal, uid: int, groups: list[int]) -> list[int | None]:
    command = [sys.executable, "-I", "-S", "-c", BECOME, json.dumps([str(t.socket), uid, groups, REQUESTS])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    answers: list[int | None] = json.loads(done.stdout)
    return answers
