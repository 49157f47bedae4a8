"""A terminal in good health, every fact of it made up, for tests that make it ill."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import yaml

from edge_agent.api.wire_outbox import AuditCheck
from edge_agent.camera import Camera
from edge_agent.doctor import systemd
from edge_agent.doctor.examination import run_checks
from edge_agent.doctor.finding import Finding
from edge_agent.doctor.sources import Sources
from edge_agent.errors import CameraError, EnvironmentFault, ModelError
from edge_agent.outbox import Store
from edge_agent.types import Face, Frame, JsonObject, LivenessScore, Measurement
from tests.doctor.certificates import Authority, greeting
from tests.faces import measurement, scores
from tests.outbox.fakes import FakeClock, pending
from tests.packs.stand_ins import CONTENT, pack_value

KEY = "11" * 32
API_KEY = "5a9db0c0-ffee-4000-8000-5a9db0c0ffee"
TOKEN = "eyJhbGciOiJub25lIn0.eyJpYXQiOjEsImV4cCI6OTk5fQ.c2lnbmF0dXJl"
USER = "customer-4711"
MERCHANT = "5a9db0c0ffee5a9db0c0ffee"
HEALTHY_UNIT = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "UnitFileState": "enabled", "NRestarts": "0",
    "Result": "success", "DropInPaths": "/etc/systemd/system/edge-agent.service.d/raspberry-pi.conf", **systemd.HARDENING,
}  # fmt: skip


STATUS: dict[str, Any] = {
    "version": "1", "simulator": False, "started": True, "ready": True, "searching": False, "faults": [], "pack": "small",
    "configuration": {"restart_needed": []},
    "camera": {"state": "ok", "detail": "made up", "code": None, "hint": None},
    "network": {"state": "online", "stopped_code": None, "last_error": f"no such user: {USER}"},
    "queue": {"depth": 1, "parked": 0, "bytes": 1, "oldest_age_s": 1.0}, "storage": {"takes_captures": True, "problem": None},
}  # fmt: skip
"""What a healthy agent says."""
SIZE = (320, 180)
"""Small: the tests draw many pictures."""


class MovingCamera(Camera):
    """A scene with edges that moves on at every frame; time passes as frames do."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.fps = 15.0
        self.delivers = SIZE
        self.level = 1.0
        self.blur_px = 1
        self.frozen = False
        self.fails_after: int | None = None
        self.error: CameraError | None = None
        self.is_open = False
        self.opened = 0
        self._index = -1

    @property
    def description(self) -> str:
        return "made up"

    @property
    def size(self) -> tuple[int, int]:
        return self.delivers

    def open(self) -> None:
        if self.error is not None:
            raise self.error
        self.is_open = True
        self.opened += 1

    def close(self) -> None:
        self.is_open = False

    def read(self, timeout_s: float) -> Frame:
        del timeout_s
        self._index += 1
        self.clock.advance(1 / self.fps)
        if self.fails_after is not None and self._index >= self.fails_after:
            raise CameraError("cannot read made up: it went away")
        return Frame(self._picture(), self.clock.monotonic_s(), self._index)

    def _picture(self) -> Any:
        """Stripes in both directions; ``blur_px``: how far apart their steps are."""
        width, height = self.delivers
        shift = 0 if self.frozen else 3 * self._index
        x, y = (np.arange(width) + shift) % 160, np.arange(height)[:, None] % 160
        luma = (60 + 60 * self._step(x) + 60 * self._step(y)) * self.level
        return np.repeat(np.clip(luma, 0, 255).astype(np.uint8)[..., None], 3, axis=2)

    def _step(self, along: Any) -> Any:
        return np.clip((np.abs(along - 80) - 40) / self.blur_px + 0.5, 0, 1)


class QuickModels:
    """Stands in for the networks; ``provider`` is where they say they run."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def measure(self, frame: Frame) -> Measurement:
        del frame
        return measurement()

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        del frame, face
        return scores(0.9, 0.9)


class Agent:
    """An agent that answers with ``status``."""

    def __init__(self, status: JsonObject) -> None:
        self._status = status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self) -> JsonObject:
        return self._status

    def audit_verify(self) -> AuditCheck:
        return AuditCheck(ok=True, records=3, head=None, first_bad=None, problem=None, gaps=[])


def nobody(_: Path, __: float) -> Any:
    raise EnvironmentFault("cannot reach the agent", code="agent_unreachable")


@dataclass
class Patient:
    """Healthy, with no agent running; change what is to be wrong, then ``examine``."""

    folder: Path
    port: int
    authority: Authority
    stack: ExitStack
    clock: FakeClock = field(default_factory=lambda: FakeClock(wall_now=datetime.now(UTC)))
    service_ahead: timedelta = timedelta()
    service_takes_s: float = 0.1
    dateless: bool = False
    service_status: int = 404
    """Of its front page."""
    service_down: Exception | None = None
    token_status: int = 200
    time_service: str | None = None
    """What systemd says; None: the kernel tells."""
    programs: dict[str, str] = field(default_factory=dict)
    status: JsonObject | None = None
    listens: bool | None = False
    free_bytes: int = 8 << 30
    write: float | OSError = 3.0
    dead_names: bool = False
    models_error: ModelError | None = None
    pack: dict[str, Any] = field(default_factory=pack_value)
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the configuration, by section."""
    broken_config: str | None = None

    def __post_init__(self) -> None:
        self.camera = MovingCamera(self.clock)
        self.models = QuickModels()
        self.programs |= {"systemctl": unit_says(), "vcgencmd": "throttled=0x0\n"}
        self.sys, self.proc = self.folder / "sys", self.folder / "proc"
        self.state = self.folder / "state"
        self._furnish()

    def _furnish(self) -> None:
        self.put(self.proc / "meminfo", "MemTotal: 4000000 kB\nMemAvailable:    2000000 kB\n")
        self.put(self.sys / "class/thermal/thermal_zone0/temp", "45000")
        self.put(self.sys / "class/thermal/thermal_zone0/type", "cpu-thermal")
        self.disk = self.sys / "devices/mmc/block/mmcblk0"
        self.put(self.disk / "device/life_time", "0x01 0x02")
        self.put(self.disk / "device/pre_eol_info", "0x01")
        self.put(self.sys / "fs/ext4/mmcblk0/errors_count", "0")
        for name, content in CONTENT.items():
            data = self.pack["files"][name]
            self.put(self.folder / f"models/{name.removesuffix('.onnx')}-{data['sha256'][:16]}.onnx", content)
        self.secret("device.key", KEY)
        self.secret("api.key", API_KEY)
        with self.open_store() as store:
            store.recover()
            pending(store, USER)
        device = self.state.stat().st_dev
        link = self.sys / f"dev/block/{os.major(device)}:{os.minor(device)}"
        link.parent.mkdir(parents=True)
        link.symlink_to(self.disk)

    def put(self, path: Path, content: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def secret(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)

    def open_store(self, key: str = KEY) -> Store:
        return Store.open(self.state, key.encode(), clock=self.clock)

    def shows(self, certificate: Path | None) -> None:
        """The service has this certificate, or no TLS."""
        self.port = self.stack.enter_context(greeting(certificate))

    def config_file(self) -> Path:
        path = self.folder / "config.yaml"
        self.put(self.folder / "pack.yaml", yaml.safe_dump(self.pack))
        self.put(path, self.broken_config or yaml.safe_dump(self._config()))
        return path

    def _config(self) -> dict[str, Any]:
        here = f"127.0.0.1:{self.port}"
        sections: dict[str, dict[str, Any]] = {
            "api": {"socket": str(self.folder / "api.sock"), "socket_group": None},
            "camera": {"size": list(SIZE)},
            "models": {"pack": str(self.folder / "pack.yaml"), "dir": str(self.folder / "models")},
            "cypherface": {
                "base_url": f"https://{here}/",
                "merchant_id": MERCHANT,
                "api_key": {"file": str(self.folder / "api.key")},
                "upload_hosts": [here],
                "ca_bundle": str(self.authority.file),
            },
            "outbox": {"key": {"file": str(self.folder / "device.key")}, "reserve_bytes": 0},
        }
        for name, change in self.changes.items():
            sections[name] = {**sections.get(name, {}), **change}
        return {"state_dir": str(self.state), **sections}

    def sources(self) -> Sources:
        return Sources(
            proc=self.proc,
            sys=self.sys,
            run=self._run,
            clock=self.clock,
            kernel_tells=lambda: self.time_service is None,
            ask_time_service=self._ask_time_service,
            make_camera=lambda _: self.camera,
            open_models=self._open_models,
            disk_free=lambda _: self.free_bytes,
            write_ms=self._write_ms,
            resolve=self._resolve,
            transport=httpx.MockTransport(self._service),
            stopwatch=iter([0.0, self.service_takes_s]).__next__,
            listens=lambda _: self.listens,
            client=nobody if self.status is None else lambda *_: Agent(self.status or {}),  # type: ignore[arg-type]
        )

    def examine(self, *only: str) -> dict[str, Finding]:
        return {finding.id: finding for finding in run_checks(self.config_file(), only=only, sources=self.sources())}

    def _run(self, command: Sequence[str], _limit_s: float) -> str:
        if command[0] not in self.programs:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.programs[command[0]]

    async def _ask_time_service(self) -> str:
        return self.time_service or ""

    def _open_models(self, _: object) -> QuickModels:
        if self.models_error is not None:
            raise self.models_error
        return self.models

    def _write_ms(self, _: Path) -> float:
        if isinstance(self.write, OSError):
            raise self.write
        return self.write

    def _resolve(self, host: str, port: int) -> list[str]:
        del port
        if self.dead_names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [host]

    def _service(self, request: httpx.Request) -> httpx.Response:
        if self.service_down is not None:
            raise self.service_down
        if self.dateless:
            return httpx.Response(200)
        date = format_datetime(self.clock.wall() + self.service_ahead, usegmt=False)
        headers = {"date": date, "content-type": "application/json"}
        if request.method == "GET":
            return httpx.Response(self.service_status, headers=headers, content=b"{}")
        if self.token_status != 200:
            said = {"message": f"no merchant has the key {request.headers['x-api-key']}"}
            return httpx.Response(self.token_status, headers=headers, json=said)
        return httpx.Response(200, headers=headers, json={"accessToken": TOKEN})


def unit_says(**changes: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in {**HEALTHY_UNIT, **changes}.items())


Illness = Callable[[Patient], object]
