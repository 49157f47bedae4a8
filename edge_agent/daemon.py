"""The daemon: one process that serves the terminal API on its sockets and runs the agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.api.access import Access
from edge_agent.api.measuring import ScraperProtocol, metrics_application
from edge_agent.api.protocol import IDLE_S, MAX_HEADER_BYTES, AccessProtocol
from edge_agent.api.routes import application
from edge_agent.config import ApiSection, Config, ModelsSection
from edge_agent.errors import AgentError, EnvironmentFault
from edge_agent.journal import setup_logging
from edge_agent.listening import bind, bind_tcp, share
from edge_agent.moments import told
from edge_agent.screening import Vision
from edge_agent.settings import Settings
from edge_agent.supervision import Supervisor
from edge_agent.trial import Source

log = logging.getLogger(__name__)

STOP_S = 10.0
"""Requests under way at SIGTERM get this long to be answered."""
CAMERA_EXIT = 3
"""The daemon ended so that a new process gets the camera: the device lacks something, as for any other command."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon decides in which order things stop."""

    def __init__(self, config: uvicorn.Config, answering: Callable[[], None]) -> None:
        """``answering`` is called once requests are taken."""
        super().__init__(config)
        self._answering = answering

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._answering()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _as_it_is(app: ASGIApp) -> ASGIApp:
    return app


async def serve(
    config: Config,
    source: Source | None = None,
    vision_factory: Callable[[ModelsSection], Vision] | None = None,
) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the configuration again. Raises EnvironmentFault without a socket.

    Returns the exit code: 0, or CAMERA_EXIT.

    ``source``: where ``config`` is from. ``vision_factory``: see Agent; None opens the configured models.
    """
    stop = asyncio.Event()
    exit_code = 0

    def start_anew() -> None:
        nonlocal exit_code
        exit_code = CAMERA_EXIT
        stop.set()

    managed = "INVOCATION_ID" in os.environ  # systemd starts us again
    agent = Agent(config, vision_factory=vision_factory, start_anew=start_anew if managed else None)
    settings = Settings(agent, source, exit_for_restart=stop.set if managed else None, on_log=setup_logging)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, settings.reload_soon)
    await serve_until(stop, agent, settings)
    return exit_code


async def serve_until(
    stop: asyncio.Event,
    agent: Agent,
    settings: Settings | None = None,
    *,
    wrap: Callable[[ASGIApp], ASGIApp] = _as_it_is,
) -> None:
    """Serve ``agent`` on its sockets until ``stop`` is set; what stops in which order is said in Agent.drain.

    ``wrap``: put around the application.
    """
    settings = settings or Settings(agent, None)
    path = agent.config.api.socket
    access = Access()
    sockets = _listen(agent, agent.config.api)
    settings.current.admit = partial(_admit, agent, access)
    (await settings.current.admit(agent.config.api, strict=False))()
    supervisor = Supervisor()
    api = application(agent, settings, access)
    server = _Server(_server_config(wrap(api), partial(AccessProtocol, access=access)), supervisor.ready)
    serving = asyncio.create_task(server.serve(sockets=sockets), name="api")
    exposed = contextlib.AsyncExitStack()
    await exposed.enter_async_context(_exposed(agent, metrics_application(api.state.metrics, access), access))
    feeding = asyncio.create_task(supervisor.feed(agent.heartbeats, agent.describe), name="feed the watchdog")
    settings.start()
    try:
        await agent.start()
        log.info("ready on %s", path, extra=told("ready", version=__version__))
        supervisor.status(agent.describe())
        stopping = asyncio.create_task(stop.wait(), name="wait for the end")
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    finally:
        log.info("stopping", extra=told("stopping"))
        feeding.cancel()
        supervisor.stopping()
        await settings.close()
        await agent.drain()
        server.should_exit = True
        try:
            await exposed.aclose()
            await serving
        finally:  # also when the server failed: the store is closed in order
            await agent.close()
            for sock in sockets:
                sock.close()
            path.unlink(missing_ok=True)
        log.info("stopped", extra=told("stopped"))


def _listen(agent: Agent, api: ApiSection) -> list[socket.socket]:
    """The Unix socket, and the TCP one where configured. What can be done without is a fault of the agent's.

    Raises EnvironmentFault without the Unix socket.
    """
    sockets = [bind(api.socket)]
    try:
        share(api.socket, api.socket_group)
    except EnvironmentFault as exc:
        _degrade(agent, "socket", exc)
    try:
        sockets += [bind_tcp(api.tcp)] if api.tcp is not None else []
    except EnvironmentFault as exc:
        _degrade(agent, "tcp", exc)
    return sockets


@contextlib.asynccontextmanager
async def _exposed(agent: Agent, app: ASGIApp, access: Access) -> AsyncIterator[None]:
    """Serve the metrics on their own address, where there is one; a port that is taken is a fault of the agent's."""
    address = agent.config.api.metrics
    if address is None:
        yield
        return
    try:
        sock = bind_tcp(address, "api.metrics")
    except EnvironmentFault as exc:
        _degrade(agent, "metrics", exc)
        yield
        return
    server = _Server(_server_config(app, partial(ScraperProtocol, access=access)), lambda: None)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        sock.close()


def _degrade(agent: Agent, part: str, fault: AgentError) -> None:
    log.error("degraded: %s", fault.message, extra=told("part_missing", part=part, code=fault.code))
    agent.set_fault(part, fault)


async def _admit(agent: Agent, access: Access, api: ApiSection, *, strict: bool) -> Callable[[], None]:
    """See Access.prepare; who cannot be admitted is a fault of the agent's."""
    take = await asyncio.to_thread(access.prepare, api, strict=strict)

    def admit() -> None:
        take()
        agent.set_fault("access", None)
        if access.fault is not None:
            _degrade(agent, "access", access.fault)

    return admit


def _server_config(app: ASGIApp, protocol: Callable[..., AccessProtocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # anything that makes a protocol
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=IDLE_S,
        proxy_headers=False,  # nobody is in between, and nobody may pretend to be
        timeout_graceful_shutdown=int(STOP_S),
    )
