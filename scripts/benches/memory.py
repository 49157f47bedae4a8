"""Resident memory while somebody is being filmed."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Callable, Iterator

from scripts.benches.contenders import by_turns, contender
from scripts.benches.daemons import Daemon, daemon, wait_until_ready
from scripts.benches.goals import Goal
from scripts.benches.sessions import sessions
from scripts.benches.stage import Stage

EVERY_S = 0.05
SESSIONS = 3


def measure(stage: Stage, frames: int, tell: Callable[[str], None]) -> list[Goal]:
    """InsightFace and the vision after as many frames, the daemon while three sessions go on, each in the median."""
    tell(f"memory after {frames} frames")
    with contextlib.ExitStack() as children:
        theirs = children.enter_context(
            contender(stage, "InsightFace", "insightface", one_thread=False,
                      root=str(stage.insightface_root), addon=str(stage.addon), size=640)
        )  # fmt: skip
        ours = {
            name: children.enter_context(
                contender(stage, name, "vision", one_thread=False, pack=pack, same=same, models=str(stage.models))
            )
            for name, pack, same in (("the same two models", "scrfd-minifas", True), ("pack open", "open", False))
        }
        by_turns([theirs, *ours.values()], frames)
        base_mb, base_peak_mb = theirs.memory_mb()
        vision = {name: child.memory_mb() for name, child in ours.items()}
    against = f"against InsightFace's {base_mb:.0f} MB (peak {base_peak_mb:.0f} MB)"
    found = [
        Goal("memory", f"vision, {name}, in a session", now_mb / base_mb, "x", 0.60,
             f"{now_mb:.0f} MB (peak {peak_mb:.0f} MB) {against}")
        for name, (now_mb, peak_mb) in vision.items()
    ]  # fmt: skip
    for name, pack in (("the same two models", stage.one_model_pack(640)), ("pack open", "open")):
        tell(f"memory of the daemon, {name}")
        seen_mb, last_mb, peak_mb = _daemon(stage, pack)
        middle_mb = statistics.median(seen_mb)
        detail = (
            f"{middle_mb:.0f} MB, at most {max(seen_mb):.0f} MB in {SESSIONS} sessions (peak {peak_mb:.0f} MB, "
            f"{last_mb:.0f} MB after them) {against}"
        )
        found.append(Goal("memory", f"daemon, {name}, in a session", middle_mb / base_mb, "x", 0.90, detail))
    return found


def _daemon(stage: Stage, pack: str) -> tuple[list[float], float, float]:
    """MB: what was seen in sessions, after the last one, and the system's own peak.

    On a clip: a picture is drawn anew for every frame, with noise that is kept for it, as no camera does.
    """
    with daemon(stage, pack) as running:
        wait_until_ready(running)
        with sessions(running) as terminal:
            terminal.film("warm-up")
            with _watched(running) as seen_mb:
                for number in range(SESSIONS):
                    terminal.film(f"bench-{number}")
        return seen_mb, running.memory_mb(), running.memory_mb("VmHWM")


@contextlib.contextmanager
def _watched(running: Daemon) -> Iterator[list[float]]:
    """The daemon's resident memory, MB, again and again while the context lasts."""
    seen_mb = [running.memory_mb()]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_S):
            seen_mb.append(running.memory_mb())

    watching = threading.Thread(target=watch, name="memory")
    watching.start()
    try:
        yield seen_mb
    finally:
        over.set()
        watching.join()
