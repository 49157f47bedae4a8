"""The daemon: one process that serves the terminal API over a Unix socket and runs the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from edge_agent.agent import Agent
from edge_agent.api.peer import PeerProtocol
from edge_agent.api.routes import application
from edge_agent.config import Config, LogSection, ModelsSection
from edge_agent.errors import EnvironmentFault
from edge_agent.screening import Vision
from edge_agent.settings import Settings
from edge_agent.supervision import Supervisor
from edge_agent.trial import Source

log = logging.getLogger(__name__)

STOP_S = 10.0
"""Requests under way at SIGTERM get this long to be answered."""
PROBE_S = 2.0
"""How long a socket that is there already may take to show that somebody listens."""
CAMERA_EXIT = 3
"""The daemon ended so that a new process gets the camera: the device lacks something, as for any other command."""
MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 256


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


def bind(path: Path) -> socket.socket:
    """A listening Unix socket at ``path`` that only the daemon's user (and root) can connect to.

    Bound here because the mode must be right from the first moment; a stale socket of a dead daemon is replaced, a
    live one is not. Raises EnvironmentFault.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
            sock.listen(128)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot listen on {path}: {exc.strerror or exc}",
            code="socket_unavailable",
            hint="check api.socket: its folder must be writable, and the path shorter than 108 characters",
        ) from exc
    sock.setblocking(False)
    return sock


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(PROBE_S)  # a daemon that hangs has a full backlog: connecting would wait for ever
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    else:
        raise EnvironmentFault(
            f"cannot listen on {path}: another agent answers there",
            code="already_running",
            hint="stop it first, or set another api.socket",
        )
    finally:
        probe.close()


class JsonLines(logging.Formatter):
    """One JSON object a line: level, logger, message, and the code of ours where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if code := getattr(record, "code", None):
            line["code"] = code
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def setup_logging(settings: LogSection) -> None:
    """Logs go to stderr (the journal, under systemd). Pre-signed URLs are secrets: the HTTP library is kept quiet."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if settings.format == "json" else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


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


async def serve_until(stop: asyncio.Event, agent: Agent, settings: Settings | None = None) -> None:
    """Serve ``agent`` on its socket until ``stop`` is set; what stops in which order is said in Agent.drain."""
    settings = settings or Settings(agent, None)
    path = agent.config.api.socket
    sock = bind(path)
    supervisor = Supervisor()
    server = _Server(_server_config(agent, settings), supervisor.ready)
    serving = asyncio.create_task(server.serve(sockets=[sock]), name="api")
    feeding = asyncio.create_task(supervisor.feed(agent.heartbeats, agent.describe), name="feed the watchdog")
    settings.start()
    try:
        await agent.start()
        log.info("ready on %s", path)
        supervisor.status(agent.describe())
        stopping = asyncio.create_task(stop.wait(), name="wait for the end")
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
    finally:
        log.info("stopping")
        feeding.cancel()
        supervisor.stopping()
        await settings.close()
        await agent.drain()
        server.should_exit = True
        try:
            await serving
        finally:  # also when the server failed: the store is closed in order
            await agent.close()
            sock.close()
            path.unlink(missing_ok=True)
        log.info("stopped")


def _server_config(agent: Agent, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        application(agent, settings),
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(STOP_S),
    )
