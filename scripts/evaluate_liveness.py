"""Body of ``scripts/evaluate-liveness``: what each liveness model of a pack says of the shared test assets, and what requiring several of them costs and stops.

For every clip (frame by frame, and fused over windows of one track as a session fuses) and every still: how many live
ones each model passes, how many attacks it refuses, and the same for all of the pack together. The gate's other checks
are left out, but for one face of at least ``MIN_INTER_EYE_PX`` and, in clips, the head's pose: nobody else would vote.
Tiny web data: counts, and no error rates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from evaluate_assets import ASSETS, Kind, label_of  # type: ignore[import-not-found]  # its neighbour: no package

from edge_agent.camera.clip import Clip
from edge_agent.config import GateSection
from edge_agent.gate import check_frame
from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.session import FUSED_FRAMES, fuse
from edge_agent.tracking import Tracker
from edge_agent.types import Frame, GateCode, Image, LivenessScore, Measurement
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline

MIN_INTER_EYE_PX = 20.0
"""The clips are small: 480 x 270 and less."""
POSE = {GateCode.TURN_LEFT, GateCode.TURN_RIGHT, GateCode.CHIN_UP, GateCode.CHIN_DOWN, GateCode.LOOK_STRAIGHT}
K = 5
LIVE_SCENES = ("intel_head_pose_male", "hamilton")
"""Clips without a label that show one living person at a time, near enough."""

Scores = tuple[LivenessScore, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What is looked at of a clip, as shares of its frames and of its width."""

    name: str
    live: bool
    frames: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)


_MIXED, _TWO = "videos/minivision_demo_live_then_attacks.gif", "videos/intel_head_pose_two.gif"
PARTS = {
    _MIXED: (
        Part(_MIXED, True, (0.0, 0.39)),
        Part(_MIXED, False, (0.42, 0.72)),
        Part(_MIXED, False, (0.76, 1.0)),
    ),
    _TWO: (Part(_TWO, True, columns=(0.0, 0.5)), Part(_TWO, True, columns=(0.5, 1.0))),
}
"""A person, a tablet and a print one after the other; two people side by side."""


@dataclass(slots=True)
class Count:
    """How many of how many each model passes, and all of them together."""

    total: int = 0
    passed: dict[str, int] = field(default_factory=dict)

    def add(self, scores: Scores) -> None:
        self.total += 1
        for score in scores:
            self.passed[score.model] = self.passed.get(score.model, 0) + score.passed
        self.passed["all"] = self.passed.get("all", 0) + all(s.passed for s in scores)

    def text(self) -> str:
        return "  ".join(f"{model} {passed}" for model, passed in self.passed.items()) + f"  of {self.total}"


def frames_of(path: Path, part: Part) -> Iterator[Frame]:
    clip, images = Clip(path, default_fps=10.0, loop=False), list[Image]()
    while (image := clip.image(len(images))) is not None:
        images.append(image)
    clip.close()
    first, last = (round(share * len(images)) for share in part.frames)
    left, right = (round(share * clip.size[0]) for share in part.columns)
    for i in range(first, last):
        yield Frame(np.ascontiguousarray(images[i][:, left:right]), i / clip.fps, i)


def tracks(path: Path, part: Part, vision: Pipeline) -> Iterator[list[Scores]]:
    """The scores of every unbroken track, frame by frame."""
    tracker, track_id, scores = Tracker(GateSection()), 0, list[Scores]()
    for frame in frames_of(path, part):
        measurement = vision.measure(frame)
        step, face = tracker.update(measurement, frame.captured_at_s), measurement.face
        if step.track_id != track_id and scores:
            yield scores
            scores = []
        track_id = step.track_id
        if track_id and face is not None and face.inter_eye_px >= MIN_INTER_EYE_PX and straight(measurement):
            scores.append(vision.liveness(frame, face))
    if scores:
        yield scores


def straight(measurement: Measurement) -> bool:
    return not any(c.passed is False and c.code in POSE for c in check_frame(measurement, GateSection()))


def windows(track: Sequence[Scores], most: int) -> Iterable[Scores]:
    """The fused scores after every frame from the K-th on, of the latest ``most`` frames."""
    return (fuse(list(track[max(0, i - most) : i])) for i in range(K, len(track) + 1))


def clips(assets: Path, vision: Pipeline) -> None:
    totals: dict[tuple[bool, str], Count] = {}
    for part in parts(assets):
        name, live = part.name, part.live
        found = list(tracks(assets / name, part, vision))
        rows = {
            "frames": [scores for track in found for scores in track],
            f"windows of {K}": [s for track in found for s in windows(track, K)],
            f"windows of up to {FUSED_FRAMES}": [s for track in found for s in windows(track, FUSED_FRAMES)],
        }
        for row, all_scores in rows.items():
            count, total = Count(), totals.setdefault((live, row), Count())
            for scores in all_scores:
                count.add(scores)
                total.add(scores)
            print(f"  {'live  ' if live else 'attack'} {Path(name).name:<44}{row:<20}{count.text()}")
    for (live, row), total in totals.items():
        print(f"  ALL {'live  ' if live else 'attack'} clips: {row:<22}{total.text()}")


def parts(assets: Path) -> Iterator[Part]:
    """Every labelled clip, or labelled part of one."""
    for item in json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]:
        name = item["file"]
        if item["kind"] != "video":
            continue
        if name in PARTS:
            yield from PARTS[name]
        elif item.get("label") or Path(name).name.startswith(LIVE_SCENES):
            yield Part(name, label_of(item).kind is not Kind.ATTACK)


def stills(assets: Path, vision: Pipeline) -> None:
    live, attacks = Count(), Count()
    for item in json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]:
        kind = label_of(item).kind
        if item["kind"] == "video" or kind not in {Kind.BONA_FIDE, Kind.ATTACK}:
            continue
        frame = Frame(read_picture(assets / item["file"]), 0.0, 0)
        face = vision.measure(frame).face
        if face is None:
            continue
        scores = vision.liveness(frame, face)
        (live if kind is Kind.BONA_FIDE else attacks).add(scores)
        if kind is Kind.ATTACK and any(s.passed for s in scores):
            said = ", ".join(f"{s.model} {s.score:.2f}" for s in scores if s.score is not None)
            print(f"    attack {Path(item['file']).name}: {said}")
    print(f"  stills: live    {live.text()}")
    print(f"  stills: attacks {attacks.text()}  (passed, so not refused)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="*", default=["open", "open-lite", "scrfd-minifas"], metavar="PACK")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--models-dir", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.packs:
            pack, folder = load_pack(name), options.models_dir or Path(scratch)
            if not options.models_dir:
                fetch_pack(pack, folder, from_path=options.assets / "models")
            print(f"pack {name}", flush=True)
            vision = open_pipeline(pack, folder)
            stills(options.assets, vision)
            clips(options.assets, vision)


if __name__ == "__main__":
    main()
