"""``scripts/bench``: see there."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from edge_agent.bench.board import board
from edge_agent.bench.charts import Bar, bars, check_plot
from edge_agent.errors import AgentError
from scripts.benches import capture, growth, idle, memory, pipeline, sent, starts, upload
from scripts.benches.goals import Goal, table
from scripts.benches.stage import DETECTOR, Stage

PARTS = ("pipeline", "startup", "memory", "idle", "capture", "bytes", "upload", "growth")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 measured, whatever came out; 1 with --check where a goal is not met; 2 usage; 3 no assets."""
    options = _options(arguments)
    if not DETECTOR.is_file():
        return _cannot(f"cannot compare with InsightFace: {DETECTOR} does not exist",
                       "EDGE_AGENT_ASSETS=FOLDER, the folder of the shared test assets", 3)  # fmt: skip
    try:
        check_plot(options.plot)
        before = board()
        with tempfile.TemporaryDirectory(prefix="edge-agent-bench-", ignore_cleanup_errors=True) as folder:
            found = _measure(Stage(Path(folder)), options)
        if options.plot is not None:
            _draw(found, options.plot)
    except AgentError as exc:
        return _cannot(exc.message, exc.hint or "", exc.exit_code)
    machine = {**asdict(before), "load_after": board().load}
    if options.json:
        told = {"machine": machine, "goals": [goal.as_json() for goal in found], "upload": options.points}
        print(json.dumps(told, indent=2))
    else:
        print(f"{before.processor}, {before.cores} cores, ONNX Runtime {before.onnxruntime}, Python {before.python}; "
              f"load {before.load:.1f} before, {machine['load_after']:.1f} after")  # fmt: skip
        print("\n".join(table(found)))
    return 1 if options.check and any(goal.met is False for goal in found) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Every goal of speed and memory, measured.")
    parser.add_argument("part", nargs="?", choices=[*PARTS, "all"], default="all", help="one of them, or all")
    parser.add_argument("--only", action="append", choices=PARTS, default=[], metavar="PART", help="of all, these")
    parser.add_argument("--rounds", type=int, default=7, help="process starts and sessions (default 7)")
    parser.add_argument("--frames", type=int, default=100, help="of the comparisons with peers (default 100)")
    parser.add_argument("--growth-frames", type=int, default=20_000, help="(default 20000)")
    parser.add_argument("--sessions", type=int, default=1_000, help="on the made-up clock (default 1000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of idleness (default 20)")
    parser.add_argument("--uniface", metavar="PYTHON", help="an interpreter that has the package uniface")
    parser.add_argument("--plot", type=Path, help="draw the goals (of upload: the curve) to this .svg or .png")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not met")
    options = parser.parse_args(arguments)
    low = {"rounds": 1, "frames": 10, "growth_frames": 100, "sessions": 20, "seconds": 1}
    for name, least in low.items():
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}")
    options.points = None
    options.parts = options.only or (PARTS if options.part == "all" else [options.part])
    return options


def _measure(stage: Stage, options: argparse.Namespace) -> list[Goal]:
    def compared(*, one_thread: bool) -> list[Goal]:
        return pipeline.measure(stage, options.frames, _tell, one_thread=one_thread, uniface=options.uniface)

    works: dict[str, Callable[[], list[Goal]]] = {
        "pipeline": lambda: [*compared(one_thread=False), *compared(one_thread=True)],
        "startup": lambda: starts.measure(stage, options.rounds, _tell),
        "memory": lambda: memory.measure(stage, 50, _tell),
        "idle": lambda: idle.measure(stage, options.seconds, _tell),
        "capture": lambda: capture.measure(stage, options.rounds, _tell),
        "bytes": lambda: sent.measure(stage, options.rounds, _tell),
        "upload": lambda: _upload(stage, options),
        "growth": lambda: growth.measure(stage, options.growth_frames, options.sessions, _tell),
    }
    return [goal for part in options.parts for goal in works[part]()]


def _upload(stage: Stage, options: argparse.Namespace) -> list[Goal]:
    """The JSON has the whole curve; asked for alone, the table and the plot are its too."""
    points = upload.measure(stage, _tell)
    options.points = upload.as_json(points)
    if list(options.parts) == ["upload"]:
        if not options.json:
            print("\n".join(upload.lines(points)))
        if options.plot is not None:
            upload.draw(points, options.plot)
            options.plot = None
    return [upload.as_goal(points)]


def _draw(found: Sequence[Goal], path: Path) -> None:
    """Every ratio with a limit, in parts of its limit: 1 is where it must end."""
    judged = [goal for goal in found if goal.limit]
    rows = [
        Bar(goal.what[:56], goal.value / (goal.limit or 1.0), f"{goal.value:.2f} {goal.unit}", 1.0) for goal in judged
    ]
    bars("Measured, in parts of the limit", rows, path).write(path)


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _cannot(what: str, hint: str, code: int) -> int:
    print(f"bench: {what}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
