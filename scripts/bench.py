"""Measurements side by side with InsightFace on this machine. Started by ``scripts/bench``.

Every contender runs in a process of its own, in turn, several rounds after one that warms the disk cache and the
compiled modules; the table shows the median and the spread.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import builtin_dir, load_pack, read_manifest
from edge_agent.picture import read_picture

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("EDGE_AGENT_ASSETS", ROOT.parent / "shared/assets"))
DETECTOR = ASSETS / "models/insightface/det_500m.onnx"
PICTURE = ASSETS / "images/frame_1280x720_obama.jpg"
PACKS = ("open", "scrfd-minifas")
DEADLINE_S = 60.0
OURS = {"OPENBLAS_NUM_THREADS", "PYDANTIC_DISABLE_PLUGINS"}
"""What importing edge_agent sets in this process: InsightFace starts as it would without us."""

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
rss, peak = (int(status.split(key)[1].split()[0]) / 1024 for key in ("VmRSS:", "VmHWM:"))
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
    """Resident memory after the result (the daemon: after the capture), MiB."""
    peak_mb: float
    """The most that was resident until then, MiB."""


@dataclass(frozen=True, slots=True)
class Contender:
    """What is measured, and what the project promises about it."""

    name: str
    start: Callable[[], Start]
    seconds_limit: float | None = None
    """Times InsightFace's seconds."""
    memory_limit: float | None = None
    """Times InsightFace's resident memory."""


class Stage:
    """A scratch folder with the models of both sides and compiled modules of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        for pack in PACKS:
            fetch_pack(load_pack(pack), self.models, from_path=ASSETS / "models")
        theirs = folder / "insightface/models/bench"
        theirs.mkdir(parents=True)
        shutil.copy(DETECTOR, theirs)
        _write_clip(folder / "camera.avi")
        # As pip leaves an installed package: compiled. A checkout on a read-only disk, or under
        # PYTHONDONTWRITEBYTECODE, would compile its modules at every start.
        self._environment = {k: v for k, v in os.environ.items() if k not in OURS | {"PYTHONDONTWRITEBYTECODE"}}
        self._environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "ORT_DISABLE_TELEMETRY": "1"}

    def insightface(self) -> Start:
        return self._python(INSIGHTFACE_IMPORTS.format(root=str(self.folder / "insightface")), INSIGHTFACE_RESULT)

    def insightface_with_liveness(self) -> Start:
        """Detection and its own liveness class, on the MiniFASNet that ours runs, wrapped to the add-on's contract."""
        imports = INSIGHTFACE_IMPORTS.format(root=str(self.folder / "insightface"))
        imports += INSIGHTFACE_LIVENESS.format(model=str(self._addon()))
        return self._python(imports, INSIGHTFACE_RESULT)

    def _addon(self) -> Path:
        path = self.folder / "addon.onnx"
        if not path.exists():
            path.write_bytes(as_addon((ASSETS / "models/minifas/2.7_80x80_MiniFASNetV2.onnx").read_bytes()))
        return path

    def vision(self, pack: str, change: str = "") -> Start:
        imports = VISION_IMPORTS.format(pack=pack, change=change, models=str(self.models))
        return self._python(imports, VISION_RESULT)

    def _python(self, imports: str, result: str) -> Start:
        code = MEASURED.format(imports=imports, result=result, picture=str(PICTURE))
        # A folder without our sources: both sides are imported as installed packages.
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return Start(**json.loads(child.stdout.splitlines()[-1]))

    def daemon(self, pack: str) -> Start:
        """``edge-agent run`` from nothing: a verification is posted as soon as the socket answers."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            config = self._configuration(folder, pack)
            began = time.time()
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "edge_agent", "run", "--config", str(config)],
                    cwd=folder,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                )
            try:
                return _film(process.pid, folder / "api.sock", began)
            except TimeoutError as exc:
                raise SystemExit(f"bench: the daemon did not start\n{(folder / 'log').read_text()}") from exc
            finally:
                process.terminate()
                process.wait()

    def _configuration(self, folder: Path, pack: str) -> Path:
        """A clip for a camera, an outbox on this disk, and a service that cannot be reached."""
        for name in ("device.key", "api.key"):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text("11" * 32)
        path = folder / "config.yaml"
        settings = {
            "state_dir": str(folder / "state"),
            "api": {"socket": str(folder / "api.sock")},
            "camera": {"source": "replay", "path": str(self.folder / "camera.avi")},
            "models": {"pack": pack, "dir": str(self.models)},
            "cypherface": {
                "base_url": "http://127.0.0.1:9/",
                "merchant_id": "0" * 24,
                "api_key": {"file": str(folder / "api.key")},
                "upload_hosts": ["127.0.0.1:9"],
            },
            "outbox": {"key": {"file": str(folder / "device.key")}},
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    def same_detector_pack(self) -> str:
        """A pack file with InsightFace's detector at InsightFace's size, and one MiniFASNet."""
        value = read_manifest(builtin_dir() / "scrfd-minifas.yaml")
        value["name"] = "same-detector"
        value["detector"]["input_px"] = [640, 640]
        value["liveness"] = [model for model in value["liveness"] if model["name"] == "minifasnet"]
        value["liveness"][0]["members"] = value["liveness"][0]["members"][:1]
        unused = {"fr_liveness.onnx", "minifasnet_v1se_80x80.onnx"}
        value["files"] = {name: file for name, file in value["files"].items() if name not in unused}
        path = self.folder / "same-detector.yaml"
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return str(path)


def as_addon(minifasnet: bytes) -> bytes:
    """MiniFASNet behind InsightFace's add-on contract: RGB 0-1 (1, 3, 80, 80) in, the live probability (1,) out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(minifasnet)
    graph = model.graph
    old_in, old_out = graph.input[0].name, graph.output[0].name
    before = [helper.make_node("Gather", ["addon_in", "bgr"], ["addon_bgr"], axis=1)]
    before += [helper.make_node("Mul", ["addon_bgr", "to_255"], [old_in])]
    after = [helper.make_node("Softmax", [old_out], ["addon_p"], axis=1)]
    after += [helper.make_node("Gather", ["addon_p", "live"], ["addon_out"], axis=1)]
    nodes = [*before, *graph.node, *after]
    weights = {"bgr": np.array([2, 1, 0]), "to_255": np.float32(255.0), "live": np.array(1)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items())
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("addon_in", TensorProto.FLOAT, [1, 3, 80, 80]))
    graph.output.append(helper.make_tensor_value_info("addon_out", TensorProto.FLOAT, [1]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _write_clip(path: Path) -> None:
    """The picture as a camera sends it: motion JPEG, 15 frames a second, moving by a pixel, so that no two are equal."""
    image = read_picture(PICTURE)
    height, width = image.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15.0, (width, height))
    for number in range(60):
        writer.write(np.roll(image, number, axis=1))
    writer.release()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _film(pid: int, path: Path, began: float) -> Start:
    """Start a verification and wait for its capture. Raises TimeoutError."""
    deadline = time.monotonic() + DEADLINE_S
    verification: Any = None
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if verification is None:
                code, body = _ask(path, "POST", "/v1/verifications", {"user_id": "bench"})
                verification = body if code == 201 else None
            elif _ask(path, "GET", f"/v1/verifications/{verification['id']}")[1]["state"] != "searching":
                break
        time.sleep(0.02)
    else:
        raise TimeoutError
    status = _ask(path, "GET", "/v1/status")[1]
    first_frame = datetime.fromisoformat(status["started_at"]).timestamp() + status["first_frame_after_s"]
    return Start(first_frame - began, _memory_mb(pid, "VmRSS"), _memory_mb(pid, "VmHWM"))


def _ask(path: Path, method: str, target: str, body: object = None) -> tuple[int, Any]:
    with contextlib.closing(UnixConnection(path)) as connection:
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": "bench"} if content else {}
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def _memory_mb(pid: int, key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


def contenders(stage: Stage) -> list[Contender]:
    """InsightFace first: the others are compared with it."""
    own_pack = stage.same_detector_pack()
    return [
        Contender("InsightFace, det_500m 640x640 + liveness", stage.insightface_with_liveness),
        Contender("InsightFace, detection only", stage.insightface),
        Contender("vision, the same two models", lambda: stage.vision("scrfd-minifas", SAME_DETECTOR), 0.40, 0.65),
        Contender("vision, pack open", lambda: stage.vision("open"), 0.40, 0.65),
        Contender("edge-agent run, the same two models", lambda: stage.daemon(own_pack), 1.0, 0.95),
        Contender("edge-agent run, pack open", lambda: stage.daemon("open"), 1.0),
    ]


def startup(rounds: int) -> list[dict[str, Any]]:
    """Start every contender ``rounds`` times, in turn, after one round that does not count."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        all_of_them = contenders(Stage(Path(folder)))
        starts: dict[str, list[Start]] = {contender.name: [] for contender in all_of_them}
        for round_number in range(rounds + 1):
            print(f"bench: round {round_number} of {rounds}", file=sys.stderr)
            for contender in all_of_them:
                start = contender.start()
                if round_number > 0:
                    starts[contender.name].append(start)
    base = _median(starts[all_of_them[0].name])
    return [_row(contender, starts[contender.name], base) for contender in all_of_them]


def _median(starts: list[Start]) -> Start:
    return Start(*(statistics.median(getattr(s, key) for s in starts) for key in ("seconds", "rss_mb", "peak_mb")))


def _row(contender: Contender, starts: list[Start], base: Start) -> dict[str, Any]:
    middle = _median(starts)
    return {
        "name": contender.name,
        "seconds": round(middle.seconds, 3),
        "seconds_spread": [round(min(s.seconds for s in starts), 3), round(max(s.seconds for s in starts), 3)],
        "seconds_ratio": round(middle.seconds / base.seconds, 2),
        "seconds_limit": contender.seconds_limit,
        "rss_mb": round(middle.rss_mb, 1),
        "peak_mb": round(middle.peak_mb, 1),
        "memory_ratio": round(middle.rss_mb / base.rss_mb, 2),
        "memory_limit": contender.memory_limit,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'contender':<52} {'first result':>13} {'min-max':>13} {'ratio':>11}  {'resident':>9} {'peak':>7} {'ratio':>11}"
    )
    for row in rows:
        low, high = row["seconds_spread"]
        print(
            f"{row['name']:<52} {row['seconds']:>11.3f} s {low:>6.3f}-{high:.3f}"
            f" {_against(row['seconds_ratio'], row['seconds_limit']):>12}"
            f" {row['rss_mb']:>7.0f} MB {row['peak_mb']:>4.0f} MB {_against(row['memory_ratio'], row['memory_limit']):>11}"
        )


def _against(ratio: float, limit: float | None) -> str:
    return f"{ratio:.2f}" if limit is None else f"{ratio:.2f}/{limit:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measurements side by side with InsightFace.")
    parser.add_argument("what", choices=["startup"], help="start-up time and memory")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    if not DETECTOR.is_file():
        print(f"bench: cannot compare with InsightFace: {DETECTOR} does not exist", file=sys.stderr)
        print("  try: EDGE_AGENT_ASSETS=FOLDER, the folder of the shared test assets", file=sys.stderr)
        return 3
    rows = startup(arguments.rounds)
    if arguments.json:
        print(json.dumps({"cores": os.cpu_count(), "python": sys.version.split()[0], "startup": rows}, indent=2))
    else:
        _print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
