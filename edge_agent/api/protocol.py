"""uvicorn's HTTP/1.1 protocol with credentials and limits: what one client does, or does not do, harms no other.

- The peer's credentials are taken once, when the connection is made, and handed to every request on it.
- Connections are counted: one caller cannot have them all, and some are kept for admins.
- A request has to arrive in time, its head and its body each; an answer has to be read in time.
- What is refused before there is a request is a problem document too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edge_agent.api import problems
from edge_agent.api.access import Access
from edge_agent.api.peer import ABORT_KEY, STATE_KEY, Credentials, credentials_of
from edge_agent.errors import AgentError

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 256
KEPT_FOR_ADMINS: Final = 32
"""Connections that only a user with role admin gets: also a flooded terminal can be looked after."""
MAX_OF_ONE_CALLER: Final = 96
"""Connections of one user without role admin, or of all who come over TCP."""
IDLE_S: Final = 60
"""A connection without a request is kept open this long for the next one."""
HEAD_S: Final = 10.0
BODY_S: Final = 30.0
"""From the first byte of a request's head, or of its body, to the last. (The first head: from connecting.)"""
READ_S: Final = 30.0
"""What was answered must be read within this time. Events are another matter: their readers may lag (events.py)."""
EVENTS: Final = "/events"
OVER_TCP: Final = "tcp"


class AccessProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        access: Access,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._access = access
        self.caller = OVER_TCP
        self.is_admin = False
        self._awaited: type[h11.IDLE | h11.SEND_BODY] | None = None
        """What of a request is being waited for: its head, its body, or nothing."""
        self._arriving: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    # -- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        sock = transport.get_extra_info("socket")
        credentials = credentials_of(sock) if sock is not None else None
        self._recognise(credentials)
        self.app_state = {**self.app_state, STATE_KEY: credentials, ABORT_KEY: transport.abort}
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # ``pause_writing`` tells of every byte that is not taken
        if self._is_one_too_many():
            self._access.refuse("too_many_connections", f"{self.caller} has too many connections")
            self._refuse("too_many_connections", "cannot take another connection: too many are open")
        else:
            self._await(h11.IDLE)

    def _recognise(self, credentials: Credentials | None) -> None:
        if credentials is not None:
            peer = self._access.peer_of(credentials)
            self.caller, self.is_admin = credentials.caller, peer is not None and peer.is_admin

    def _is_one_too_many(self) -> bool:
        """Whether there are more than its caller may have, with this one, which is counted already."""
        others = [c for c in self.connections if isinstance(c, AccessProtocol)]
        if self.is_admin:
            return len(others) > MAX_CONNECTIONS
        unprivileged = [other for other in others if not other.is_admin]
        own = sum(other.caller == self.caller for other in unprivileged)
        return own > MAX_OF_ONE_CALLER or len(unprivileged) > MAX_CONNECTIONS - KEPT_FOR_ADMINS

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        self._reads_again()
        super().connection_lost(exc)

    # -- requests that arrive slowly

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_the_rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._await(None)  # between requests uvicorn's keep-alive timer runs
        else:
            self._await_the_rest()

    def _await_the_rest(self) -> None:
        state = self.conn.their_state
        if self.transport.is_closing() or state not in (h11.IDLE, h11.SEND_BODY):
            self._await(None)
        elif state is not self._awaited:
            self._await(state)

    def _await(self, what: type[h11.IDLE | h11.SEND_BODY] | None) -> None:
        """``what`` has to be complete in time, from now on; None: nothing has."""
        if self._arriving is not None:
            self._arriving.cancel()
        self._awaited = what
        limit_s = BODY_S if what is h11.SEND_BODY else HEAD_S
        self._arriving = None if what is None else self.loop.call_later(limit_s, self._too_slow)

    def _too_slow(self) -> None:
        self._access.refuse("request_timeout", f"{self.caller} was too slow to send a request")
        began = self._awaited is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if began:
            what = "its body" if self._awaited is h11.SEND_BODY else "its head"
            self._refuse("request_timeout", f"cannot read the request: {what} did not arrive in time")
        else:
            self._end()

    # -- answers that are read slowly

    def pause_writing(self) -> None:
        super().pause_writing()
        streaming = self.scope is not None and str(self.scope["path"]).endswith(EVENTS)
        if self._unread is None and (not streaming or self.transport.is_closing()):
            self._unread = self.loop.call_later(READ_S, self._not_read)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reads_again()

    def _reads_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _not_read(self) -> None:
        self._access.refuse("answer_not_read", f"{self.caller} did not read an answer in time")
        self.transport.abort()

    # -- refusals without a handler

    def send_400_response(self, msg: str) -> None:
        """Called while h11's error is handled, which knows the better status."""
        del msg
        error = sys.exc_info()[1]
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        if too_large:
            self._refuse("headers_too_large", f"cannot read the request: its head is over {MAX_HEADER_BYTES} bytes")
        else:
            self._refuse("invalid_request", "cannot read the request: it is not HTTP/1.1")

    def _refuse(self, code: str, detail: str) -> None:
        """Answer with the problem, unless an answer has begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            problem = problems.CATALOGUE[code]
            body = json.dumps(problems.document(AgentError(detail, code=code), problem)).encode()
            headers = [
                ("Content-Type", problems.MEDIA_TYPE),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
            ]
            for event in (
                h11.Response(status_code=problem.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._end()

    def _end(self) -> None:
        """Close, and let a handler that still reads or answers know that nobody is there."""
        self._await(None)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
