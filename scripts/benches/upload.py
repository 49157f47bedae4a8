"""The matcher's score against the bytes of an upload, over margin, size and JPEG quality.

Every identity of the shared assets with two pictures and more gives genuine pairs: one picture as the enrolled
source, another as the camera's frame of 1280x720, from which the upload is cut as a session cuts it. The score is the
cosine of the embeddings of the source and of the decoded upload, whose face is looked for anew, as a matcher would.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.bench.charts import Curve, curves
from edge_agent.camera.sway import SwayingStill
from edge_agent.config import CaptureSection
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.types import Embedding, Face, Frame, Image
from edge_agent.vision.annotate import encode_jpeg
from edge_agent.vision.capture import encode_capture
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline
from scripts.benches.goals import Goal
from scripts.benches.stage import ASSETS, SIZE, Stage

MARGINS = (0.2, 0.3, 0.4, 0.5)
SIDES_PX = (240, 320, 480, 640)
QUALITIES = (70, 80, 90)
MIN_INTER_EYE_PX = 60.0
"""As the gate wants it: smaller faces are not uploaded."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One camera frame with its face, and the sources of the same person."""

    identity: str
    image: Image
    face: Face
    original: Embedding
    """Of the frame itself, uncompressed."""
    sources: tuple[Embedding, ...]
    whole_bytes: int
    """Of the frame as JPEG of quality 90."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the section capture."""

    margin: float
    side_px: int
    quality: int
    bytes_share: float
    """Median of the upload to the whole frame's JPEG."""
    median_bytes: int
    mean_score: float
    lowest_score: float
    mean_loss: float
    """Of the score, against the frame itself, uncompressed: the same pairs."""
    worst_loss: float
    impostor_highest: float
    lost: int
    """Uploads in which no face was found."""


def shots(pipeline: Pipeline) -> list[Shot]:
    """Those whose face the gate would take by its size."""
    pictures = _by_identity()
    found = []
    for identity, files in pictures.items():
        looks = {file: _look(pipeline, read_picture(file)) for file in files}
        sources = {file: pipeline.embed(*look) for file, look in looks.items() if look is not None}
        for file in files:
            frame = Frame(SwayingStill(read_picture(file), SIZE).frame(0, 0.0), 0.0, 0)
            face = pipeline.measure(frame).face
            others = tuple(embedding for source, embedding in sources.items() if source != file)
            if face is not None and others and face.inter_eye_px >= MIN_INTER_EYE_PX:
                original, whole = pipeline.embed(frame, face), len(encode_jpeg(frame.image, 90))
                found.append(Shot(identity, frame.image, face, original, others, whole))
    return found


def _by_identity() -> dict[str, list[Path]]:
    """Pictures of the category ``identity``, by person; only persons with two and more."""
    media = json.loads((ASSETS / "manifest.json").read_text(encoding="utf-8"))["media"]
    people: dict[str, list[Path]] = defaultdict(list)
    for item in media:
        if item["category"] == "identity" and item.get("identity"):
            people[item["identity"]].append(ASSETS / item["file"])
    return {name: files for name, files in people.items() if len(files) > 1}


def _look(pipeline: Pipeline, image: Image) -> tuple[Frame, Face] | None:
    frame = Frame(image, 0.0, 0)
    face = pipeline.measure(frame).face
    return None if face is None else (frame, face)


def point(pipeline: Pipeline, all_shots: Sequence[Shot], settings: CaptureSection) -> Point:
    """Every shot uploaded with ``settings``."""
    genuine, losses, impostors, sizes, shares, lost = [], [], [], [], [], 0
    for shot in all_shots:
        jpeg = encode_capture(shot.image, shot.face.box, settings)
        sizes.append(len(jpeg))
        shares.append(len(jpeg) / shot.whole_bytes)
        look = _look(pipeline, read_picture(jpeg))
        if look is None:
            lost += 1
            continue
        uploaded = pipeline.embed(*look)
        for source in shot.sources:
            genuine.append(float(uploaded @ source))
            losses.append(float(shot.original @ source) - genuine[-1])
        impostors += [
            float(uploaded @ s) for other in all_shots if other.identity != shot.identity for s in other.sources
        ]
    return Point(
        settings.margin,
        settings.max_side_px,
        settings.jpeg_quality,
        statistics.median(shares),
        round(statistics.median(sizes)),
        statistics.fmean(genuine),
        min(genuine),
        statistics.fmean(losses),
        max(losses),
        max(impostors),
        lost,
    )


def measure(stage: Stage, tell: Callable[[str], None]) -> list[Point]:
    """The whole grid, with the default pack."""
    pipeline = open_pipeline(load_pack("open"), stage.models, with_embedder=True)
    found = shots(pipeline)
    pairs = sum(len(shot.sources) for shot in found)
    tell(f"upload: {len(found)} frames of {len({s.identity for s in found})} people, {pairs} genuine pairs")
    grid = itertools.product(MARGINS, SIDES_PX, QUALITIES)
    return [
        point(pipeline, found, CaptureSection(margin=margin, max_side_px=side, jpeg_quality=quality))
        for margin, side, quality in grid
    ]


def lines(points: Sequence[Point]) -> Iterator[str]:
    """A row per setting, the smallest upload first."""
    yield "margin  side px  quality    bytes  of whole   score  lowest  mean loss  worst loss  impostor  no face"
    for p in sorted(points, key=lambda p: p.median_bytes):
        yield (
            f"{p.margin:6.2f} {p.side_px:8d} {p.quality:8d} {p.median_bytes:8d} {p.bytes_share:9.2f} {p.mean_score:7.3f}"
            f" {p.lowest_score:7.3f} {p.mean_loss:+10.4f} {p.worst_loss:+11.4f} {p.impostor_highest:9.3f} {p.lost:8d}"
        )


def as_goal(points: Sequence[Point]) -> Goal:
    """The defaults of the configuration among them."""
    defaults = CaptureSection()
    wanted = (defaults.margin, defaults.max_side_px, defaults.jpeg_quality)
    (p,) = [p for p in points if (p.margin, p.side_px, p.quality) == wanted]
    detail = (
        f"{p.median_bytes / 1000:.1f} KB; mean score {p.mean_score:.3f}, {p.mean_loss:+.4f} lost to cutting and JPEG"
    )
    return Goal("upload", "the defaults of capture, to the whole frame's JPEG", p.bytes_share, "x", None, detail)


def draw(points: Sequence[Point], path: Path) -> None:
    """The score over the bytes, through the sizes: a curve per quality at the default margin, one per other margin."""
    defaults = CaptureSection()
    ways = [(defaults.margin, quality) for quality in QUALITIES]
    ways += [(margin, defaults.jpeg_quality) for margin in MARGINS if margin != defaults.margin]
    found = [
        Curve(
            f"margin {margin:g}, quality {quality}",
            tuple(sorted((p.median_bytes / 1000.0, p.mean_score) for p in points if (p.margin, p.quality) == way)),
        )
        for way in ways
        for margin, quality in [way]
    ]
    title = f"Mean score of genuine pairs; longer side {SIDES_PX[0]} to {SIDES_PX[-1]} px"
    curves(title, "KB (median upload)", "cosine", found, path).write(path)


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [{name: getattr(p, name) for name in Point.__slots__} for p in points]
