"""The report of the pipeline for people."""

from __future__ import annotations

from collections.abc import Iterator

from edge_agent.bench.pipeline import FLOOR_GOAL, TRACKED_GOAL, Report


def lines(report: Report) -> Iterator[str]:
    before, after = report.before, report.after
    heat = f", {before.temperature_c:.0f} to {after.temperature_c or 0:.0f} C" if before.temperature_c else ""
    yield f"{before.processor}, {before.cores} cores, load {before.load:.1f}{heat}"
    yield f"Python {before.python}, ONNX Runtime {before.onnxruntime} on {report.providers[0]}"
    yield f"pack {report.pack}, {report.threads} thread(s) per model; medians (10 %-90 % of the samples)"
    yield f"a frame of 1280x720 with one face, {report.untracked.samples} times by turns"
    yield f"  untracked                 {report.untracked}"
    yield f"  its models alone          {report.floor}"
    yield f"  ratio                     {report.ratio_floor:.2f}; goal {FLOOR_GOAL:.2f}"
    yield f"  tracked                   {report.tracked}"
    yield f"  its models alone          {report.tracked_floor}"
    yield f"  ratio                     {report.ratio_tracked_floor:.2f}"
    yield f"  tracked to untracked      {report.ratio_tracked:.2f}; goal {TRACKED_GOAL:.2f}"
    yield from _parts(report)
    yield f"start to the first picture  {report.start}, {len(report.starts)} times"
    yield f"  resident {report.resident_mb:.0f} MB, peak {report.peak_mb:.0f} MB"
    yield from _growth(report)


def _parts(report: Report) -> Iterator[str]:
    yield "stages of an untracked frame"
    for name, found in report.stages.items():
        yield f"  {name:<25} {found}" + (" (not in its time)" if name in {"read", "encode"} else "")
    yield "models"
    for name, found in report.models.items():
        yield f"  {name:<25} {found}"


def _growth(report: Report) -> Iterator[str]:
    yield "by resolution and faces       untracked    tracked"
    for cost in report.scenes:
        scene = cost.scene
        note = "" if cost.liveness else "  (refused before liveness)"
        yield (
            f"  {scene.width:>4}x{scene.height:<4} {scene.faces} face(s)"
            f" {cost.untracked.median_ms:>15.1f} ms {cost.tracked.median_ms:>7.1f} ms{note}"
        )
    yield "by queue length                   claim      start"
    for depth in report.queue:
        yield f"  {depth.rows:>6} captures {depth.claim.median_ms:>17.2f} ms {depth.begin_s:>7.2f} s"
