"""The stage: the sandbox and the daemon as child processes over real sockets, in a folder that is theirs alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import cv2
import yaml

from edge_agent.client import AgentClient
from edge_agent.errors import EnvironmentFault
from edge_agent.types import Image, JsonObject

MERCHANT_ID = "0123456789abcdef01234567"
CAMERA_SIZE = (1024, 1024)
STOP_S = 15.0


class Stage:
    """A context manager: everything it started is stopped again. ``slow`` scales every clock of the session.

    ``liveness``: that section of the configuration.
    """

    def __init__(
        self,
        folder: Path,
        models_dir: Path,
        *,
        pack: str,
        slow: float,
        camera_size: tuple[int, int] = CAMERA_SIZE,
        liveness: JsonObject | None = None,
    ) -> None:
        self.folder = folder
        self.slow = slow
        self.models_dir = models_dir
        self._camera_size, self._liveness = camera_size, liveness or {}
        self.pack = pack
        self._scene = folder / "scene.bmp"
        self._port = 0
        self._api_key = f"demo-{secrets.token_hex(8)}"
        self._sandbox: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._logs: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        try:
            (self.folder / "state").mkdir(parents=True)
            self.start_sandbox()
            self._start_daemon()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs, the daemon first."""
        for process in (self._daemon, self._sandbox):
            _stop(process)
        for log in self._logs:
            log.close()

    def show(self, image: Image) -> None:
        """Put a picture before the camera."""
        part = self._scene.with_name("next.bmp")
        cv2.imwrite(str(part), image)
        part.replace(self._scene)

    @property
    def socket(self) -> Path:
        return self.folder / "api.sock"

    @property
    def scene(self) -> Path:
        return self._scene

    def start_sandbox(self) -> None:
        """Start it; again on the port it had before, with the people it knew."""
        state = self.folder / "sandbox"
        process = self._spawn(
            "sandbox", "--port", str(self._port), "--state", str(state), "--pack", self.pack,
            "--models-dir", str(self.models_dir), "--merchant-id", MERCHANT_ID, "--api-key", self._api_key,
        )  # fmt: skip
        self._sandbox = process
        ready = _first_line(process, 60.0 * self.slow)
        self._port = int(str(ready["upload_host"]).rsplit(":", 1)[1])

    def stop_sandbox(self) -> None:
        """Cut the network: nothing answers at the service's address any more."""
        _stop(self._sandbox)
        self._sandbox = None

    def _start_daemon(self) -> None:
        key, api_key = self.folder / "device.key", self.folder / "api.key"
        _write_private(key, secrets.token_hex(32))
        _write_private(api_key, self._api_key)
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self._config(key, api_key), sort_keys=False), encoding="utf-8")
        self._daemon = self._spawn("run", "--config", str(config))
        self._wait_until_ready(60.0 * self.slow)

    def _config(self, key: Path, api_key: Path) -> JsonObject:
        slow = self.slow
        return {
            "terminal_id": "demo",
            "state_dir": str(self.folder / "state"),
            "api": {"socket": str(self.socket)},
            "camera": {
                "source": "replay",
                "path": str(self._scene),
                "size": list(self._camera_size),
                "fps": 15.0,
                "stale_after_s": min(3600.0, 1.0 * slow),
            },
            "models": {"pack": self.pack, "dir": str(self.models_dir)},
            "gate": {"max_track_gap_s": 1.0 * slow},
            "enrolment": {"min_inter_eye_px": 60.0},  # the pictures are small
            "liveness": self._liveness,
            "session": {
                "search_timeout_s": min(600.0, 5.0 * slow),
                "verdict_timeout_s": min(600.0, 5.0 * slow),
                "capture_window_s": min(30.0, 0.5 * slow),
                "hint_hold_s": min(10.0, 0.3 * slow),
            },
            "cypherface": {
                "base_url": f"http://127.0.0.1:{self._port}/",
                "merchant_id": MERCHANT_ID,
                "api_key": {"file": str(api_key)},
                "upload_hosts": [f"127.0.0.1:{self._port}"],
                "timeouts": {"connect_s": min(120.0, 5.0 * slow), "request_s": min(600.0, 30.0 * slow)},
            },
            "outbox": {"key": {"file": str(key)}},
        }

    def _wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._daemon is not None and self._daemon.poll() is not None:
                break
            with contextlib.suppress(EnvironmentFault), AgentClient(self.socket) as client:
                if client.ready():
                    return
            time.sleep(0.05)
        raise EnvironmentFault(
            f"cannot run the demo: the daemon did not get ready\n{self._tail('run')}", code="daemon_failed"
        )

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        self._logs.append(log)
        return subprocess.Popen(
            [sys.executable, "-m", "edge_agent", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if arguments[0] == "sandbox" else log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which stops its children in order
        )

    def _tail(self, name: str) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-8:])


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> JsonObject:
    """The JSON line that the sandbox prints when it is ready."""
    if process.stdout is not None and select.select([process.stdout], [], [], timeout_s)[0]:
        line = process.stdout.readline()
        if line:
            ready: JsonObject = json.loads(line)
            return ready
    raise EnvironmentFault("cannot run the demo: the sandbox did not start", code="sandbox_failed")


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
