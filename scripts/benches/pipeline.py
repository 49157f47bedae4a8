"""A frame of 1280x720 with one face: the pipeline beside its peers and beside the bare models, by turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edge_agent.bench.figures import Spread, spread
from scripts.benches.contenders import Contender, ContenderFailed, by_turns, contender
from scripts.benches.goals import Goal
from scripts.benches.stage import DETECTOR, LIVENESS, YUNET, Stage

OURS = ("one", "one640", "open")
THEIRS = "InsightFace 640x640"


def measure(
    stage: Stage, frames: int, tell: Callable[[str], None], *, one_thread: bool, uniface: str | None
) -> list[Goal]:
    """Everything in one run. A peer that cannot be had is told and left out."""
    with contextlib.ExitStack() as children:
        ready = [children.enter_context(child) for child in _ours_and_theirs(stage, one_thread=one_thread)]
        for name, child in _peers(stage, one_thread=one_thread, uniface=uniface):
            try:
                ready.append(children.enter_context(child))
            except ContenderFailed as exc:
                tell(f"left out: {name}: {exc}")
        tell(f"{frames} frames, {sum(len(child.works) for child in ready)} kinds of work")
        by_turns(ready, frames)
        suffix = ", one thread" if one_thread else ""
        return list(goals(ready, f"pipeline{suffix}"))


def _ours_and_theirs(stage: Stage, *, one_thread: bool) -> Iterator[Any]:
    for name, pack in zip(OURS, (stage.one_model_pack(320), stage.one_model_pack(640), "open"), strict=True):
        yield contender(stage, name, "ours", one_thread=one_thread, pack=pack, models=str(stage.models), floor=True)
    root, addon = str(stage.insightface_root), str(stage.addon)
    for size in (640, 320, 0):
        name = f"InsightFace {size}x{size}" if size else "InsightFace as prepared by default (128 and 640)"
        yield contender(stage, name, "insightface", one_thread=one_thread, root=root, addon=addon, size=size)


def _peers(stage: Stage, *, one_thread: bool, uniface: str | None) -> Iterator[tuple[str, Any]]:
    name = "OpenCV FaceDetectorYN"
    yield name, contender(stage, name, "yunet", one_thread=one_thread, model=str(YUNET))
    if uniface is not None:
        terms = {"cache": str(stage.folder / "uniface"), "detector": str(DETECTOR), "liveness": str(LIVENESS)}
        yield "uniface", contender(stage, "uniface 640x640", "uniface", one_thread=one_thread, python=uniface, **terms)


def goals(ready: Sequence[Contender], part: str) -> Iterator[Goal]:
    """The lines of the table from the seconds of all."""
    found = {(child.name, work): spread(seconds) for child in ready for work, seconds in child.seconds.items()}
    theirs = found[THEIRS, "get"]

    def against(what: str, ours: Spread, other: Spread, limit: float | None) -> Goal:
        quietest = f"{ours.p10_ms / other.p10_ms:.2f}x of the first deciles"
        detail = f"{_shown(ours)} against {_shown(other)}, {quietest}, {ours.samples} frames"
        return Goal(part, what, ours.median_ms / other.median_ms, "x", limit, detail)

    yield against(f"pre-screen, det_500m + one MiniFASNet, to {THEIRS}", found["one", "untracked"], theirs, 0.30)
    yield against(f"the same, followed face, to {THEIRS}", found["one", "tracked"], theirs, None)
    yield against(f"the same at 640x640, to {THEIRS}", found["one640", "untracked"], theirs, None)
    for name, pack in (("one", "det_500m + one MiniFASNet"), ("open", "pack open")):
        yield against(f"{pack}, to the bare models", found[name, "untracked"], found[name, "floor"], 1.25)
        yield against(f"{pack}, followed face, to its bare models", found[name, "tracked"], found[name, "tracked_floor"], None)  # fmt: skip
        yield against(f"{pack}, followed face to a new one", found[name, "tracked"], found[name, "untracked"], 0.50)
    for child in ready[len(OURS) :]:
        for work in child.works:
            yield against(
                f"pre-screen to {child.name}, {work}", found["one", "untracked"], found[child.name, work], None
            )


def _shown(found: Spread) -> str:
    return f"{found.median_ms:.2f} ms ({found.p10_ms:.2f}-{found.p90_ms:.2f})"
