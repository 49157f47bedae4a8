"""Start-up and the memory at the first result, side by side with InsightFace.

Every contender runs in a process of its own, in turn, several rounds after one that warms the disk cache and the
compiled modules; the table shows the median and the spread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.benches.daemons import DEADLINE_S, Daemon, daemon
from scripts.benches.goals import Goal
from scripts.benches.stage import PICTURE, Stage

# The clock starts before the first import and stops at the first result; the picture is read in between.
MEASURED = """
import json, sys, time
began = time.perf_counter()
{imports}
import cv2
image = cv2.imread({picture!r})
{result}
seconds = time.perf_counter() - began
status = open("/proc/self/status").read()
rss, peak = (int(status.split(key)[1].split()[0]) * 1024 / 1e6 for key in ("VmRSS:", "VmHWM:"))
print(json.dumps({{"seconds": seconds, "rss_mb": rss, "peak_mb": peak}}))
"""

INSIGHTFACE_IMPORTS = """
from insightface.app import FaceAnalysis
app = FaceAnalysis(name="bench", root={root!r}, allowed_modules=["detection"], providers=["CPUExecutionProvider"])
app.prepare(ctx_id=-1, det_size=(640, 640))
"""
INSIGHTFACE_LIVENESS = """
from insightface.addons.liveness import Liveness
app.addons["liveness"] = Liveness({model!r}, providers=["CPUExecutionProvider"])
"""
INSIGHTFACE_RESULT = "assert app.get(image)"

VISION_IMPORTS = """
from pathlib import Path
from edge_agent.packs.manifest import load_pack
from edge_agent.vision.opening import open_pipeline
pack = load_pack({pack!r})
{change}
pipeline = open_pipeline(pack, Path({models!r}))
"""
SAME_DETECTOR = """
from dataclasses import replace
pack = replace(
    pack,
    detector=replace(pack.detector, input_px=(640, 640)),
    liveness=tuple(
        replace(model, members=model.members[:1]) for model in pack.liveness if model.name == "minifasnet"
    ),
    files={name: file for name, file in pack.files.items() if name not in ("fr_liveness.onnx", "minifasnet_v1se_80x80.onnx")},
)
"""
VISION_RESULT = """
from edge_agent.types import Frame
frame = Frame(image, 0.0, 0)
measurement = pipeline.measure(frame)
assert pipeline.liveness(frame, measurement.face)
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one contender."""

    seconds: float
    """Until the first result: from the first import, for the daemon from the creation of its process."""
    rss_mb: float
    """Resident memory after the result (the daemon: after the capture), MB of 10^6 bytes."""
    peak_mb: float
    """The most that was resident until then, MB."""


@dataclass(frozen=True, slots=True)
class Starter:
    """What is measured, and what the project promises about it."""

    name: str
    start: Callable[[], Start]
    seconds_limit: float | None = None
    """Times InsightFace's seconds."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _film(running: Daemon) -> Start:
    """Start a verification and wait for its capture. Raises TimeoutError."""
    deadline_s = time.monotonic() + DEADLINE_S
    verification: Any = None
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if verification is None:
                code, body = _ask(running.socket, "POST", "/v1/verifications", {"user_id": "bench"})
                verification = body if code == 201 else None
            elif _ask(running.socket, "GET", f"/v1/verifications/{verification['id']}")[1]["state"] != "searching":
                break
        time.sleep(0.02)
    else:
        raise TimeoutError
    status = _ask(running.socket, "GET", "/v1/status")[1]
    first_frame_s = datetime.fromisoformat(status["started_at"]).timestamp() + status["first_frame_after_s"]
    return Start(first_frame_s - running.began_s, running.memory_mb(), running.memory_mb("VmHWM"))


def _ask(path: Path, method: str, target: str, body: object = None) -> tuple[int, Any]:
    with contextlib.closing(UnixConnection(path)) as connection:
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": "bench"} if content else {}
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def _python(stage: Stage, imports: str, result: str) -> Start:
    code = MEASURED.format(imports=imports, result=result, picture=str(PICTURE))
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=stage.folder,
        env=stage.environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return Start(**json.loads(child.stdout.splitlines()[-1]))


def _insightface(stage: Stage, *, liveness: bool) -> Start:
    """``liveness``: with its own class, on the MiniFASNet that ours runs, wrapped to the add-on's contract."""
    imports = INSIGHTFACE_IMPORTS.format(root=str(stage.insightface_root))
    if liveness:
        imports += INSIGHTFACE_LIVENESS.format(model=str(stage.addon))
    return _python(stage, imports, INSIGHTFACE_RESULT)


def _vision(stage: Stage, pack: str, change: str = "") -> Start:
    return _python(stage, VISION_IMPORTS.format(pack=pack, change=change, models=str(stage.models)), VISION_RESULT)


def _daemon(stage: Stage, pack: str) -> Start:
    """From nothing: a verification is posted as soon as the socket answers."""
    with daemon(stage, pack) as running:
        return _film(running)


def starters(stage: Stage) -> list[Starter]:
    """InsightFace first: the others are compared with it."""
    same = stage.one_model_pack(640)
    return [
        Starter("InsightFace, det_500m 640x640 + liveness", lambda: _insightface(stage, liveness=True)),
        Starter("InsightFace, detection only", lambda: _insightface(stage, liveness=False)),
        Starter("vision, the same two models", lambda: _vision(stage, "scrfd-minifas", SAME_DETECTOR), 0.40),
        Starter("vision, pack open", lambda: _vision(stage, "open"), 0.40),
        Starter("edge-agent run, the same two models", lambda: _daemon(stage, same), 0.90),
        Starter("edge-agent run, pack open", lambda: _daemon(stage, "open"), 0.90),
    ]


def measure(stage: Stage, rounds: int, tell: Callable[[str], None]) -> list[Goal]:
    """Start every contender ``rounds`` times, in turn, after one round that does not count."""
    all_of_them = starters(stage)
    starts: dict[str, list[Start]] = {starter.name: [] for starter in all_of_them}
    for number in range(rounds + 1):
        tell(f"start {number} of {rounds}")
        for starter in all_of_them:
            start = starter.start()
            if number > 0:
                starts[starter.name].append(start)
    base = starts[all_of_them[0].name]
    return [goal for starter in all_of_them for goal in goals(starter, starts[starter.name], base)]


def goals(starter: Starter, starts: Sequence[Start], base: Sequence[Start]) -> Iterator[Goal]:
    """Time and memory of one contender against those of ``base``, of the medians."""
    for name, unit, limit in (("seconds", "s", starter.seconds_limit), ("rss_mb", "MB", None)):
        ours, theirs = ([getattr(start, name) for start in some] for some in (starts, base))
        what = "start to the first result" if unit == "s" else "memory at the first result"
        digits = 3 if unit == "s" else 0
        low, middle, high = (f"{f(ours):.{digits}f}" for f in (min, statistics.median, max))
        value = statistics.median(ours) / statistics.median(theirs)
        detail = f"{middle} {unit} ({low}-{high}), {len(ours)} starts; peak {max(s.peak_mb for s in starts):.0f} MB"
        # In a session memory is judged by the part of that name; here it is told.
        yield Goal("startup", f"{what}: {starter.name}", value, "x", limit, detail)
