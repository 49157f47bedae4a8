"""One contender in a process of its own: it waits for a line, does that work on that frame, and tells how long it took.

    python contender.py KIND '{"frames": "frames.npy", "one": false, ...}'

It is started by path, so that a peer's own environment without edge_agent can run it, and imports nothing of ours
but for the kind ``ours``. Lines on stdin are ``{"work": NAME, "frame": N}`` or ``{"memory": true}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[int], float]
"""Frame number -> seconds."""
Picture = Callable[[int], Any]
"""Frame number -> uint8 (H, W, 3) BGR."""
FPS = 30.0


def main() -> None:
    """Answer until stdin ends."""
    kind, terms = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    if terms["one"]:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        _one_thread_per_model()
    if terms["one"] or terms.get("cpu"):
        global clock  # noqa: PLW0603 - one process, one clock
        clock = time.process_time
    import cv2

    if terms["one"]:
        cv2.setNumThreads(1)
    works = KINDS[kind](_turned(Path(terms["frames"])), terms)
    _answer(answers, {"works": sorted(works)})
    for line in sys.stdin:
        asked = json.loads(line)
        _answer(answers, _memory() if "memory" in asked else {"seconds": works[asked["work"]](asked["frame"])})


def _answer(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _memory() -> dict[str, float]:
    """MB of 10^6 bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: int(lines[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM")}


def _one_thread_per_model() -> None:
    """A peer leaves it to ONNX Runtime, which counts the machine's cores."""
    import onnxruntime

    class OneThread(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: Any, sess_options: Any = None, **more: Any) -> None:
            sess_options = sess_options or onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = 1
            super().__init__(model, sess_options, **more)

    onnxruntime.InferenceSession = OneThread


clock: Callable[[], float] = time.perf_counter
"""Or the processor's time of this process: with one thread the same, but for what others at work take away."""


def _timed(work: Callable[[], Any]) -> float:
    began_s = clock()
    work()
    return clock() - began_s


def _turned(file: Path) -> Picture:
    """Frame number -> picture, forwards and backwards, so that nobody jumps. Read anew: a map would count as memory."""
    import numpy as np

    mapped = np.load(file, mmap_mode="r")
    shape, offset, count = mapped.shape[1:], mapped.offset, len(mapped)
    order = [*range(count), *range(count - 2, 0, -1)]
    size = int(np.prod(shape))

    def picture(number: int) -> Any:
        start = offset + order[number % len(order)] * size
        return np.fromfile(file, np.uint8, size, offset=start).reshape(shape)

    return picture


def _ours(picture: Picture, terms: dict[str, Any]) -> dict[str, Work]:
    """The pipeline as a session uses it: a new session's frame, a followed one, and the bare models of both."""
    from edge_agent.bench.watched import WatchedPipeline, run_floor
    from edge_agent.config import GateSection, ModelsSection
    from edge_agent.packs.manifest import load_pack
    from edge_agent.screening import Screener
    from edge_agent.types import Frame

    pipeline = WatchedPipeline(load_pack(terms["pack"]), ModelsSection(pack=terms["pack"], dir=Path(terms["models"])))
    following = Screener(pipeline, GateSection())

    def frame(number: int) -> Frame:
        return Frame(picture(number), number / FPS, number)

    def untracked(number: int) -> float:
        new, shown = Screener(pipeline, GateSection()), frame(number)
        return _timed(lambda: new.screen(shown))

    def tracked(number: int) -> float:
        shown = frame(number)
        return _timed(lambda: following.screen(shown))

    works: dict[str, Work] = {"untracked": untracked, "tracked": tracked}
    following.screen(frame(0))
    if not terms["floor"]:
        return works
    pipeline.keep_inputs(keep=True)
    Screener(pipeline, GateSection()).screen(frame(1))
    asked = pipeline.keep_inputs(keep=True)
    following.screen(frame(1))
    asked_following = pipeline.keep_inputs(keep=False)
    if len(asked) < 2:
        raise SystemExit("the gate refuses the picture: no liveness model would run")
    works["floor"] = lambda _: _timed(lambda: run_floor(asked))
    works["tracked_floor"] = lambda _: _timed(lambda: run_floor(asked_following))
    return works


def _vision(picture: Picture, terms: dict[str, Any]) -> dict[str, Work]:
    """Nothing but the pipeline, as whoever uses it as a library; ``same``: with InsightFace's two models."""
    from dataclasses import replace

    from edge_agent.packs.manifest import load_pack
    from edge_agent.types import Frame
    from edge_agent.vision.opening import open_pipeline

    pack = load_pack(terms["pack"])
    if terms["same"]:
        (family,) = (model for model in pack.liveness if model.name == "minifasnet")
        model = replace(family, members=family.members[:1])
        used = {pack.detector.file, *(member.file for member in model.members)}
        files = {name: file for name, file in pack.files.items() if name in used}
        detector = replace(pack.detector, input_px=(640, 640))
        pack = replace(pack, detector=detector, liveness=(model,), embedder=None, eyes=None, files=files)
    pipeline = open_pipeline(pack, Path(terms["models"]))

    def judge(frame: Frame) -> None:
        face = pipeline.measure(frame).face
        if face is None or not pipeline.liveness(frame, face):
            raise SystemExit("the vision does not find the face")

    def get(number: int) -> float:
        frame = Frame(picture(number), number / FPS, number)
        return _timed(lambda: judge(frame))

    return {"get": get}


def _insightface(picture: Picture, terms: dict[str, Any]) -> dict[str, Work]:
    """Detection and liveness. Size 0: what ``prepare`` chooses when nobody says, two sizes in turn."""
    import warnings

    warnings.simplefilter("ignore")
    from insightface.addons.liveness import Liveness
    from insightface.app import FaceAnalysis

    providers = ["CPUExecutionProvider"]
    app = FaceAnalysis(name="bench", root=terms["root"], allowed_modules=["detection"], providers=providers)
    app.prepare(ctx_id=-1, det_size=(terms["size"], terms["size"]) if terms["size"] else None)
    app.addons["liveness"] = Liveness(terms["addon"], providers=providers)
    faces = app.get(picture(0))
    if len(faces) != 1 or faces[0]["liveness"]["live_score"] is None:
        raise SystemExit(f"InsightFace judged {[face.get('liveness') for face in faces]}")

    def get(number: int) -> float:
        image = picture(number)
        return _timed(lambda: app.get(image))

    return {"get": get}


def _yunet(picture: Picture, terms: dict[str, Any]) -> dict[str, Work]:
    """OpenCV's FaceDetectorYN on the whole frame, and on one of 320 px as the packs look at it."""
    import cv2

    height, width = picture(0).shape[:2]
    small = (320, round(320 * height / width))
    detectors = {size: cv2.FaceDetectorYN.create(terms["model"], "", size) for size in ((width, height), small)}

    def full(number: int) -> float:
        image = picture(number)
        return _timed(lambda: detectors[width, height].detect(image))

    def reduced(number: int) -> float:
        image = picture(number)
        return _timed(lambda: detectors[small].detect(cv2.resize(image, small)))

    for size, detector in detectors.items():
        if detector.detect(cv2.resize(picture(0), size))[1] is None:
            raise SystemExit(f"FaceDetectorYN finds no face at {size}")
    return {"full": full, "reduced": reduced}


def _uniface(picture: Picture, terms: dict[str, Any]) -> dict[str, Work]:
    """SCRFD-500M and MiniFASNetV2 of its own, on our copies of the files: its own way to them is a download.

    The detector lies in its cache under the name that it looks for, with the hash that it expects. Of the liveness it
    expects another export of the same network, so its registry is told the hash of ours.
    """
    import hashlib
    import shutil

    cache = Path(terms["cache"])
    cache.mkdir(exist_ok=True)
    os.environ["UNIFACE_CACHE_DIR"] = str(cache)
    from uniface import constants
    from uniface.detection import SCRFD
    from uniface.spoofing import MiniFASNet

    liveness = constants.MiniFASNetWeights.V2
    shutil.copy(terms["detector"], cache / f"{constants.SCRFDWeights.SCRFD_500M_KPS.value}.onnx")
    file = Path(shutil.copy(terms["liveness"], cache / f"{liveness.value}.onnx"))
    entry, ours = constants.MODEL_REGISTRY[liveness], hashlib.sha256(file.read_bytes()).hexdigest()
    constants.MODEL_REGISTRY[liveness] = type(entry)(url=entry.url, sha256=ours)
    providers, size = ["CPUExecutionProvider"], (640, 640)
    detector = SCRFD(model_name=constants.SCRFDWeights.SCRFD_500M_KPS, input_size=size, providers=providers)
    spoofer = MiniFASNet(model_name=liveness, providers=providers)

    def judge(image: Any) -> list[Any]:
        return [spoofer.predict(image, face.bbox) for face in detector.detect(image)]

    if len(judge(picture(0))) != 1:
        raise SystemExit("uniface does not find the one face")

    def get(number: int) -> float:
        image = picture(number)
        return _timed(lambda: judge(image))

    return {"get": get}


KINDS: dict[str, Callable[[Picture, dict[str, Any]], dict[str, Work]]] = {
    "ours": _ours,
    "vision": _vision,
    "insightface": _insightface,
    "yunet": _yunet,
    "uniface": _uniface,
}


if __name__ == "__main__":
    main()
