"""A whole terminal for tests: the real agent behind its real socket, the real outbox, the real sandbox.

Only the camera and the models are made up: the camera shows noise, and ``Eyes`` says what the models see in it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from pydantic import ValidationError

from edge_agent.agent import Agent
from edge_agent.api.wire_events import EVENTS
from edge_agent.camera import Camera
from edge_agent.client import AgentClient
from edge_agent.config import Config, ModelsSection
from edge_agent.daemon import serve_until
from edge_agent.errors import CameraError
from edge_agent.events import Event, EventBus
from edge_agent.outbox.clock import Clock
from edge_agent.sandbox.server import SandboxServer
from edge_agent.settings import Settings
from edge_agent.trial import Source
from edge_agent.types import Face, Frame, JsonObject, LivenessScore, Measurement
from tests.faces import measurement, scores

KEY = "11" * 32


class Eyes:
    """What the models see; may be changed while a session runs."""

    def __init__(self) -> None:
        self.sees: Measurement = measurement()
        self.scores: tuple[LivenessScore, ...] = scores(0.9, 0.9)
        self.error: Exception | None = None

    def measure(self, frame: Frame) -> Measurement:
        if self.error is not None:
            raise self.error
        return replace(self.sees, digest=b"%d" % frame.index)

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del frame, face
        return self.scores


class NoiseCamera(Camera):
    """100 frames a second of noise; ``broken`` makes it fail as a real one would."""

    def __init__(self) -> None:
        self.broken: str | None = None
        self.cannot_open = False
        self.opened = 0
        self.is_open = False
        self._index = -1
        rng = np.random.default_rng(1)
        self._pixels = rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8)

    @property
    def description(self) -> str:
        return "noise"

    @property
    def size(self) -> tuple[int, int]:
        return 1280, 720

    def open(self) -> None:
        if self.is_open:
            return
        if self.cannot_open:
            raise CameraError("cannot open noise: unplugged")
        self.opened += 1
        self.is_open = True

    def read(self, timeout_s: float) -> Frame:
        time.sleep(0.01)
        if self.broken is not None:
            raise CameraError("cannot read noise: unplugged", code=self.broken)
        self._index += 1
        return Frame(self._pixels, time.monotonic(), self._index)

    def close(self) -> None:
        self.is_open = False


class Terminal:
    """A context manager: the agent in a thread of its own, as the daemon runs it."""

    def __init__(self, folder: Path, sandbox_url: str, credentials: Any, **changes: dict[str, Any]) -> None:
        self.folder = folder
        self.camera = NoiseCamera()
        self.eyes = Eyes()
        self.vision_error: Exception | None = None
        self.camera_devices: set[str | None] | None = None
        """Values of camera.device that can be opened; None = any."""
        self.on_vision: Callable[[], None] = lambda: None
        """Called when models are opened."""
        self.packs: list[str] = []
        """Packs that were opened."""
        self._config = _config(folder, sandbox_url, credentials, changes)
        self.file = folder / "config.yaml"
        self.file.write_text(yaml.safe_dump(self._config.model_dump(mode="json")))
        self.undocumented: list[str] = []
        """Events that were not as api/wire_events.py says."""
        self.clock: Clock | None = None
        """None = the machine's."""
        self.restarts = 0
        """How often the agent asked to be started again."""

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="terminal", daemon=True)
        self._thread.start()
        assert started.wait(20), "the agent did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the agent did not stop"
        assert self.undocumented == []

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.agent = Agent(
            self._config, clock=self.clock, camera_factory=self._make_camera, vision_factory=self._open_vision
        )
        self._check_events(self.agent.bus)
        self.settings = Settings(
            self.agent, Source(self.file, self._config.state_dir), exit_for_restart=self._note_restart
        )
        serving = asyncio.create_task(serve_until(self._stop, self.agent, self.settings))
        ready = asyncio.create_task(self.agent.wait_started())
        await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
        started.set()
        await serving

    def _check_events(self, bus: EventBus) -> None:
        """Every event of every test of a terminal is as documented, field by field."""
        publish = bus.publish

        def checked(kind: str, data: JsonObject, **more: Any) -> Event:
            event = publish(kind, data, **more)
            self.undocumented += departures(kind, {"at": event.at, "verification_id": event.verification_id, **data})
            return event

        bus.publish = checked  # type: ignore[method-assign]

    def _note_restart(self) -> None:
        self.restarts += 1

    def text(self, **changes: Any) -> str:
        """The configuration file with other values, by section."""
        values: dict[str, Any] = yaml.safe_load(self.file.read_text())
        for section, change in changes.items():
            values[section] = {**values[section], **change} if isinstance(change, dict) else change
        return yaml.safe_dump(values)

    def _make_camera(self) -> Camera:
        if self.camera_devices is not None and self.agent.config.camera.device not in self.camera_devices:
            raise CameraError(f"cannot open {self.agent.config.camera.device}: no such device")
        return self.camera

    def _open_vision(self, models: ModelsSection) -> Eyes:
        self.packs.append(models.pack)
        self.on_vision()
        if self.vision_error is not None:
            raise self.vision_error
        return self.eyes

    @property
    def socket(self) -> Path:
        return self._config.api.socket

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the agent in its own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    @contextmanager
    def client(self) -> Iterator[AgentClient]:
        with AgentClient(self.socket) as client:
            yield client


def departures(kind: str, data: JsonObject) -> list[str]:
    """In what an event's data is not what its model says; nothing may be missing, nothing more may be there."""
    model = EVENTS.get(kind)
    if model is None:
        return [f"there is no kind {kind!r}"]
    try:
        model.model_validate(data)
    except ValidationError as exc:
        return [f"{kind}: {error['loc']}: {error['msg']}" for error in exc.errors()]
    return [f"{kind}: {name}" for name in data.keys() ^ model.model_fields.keys()]


def _config(folder: Path, url: str, credentials: Any, changes: dict[str, dict[str, Any]]) -> Config:
    for name, text in (("device.key", KEY), ("api.key", credentials.api_key)):
        path = folder / name
        path.write_text(text)
        path.chmod(0o600)
    sections: dict[str, dict[str, Any]] = {
        "api": {"socket": folder / "api.sock", "socket_group": None},
        "session": {
            "search_timeout_s": 3.0,
            "verdict_timeout_s": 4.0,
            "capture_window_s": 0.05,
            "hint_hold_s": 0.05,
        },
        "cypherface": {
            "base_url": url,
            "merchant_id": credentials.merchant_id,
            "api_key": {"file": folder / "api.key"},
            "upload_hosts": [url.removeprefix("http://").rstrip("/")],
            "timeouts": {"connect_s": 1.0, "request_s": 2.0, "match_s": 2.0},
        },
        "outbox": {"key": {"file": folder / "device.key"}, "reserve_bytes": 0},
    }
    for name, change in changes.items():
        sections[name] = {**sections.get(name, {}), **change}
    return Config.model_validate({"state_dir": folder / "state", **sections})


@contextmanager
def terminal(folder: Path, sandbox: SandboxServer, **changes: dict[str, Any]) -> Iterator[Terminal]:
    """A running terminal that forwards to ``sandbox``."""
    with Terminal(folder, sandbox.base_url, sandbox.credentials, **changes) as running:
        yield running
