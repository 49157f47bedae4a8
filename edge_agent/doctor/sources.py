"""Where the facts are from. A test puts in what it likes, and every check can be seen to fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from edge_agent.camera import Camera, make_camera
from edge_agent.client import AgentClient
from edge_agent.config import CameraSection, Config, ModelsSection
from edge_agent.doctor import probes
from edge_agent.doctor.finding import Finding, unknown
from edge_agent.errors import AgentError
from edge_agent.outbox.clock import Clock, SystemClock
from edge_agent.outbox.database import free_bytes
from edge_agent.screening import Vision
from edge_agent.timeservice import ask_systemd
from edge_agent.types import JsonObject


class Stages(Vision, Protocol):
    """The models of a pack."""

    @property
    def providers(self) -> tuple[str, ...]: ...


def _open_models(models: ModelsSection) -> Stages:
    from edge_agent.vision.opening import open_configured

    return open_configured(models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The machine it runs on, unless said otherwise. The functions block, and raise OSError or AgentError."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    run: Callable[[Sequence[str], float], str] = probes.run_program
    clock: Clock = field(default_factory=SystemClock)
    kernel_tells: Callable[[], bool] = SystemClock.kernel_tells
    ask_time_service: Callable[[], Awaitable[str]] = ask_systemd
    make_camera: Callable[[CameraSection], Camera] = make_camera
    open_models: Callable[[ModelsSection], Stages] = _open_models
    disk_free: Callable[[Path], int] = free_bytes
    write_ms: Callable[[Path], float] = probes.write_latency_ms
    resolve: Callable[[str, int], list[str]] = probes.resolve
    transport: httpx.AsyncBaseTransport | None = None
    """The way to CypherFace; None: the network."""
    stopwatch: Callable[[], float] = time.monotonic
    """Seconds; how long CypherFace takes to answer."""
    client: Callable[[Path, float], AgentClient] = lambda socket, limit_s: AgentClient(socket, timeout_s=limit_s)
    listens: Callable[[Path], bool | None] = probes.listens


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known before the first check: the configuration, and what the agent says of itself."""

    config_path: Path
    config: Config | None
    config_error: AgentError | None
    socket: Path
    status: JsonObject | None
    """``GET /v1/status``; None when no agent answered."""
    silence: AgentError | None
    """Why it did not."""
    listening: bool | None
    """Whether there is an agent at all; None: this user may not ask."""
    sources: Sources
    stop: threading.Event
    """Set when the run is over: whoever holds something lets go of it."""

    def fault(self, *parts: str) -> JsonObject | None:
        """The first of these parts that the agent misses."""
        faults = self.status["faults"] if self.status else []
        return next((fault for fault in faults if fault["part"] in parts), None)

    @property
    def has_agent(self) -> bool:
        """Whether an agent runs, or may: what it uses must be left to it."""
        return self.listening is not False

    def without_config(self, *ids: str) -> list[Finding]:
        return [unknown(id_, "the configuration cannot be used: see config.file") for id_ in ids]


def text_of(path: Path) -> str | None:
    """A small file of /proc or /sys; None where it is not there or does not say."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def ask(source: Callable[[], Awaitable[str]]) -> str:
    """The answer of an asynchronous source, from a thread without a loop."""

    async def answer() -> str:
        return await source()

    return asyncio.run(answer())
