"""The streams of Server-Sent Events: who reads is told all, who does not read is cut off, and nobody waits for either."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_agent.api.calls import Call, hung_up, refuse
from edge_agent.api.ownership import lens
from edge_agent.api.peer import ABORT_KEY
from edge_agent.errors import AgentError
from edge_agent.events import EVENT_ID, stream

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
CUT_AFTER_S = 30.0
"""A reader whose buffers have been full for so long is gone, or might as well be."""
LAST_WORDS_S = 1.0
"""When the daemon stops, a reader may take this long to read the end."""


def events_of(call: Call, verification_id: str | None) -> Response:
    """The stream of one verification, or of everything. Raises InputError for a Last-Event-ID that is none."""
    after = call.request.headers.get("last-event-id")
    if after is not None and not EVENT_ID.fullmatch(after):
        raise refuse("invalid_request", "cannot resume: Last-Event-ID is not an id of ours")
    abort = call.request.state._state[ABORT_KEY]  # noqa: SLF001 - as the peer, see api/peer.py
    return EventStream(lambda: _chunks(call, verification_id, after), call.agent.bus.wait_closed, abort)


async def _chunks(call: Call, verification_id: str | None, after: str | None) -> AsyncGenerator[bytes, None]:
    with call.agent.bus.subscribe(verification_id, after=after) as reader:
        # whose one verification is, was asked before
        everything = call.peer.is_admin or verification_id is not None
        see = None if everything else lens(call.agent, call.peer.caller)
        clock, grants = call.agent.clock, call.access.grants
        try:
            await call.agent.begin_events(reader)
            async for chunk in stream(reader, heartbeat_s=HEARTBEAT_S, boottime_s=clock.boottime_s, see=see):
                if call.access.grants != grants:  # who may read must be asked anew: the client resumes, if it still may
                    return
                yield chunk
        except AgentError as exc:  # the headers are out: the client resumes, and is told then
            log.warning("cannot go on with a stream of events: %s", exc.message, extra={"code": exc.code})


class EventStream(Response):
    """An answer without an end of its own. HEAD gets the headers alone."""

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: Callable[[], AsyncGenerator[bytes, None]],
        until_closed: Callable[[], Awaitable[None]],
        abort: Callable[[], None],
    ) -> None:
        """``until_closed`` returns when the daemon stops; ``abort`` ends the connection, whatever waits to be sent."""
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._until_closed = until_closed
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end, the reader hangs up, does not read, or the daemon stops."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        ends = {asyncio.create_task(end) for end in (self._send_all(send), hung_up(receive), self._stopped())}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        try:
            async with contextlib.aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    await self._send(send, chunk, more=True)
                await self._send(send, b"", more=False)
        except TimeoutError:
            log.info("a reader of events did not read for %g s and is cut off", CUT_AFTER_S)
            await self._cut()

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        async with asyncio.timeout(CUT_AFTER_S):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _stopped(self) -> None:
        await self._until_closed()
        await asyncio.sleep(LAST_WORDS_S)
        await self._cut()

    async def _cut(self) -> None:
        """End the connection, and leave it to ``hung_up`` to notice: then the server has noticed too."""
        self._abort()
        await asyncio.Event().wait()
