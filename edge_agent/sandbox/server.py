"""Runs a sandbox: ``SandboxServer`` in a thread of a test, ``serve`` as a process. Loopback only."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn

from edge_agent.errors import ConfigurationError, EnvironmentFault
from edge_agent.sandbox.app import build
from edge_agent.sandbox.clock import SandboxClock
from edge_agent.sandbox.control import changed
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.injector import Injector
from edge_agent.sandbox.matcher import Matcher, RuleMatcher
from edge_agent.sandbox.runtime import Credentials, Sandbox, Seen
from edge_agent.sandbox.state import Judgement, SandboxState, Upload
from edge_agent.sandbox.variants import Variants
from edge_agent.sandbox.wire import Transports

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0

T = TypeVar("T")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one.

    Raises ConfigurationError for any other host, EnvironmentFault when the port is taken.
    """
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else _address(host))
    if not address.is_loopback:
        raise ConfigurationError(
            f"cannot listen on {host}: the sandbox serves this machine only", hint="use 127.0.0.1, ::1 or localhost"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(address), port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise EnvironmentFault(
            f"cannot listen on {host} port {port}: {exc.strerror}",
            code="port_unavailable",
            hint="give another port with --port; 0 takes a free one",
        ) from exc
    return listener


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError as exc:
        raise ConfigurationError(f"cannot listen on {host}: not a loopback address", hint="use 127.0.0.1") from exc


def url_of(listener: socket.socket) -> str:
    """``http://127.0.0.1:PORT/``, as base_url of the agent's configuration."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, that says when it is ready and wakes hanging requests when it stops."""

    def __init__(self, sandbox: Sandbox, on_ready: Callable[[], None]) -> None:
        transports = Transports()
        self._stopping = asyncio.Event()
        self._on_ready = on_ready
        config = uvicorn.Config(
            Injector(build(sandbox), sandbox, transports, self._stopping),
            http=transports.protocol(),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=10,
        )
        super().__init__(config)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    def stop(self) -> None:
        """Begin the stop; call it in the loop's thread."""
        self.should_exit = True
        self._stopping.set()


async def serve(sandbox: Sandbox, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; ends the running answers, then closes the sandbox."""
    server = _Server(sandbox, on_ready)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve([listener])
    finally:
        sandbox.close()


class SandboxServer:
    """A sandbox in a thread of this process, for tests: real sockets on a free port of loopback.

    ::

        with SandboxServer(Variants(token_field="token")) as sandbox:
            sandbox.enrol("alice", picture)
            sandbox.inject(Fault(step="match", kind="reset"))
            ...
            assert sandbox.judged[-1].target_sha256 == sha256(capture)

    Every method may be called from any thread; they change the sandbox in its own thread.
    """

    def __init__(
        self,
        variants: Variants | None = None,
        *,
        faults: tuple[Fault, ...] = (),
        matcher: Matcher | None = None,
        credentials: Credentials | None = None,
        clock: SandboxClock | None = None,
        folder: Path | None = None,
        port: int = 0,
    ) -> None:
        self._listener = bind("127.0.0.1", port)
        self.base_url = url_of(self._listener)
        self.credentials = credentials or Credentials()
        try:
            self.sandbox = Sandbox(
                matcher or RuleMatcher(), self.credentials, variants or Variants(), clock or SandboxClock(), folder
            )
        except BaseException:
            self._listener.close()
            raise
        for fault in faults:
            self.sandbox.faults.add(fault)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S) or not self._server.started:
            raise EnvironmentFault("cannot start the sandbox: it did not come up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(STOP_TIMEOUT_S)
        self.sandbox.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()  # whoever waits shall see that it did not start

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = _Server(self.sandbox, self._ready.set)
        await self._server.serve([self._listener])

    @property
    def port(self) -> int:
        return int(self.base_url.rstrip("/").rsplit(":", 1)[1])

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``: the entry for the agent's ``upload_hosts``."""
        return f"127.0.0.1:{self.port}"

    @property
    def state(self) -> SandboxState:
        """For reading."""
        return self.sandbox.state

    @property
    def judged(self) -> tuple[Judgement, ...]:
        """Every comparison that was made, in order."""
        return self._call(lambda: tuple(self.sandbox.state.saved.judgements))

    @property
    def requests(self) -> tuple[Seen, ...]:
        """Every request of the five steps that was answered or ended, in order."""
        return self._call(lambda: tuple(self.sandbox.requests))

    def vary(self, **changes: Any) -> None:
        """Change some variants. Raises pydantic's ValidationError."""
        variants = changed(self.sandbox.variants, changes)
        self._call(lambda: setattr(self.sandbox, "variants", variants))

    def inject(self, *faults: Fault) -> None:
        """Queue faults behind those that wait."""
        for fault in faults:
            self._call(functools.partial(self.sandbox.faults.add, fault))

    def clear_faults(self) -> None:
        self._call(self.sandbox.faults.clear)

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward."""
        self._call(lambda: self.sandbox.clock.advance(seconds))

    def enrol(self, user_id: str, picture: bytes) -> None:
        """Make ``picture`` the user's source without going through the API."""
        key = f"upload/{secrets.token_hex(16)}/enrolled.jpg"
        upload = Upload(key, user_id, "upload", "enrolled.jpg", "image/jpeg")
        coroutine = self.sandbox.receive_picture(upload, picture)
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(STOP_TIMEOUT_S)

    def reset(self) -> None:
        """Back to the beginning: default variants, no faults, nobody enrolled. The clock stays where it is."""

        def start_anew() -> None:
            self.sandbox.variants = Variants()
            self.sandbox.faults.clear()
            self.sandbox.state.clear()
            self.sandbox.requests.clear()

        self._call(start_anew)

    def _call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(STOP_TIMEOUT_S)
