"""Plays the faults: an ASGI layer between the socket and the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.sandbox.faults import Fault, Kind, Step
from edge_agent.sandbox.runtime import Sandbox, Seen
from edge_agent.sandbox.storage import LATE_KEY
from edge_agent.sandbox.variants import MATCH_PATH, MATCH_PATH_ALIAS
from edge_agent.sandbox.wire import Answer, Connection, Transports, head

log = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})
PORTAL = "<!DOCTYPE html>\n<html><head><title>Free Wi-Fi</title></head><body>Please log in.</body></html>\n"
STEP_OF_PATH: dict[str, Step] = {
    "/api/access-token/": "token",
    "/api/refresh-token/": "refresh",
    "/api/upload/generate-url/": "generate_url",
    MATCH_PATH: "match",
    MATCH_PATH_ALIAS: "match",
}


def step_of(path: str) -> Step | None:
    """Which step of the sequence a path belongs to; None for everything else."""
    return "put" if path.startswith("/storage/") else STEP_OF_PATH.get(path)


class Injector:
    """Wraps the service: takes faults from the queue, plays them, and notes every request."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox, transports: Transports, stopping: asyncio.Event) -> None:
        self._app = app
        self._sandbox = sandbox
        self._transports = transports
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        step = step_of(scope["path"])
        fault = self._sandbox.faults.take(step) if step else None
        status: int | None = None

        async def dated(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], self._date()]
            await send(message)

        connection = Connection(scope, receive, dated, transports=self._transports, stopping=self._stopping)
        with contextlib.suppress(ClientDisconnect):  # it gave up while sending: nothing was stored
            await self._exchange(connection, fault)
        if step:
            self._note(scope, step, status, fault)

    async def _exchange(self, connection: Connection, fault: Fault | None) -> None:
        if not _is_loopback(connection.scope):
            await connection.answer(Answer(421, [(b"content-type", b"text/plain")], b"not a host of this sandbox\n"))
        elif fault is None:
            await connection.answer(await connection.carry_out(self._app))
        else:
            await self._play(fault, connection)

    async def _play(self, fault: Fault, connection: Connection) -> None:
        await connection.pause(fault.latency_s)
        if fault.kind == "reset_request":
            await connection.read(fault.at_bytes or 0)
            await connection.reset()
            return
        if fault.kind == "late_put":
            connection.scope[LATE_KEY] = fault.delay_s
        real = Answer(200, _JSON_HEADERS, b"{}")
        if fault.carries_out:
            real = await connection.carry_out(self._app)
        else:
            await connection.read()
        await PLAYS[fault.kind](fault, connection, real)

    def _date(self) -> tuple[bytes, bytes]:
        return b"date", formatdate(self._sandbox.server_time_s, usegmt=True).encode()

    def _note(self, scope: Scope, step: Step, status: int | None, fault: Fault | None) -> None:
        names = tuple(sorted({name.decode("latin-1") for name, _ in scope["headers"]}))
        kind = fault.kind if fault else None
        seen = Seen(self._sandbox.clock.now_s(), step, scope["method"], scope["path"], status, kind, names)
        self._sandbox.requests.append(seen)
        log.info("%s %s -> %s%s", seen.method, seen.step, status or "-", f" (fault: {kind})" if kind else "")


def _is_loopback(scope: Scope) -> bool:
    """Whether the Host header names this machine: a web page elsewhere cannot reach us through its own name."""
    host = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK_NAMES
    except ValueError:
        return False


_JSON_HEADERS = [(b"content-type", b"application/json")]


async def _as_it_is(fault: Fault, connection: Connection, real: Answer) -> None:
    del fault
    await connection.answer(real)


async def _hang(fault: Fault, connection: Connection, real: Answer) -> None:
    del fault, real
    await connection.hang()


async def _drop(fault: Fault, connection: Connection, real: Answer) -> None:
    del fault, real
    await connection.close()


async def _reset(fault: Fault, connection: Connection, real: Answer) -> None:
    await connection.reset(_cut(fault, real))


async def _truncate(fault: Fault, connection: Connection, real: Answer) -> None:
    await connection.close(_cut(fault, real))


def _cut(fault: Fault, real: Answer) -> bytes:
    """The answer up to the cut; an empty body is replaced by blanks so that there is something to miss."""
    body = real.body or b" " * 64
    at = len(body) // 2 if fault.at_bytes is None else min(fault.at_bytes, len(body) - 1)
    return head(real, promised_bytes=len(body)) + body[:at]


async def _slow(fault: Fault, connection: Connection, real: Answer) -> None:
    await connection.trickle(real, fault.bytes_per_s)


async def _status(fault: Fault, connection: Connection, real: Answer) -> None:
    del real
    await connection.answer(_made(fault, 500, '{"message": "injected fault"}', "application/json"))


async def _html(fault: Fault, connection: Connection, real: Answer) -> None:
    del real
    await connection.answer(_made(fault, 200, PORTAL, "text/html; charset=utf-8"))


async def _redirect(fault: Fault, connection: Connection, real: Answer) -> None:
    del real
    answer = _made(fault, 302, PORTAL, "text/html; charset=utf-8")
    answer.headers.append((b"location", fault.location.encode("latin-1", "replace")))
    await connection.answer(answer)


async def _garbage(fault: Fault, connection: Connection, real: Answer) -> None:
    del real
    await connection.answer(_made(fault, 200, '{"match": tru', "application/json"))


async def _contradict(fault: Fault, connection: Connection, real: Answer) -> None:
    """A match that is one and is none; any other answer claims failure beside its result."""
    told: dict[str, Any] = {"match": True, "faceMatch": False, "similarity": 99.9}
    if step_of(connection.scope["path"]) != "match":
        with contextlib.suppress(ValueError):
            told = {**json.loads(real.body or b"{}"), "success": False, "message": "failed"}
    await connection.answer(_made(fault, 200, json.dumps(told), "application/json"))


async def _late_put(fault: Fault, connection: Connection, real: Answer) -> None:
    if fault.answer == "hang":
        await connection.hang()
    elif fault.answer == "error":
        await connection.answer(_made(fault, 500, "", "application/xml"))
    else:
        await connection.answer(real)


def _made(fault: Fault, status: int, body: str, content_type: str) -> Answer:
    """An answer from the fault's parameters, or these defaults."""
    content = (body if fault.body is None else fault.body).encode()
    if fault.status in (204, 304):
        content = b""
    headers = [
        (b"content-type", (fault.content_type or content_type).encode("latin-1", "replace")),
        (b"content-length", str(len(content)).encode()),
    ]
    if fault.retry_after is not None:
        headers.append((b"retry-after", str(fault.retry_after).encode("latin-1", "replace")))
    return Answer(fault.status or status, headers, content)


PLAYS: dict[Kind, Callable[[Fault, Connection, Answer], Awaitable[None]]] = {
    "latency": _as_it_is,
    "hang": _hang,
    "drop": _drop,
    "reset": _reset,
    "truncate": _truncate,
    "slow": _slow,
    "status": _status,
    "html": _html,
    "redirect": _redirect,
    "garbage": _garbage,
    "contradict": _contradict,
    "late_put": _late_put,
}
"""Every kind but reset_request, which ends before there is an answer."""
