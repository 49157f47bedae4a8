"""Handler of the live picture for whoever mounts the camera; the connection holds it open."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_agent.aiming import Aim
from edge_agent.api import wire
from edge_agent.api.calls import Call, refuse, seconds
from edge_agent.api.operation import LOOKS
from edge_agent.api.peer import ABORT_KEY
from edge_agent.api.streams import EventStream
from edge_agent.types import JsonObject


async def aim(call: Call) -> Response:
    """The live picture and what the gate makes of it, for whoever mounts the camera. Over the Unix socket only.

    One line of JSON a look: `jpeg` (base64; null without a picture), `size` in px, `index`, `fps`, `judged` (as
    `edge-agent screen --json` prints it), `hint`, `scene_sharpness`, `problem`; the last line has `ended`, the
    reason, alone. Hanging up closes the camera, and so does a verification or an enrolment that begins. Nothing is
    stored but who asked.
    """
    limit_s = seconds(call.request, "limit_s", wire.MAX_AIM_S) or wire.AIM_S
    if not call.peer.caller.startswith("uid:"):
        raise refuse("forbidden", "cannot send the live picture over TCP", "Use the Unix socket: edge-agent aim")
    begun = await call.agent.aimer.begin(limit_s, actor=call.peer.caller)
    return _Looks(begun, call)


class _Looks(EventStream):
    """The camera is closed when the answer is over, however it ends."""

    media_type = LOOKS

    def __init__(self, begun: Aim, call: Call) -> None:
        abort = call.request.state._state[ABORT_KEY]  # noqa: SLF001 - as the peer, see api/peer.py
        super().__init__(lambda: _lines(begun), call.agent.bus.wait_closed, abort)
        self._begun = begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._begun.end("left")


async def _lines(begun: Aim) -> AsyncGenerator[bytes, None]:
    async for look in begun.looks():
        yield _line(look.as_json())
    yield _line({"ended": begun.ended})


def _line(body: JsonObject) -> bytes:
    return json.dumps(body, allow_nan=False).encode() + b"\n"
