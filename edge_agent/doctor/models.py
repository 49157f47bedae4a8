"""The model pack: its files, its terms, where it runs and how fast."""

from __future__ import annotations

import errno
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from edge_agent.config import Config, ModelsSection
from edge_agent.doctor.board import memory
from edge_agent.doctor.finding import Finding, Limits, Status, failed, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case, Stages
from edge_agent.errors import AgentError, ModelError
from edge_agent.packs.licence import inspect_licence
from edge_agent.packs.manifest import Pack, load_pack
from edge_agent.packs.verify import FileReport, FileState, verify_pack
from edge_agent.types import Box, Face, Frame

FILES = ("models.files", "models.licence")
RUN = ("models.provider", "models.speed")
SPEED = Limits(warn=400.0, fail=2000.0, unit="ms")
"""One frame, all stages. A session needs five good frames within its search time-out."""
SPEED_OF_A_CHALLENGE = Limits(warn=140.0, fail=2000.0, unit="ms")
"""Below seven frames a second no turn of the head can be followed."""
ROUNDS = 3
_SUDO = "call as root: sudo edge-agent doctor"
_CHOOSE = "edge-agent models list; then set models.pack"
_SLOW = "a faster pack (open-lite), models.threads, a cooler board: docs/performance.md"


def files(case: Case) -> list[Finding]:
    if case.config is None:
        return case.without_config(*FILES)
    models = case.config.models
    try:
        pack = load_pack(models.pack)
    except ModelError as exc:
        told = failed("models.files", exc.message, exc.hint or _CHOOSE, exc.code)
        return [told, unknown("models.licence", "see models.files")]
    return [_verified(case, models, pack), _licence(pack, models)]


def _verified(case: Case, models: ModelsSection, pack: Pack) -> Finding:
    id_, fetch = "models.files", f"sudo edge-agent models fetch {pack.name} --dir {models.dir}"
    reports = verify_pack(pack, models.dir)
    bad = [report for report in reports if report.state is not FileState.OK]
    if bad and all(_hidden(report) for report in bad):
        if case.status is not None and case.fault("models") is None:
            return passed(id_, f"the agent verified and loaded {case.status['pack']}; this user may not read the files")
        return unknown(id_, f"this user may not read {models.dir}", _SUDO)
    if bad:
        named = "; ".join(_of(report) for report in bad)
        return failed(id_, f"{pack.name}: {named}", fetch, len(bad), limit=0, unit="files")
    return passed(id_, f"{pack.name}: {len(reports)} files, every hash is right", 0, limit=0, unit="files")


def _hidden(report: FileReport) -> bool:
    """From this user, not by a disk that cannot."""
    return report.state is FileState.UNREADABLE and report.detail == os.strerror(errno.EACCES)


def _of(report: FileReport) -> str:
    return f"{report.name} {report.state.value}: {report.detail}"


def _licence(pack: Pack, models: ModelsSection) -> Finding:
    id_, licence = "models.licence", inspect_licence(pack, models.dir)
    if licence.commercial_licence or licence.commercial_use == "yes":
        return passed(id_, licence.message or licence.note, licence.commercial_use)
    if licence.commercial_use == "review":
        return unknown(id_, f"nobody here can say: {licence.note}", "have it reviewed: docs/models.md")
    return warned(id_, f"not for commercial use without a licence: {licence.note}", "buy one, or change the pack: docs/models.md", licence.commercial_use, limit="yes")  # fmt: skip


def running(case: Case) -> list[Finding]:
    """Load them as the agent does and judge a made-up picture."""
    if case.config is None:
        return case.without_config(*RUN)
    if case.status is not None and any(finding.status in {Status.FAIL, Status.WARN} for finding in memory(case)):
        return [unknown(id_, "too little memory to load them once more beside the agent") for id_ in RUN]
    if case.status is not None and case.status["searching"]:
        return [
            unknown(id_, "a customer is being filmed, and that comes first", "try again in a minute") for id_ in RUN
        ]
    try:
        stages = case.sources.open_models(case.config.models)
        return [_provider(case.config, stages), _speed(case.config, stages)]
    except AgentError as exc:
        return _not_loaded(exc)


def _not_loaded(error: AgentError) -> list[Finding]:
    if error.code == "provider_unavailable":
        told = failed("models.provider", error.message, error.hint or "set models.providers: auto", error.code)
        return [told, unknown("models.speed", "they cannot be loaded: see models.provider")]
    if error.code in {"inference_failed", "model_invalid"}:
        told = failed("models.speed", error.message, error.hint or "edge-agent models verify", error.code)
        return [unknown("models.provider", "they cannot be run: see models.speed"), told]
    return [unknown(id_, f"they cannot be loaded: {error.message}") for id_ in RUN]


def _provider(config: Config, stages: Stages) -> Finding:
    id_, asked = "models.provider", config.models.providers
    got = stages.providers[0] if stages.providers else "none"
    return passed(id_, f"asked for {asked if isinstance(asked, str) else ', '.join(asked)}, runs on {got}", got)


def _speed(config: Config, stages: Stages) -> Finding:
    """Noise of the camera's size, and a face in the middle of it: the models take the same time as for a real one."""
    width, height = config.camera.size
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    frame, face = Frame(pixels, 0.0, 0), _face(width, height)
    detect_ms = _median_ms(lambda: stages.measure(frame))
    live_ms = _median_ms(lambda: stages.liveness(frame, face))
    total_ms = detect_ms + live_ms
    detail = f"{total_ms:.0f} ms a frame: detector {detect_ms:.0f} ms, liveness {live_ms:.0f} ms"
    return measured("models.speed", total_ms, speed_limits(config), detail, _SLOW)


def speed_limits(config: Config) -> Limits:
    """What a frame may take, as configured."""
    return SPEED if config.liveness.challenge == "off" else SPEED_OF_A_CHALLENGE


def _median_ms(work: Callable[[], object]) -> float:
    """Without the first run, which is slower."""
    work()
    times_ms = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        work()
        times_ms.append((time.perf_counter() - began_s) * 1000.0)
    return statistics.median(times_ms)


def _face(width: int, height: int) -> Face:
    """A face of a quarter of the height, upright, in the middle."""
    x, y, eyes = width / 2, height / 2, height / 8
    landmarks = np.array(
        [[x - eyes / 2, y], [x + eyes / 2, y], [x, y + eyes / 2], [x - eyes / 2, y + eyes], [x + eyes / 2, y + eyes]],
        np.float32,
    )
    return Face(Box(x - eyes, y - eyes, x + eyes, y + 1.5 * eyes), landmarks, 1.0)
