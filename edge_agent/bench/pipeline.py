"""All measurements of the pipeline in one run: every figure beside the bare runs of the same models, by turns."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.bench import claim
from edge_agent.bench.board import Board, board
from edge_agent.bench.claim import Depth
from edge_agent.bench.figures import Spread, spread
from edge_agent.bench.scenes import MAIN, OTHERS, portrait
from edge_agent.bench.start import Start
from edge_agent.bench.turns import CAMERA_QUALITY, Cost, by_turns, cost
from edge_agent.bench.watched import WatchedPipeline
from edge_agent.types import Face, Frame, Image, JsonObject
from edge_agent.vision.annotate import encode_jpeg

TRACKED_GOAL = 0.5
FLOOR_GOAL = 1.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    frames: int = 100
    scene_frames: int = 20
    starts: int = 3
    queue_rows: tuple[int, ...] = (10, 1_000, 5_000)
    claims: int = 40


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; every time is in the unit of its name."""

    before: Board
    after: Board
    pack: str
    providers: tuple[str, ...]
    threads: int
    """Intra-op threads per model."""
    untracked: Spread
    """A frame of a new session, screened in full."""
    tracked: Spread
    """The next frame of a session that follows this face."""
    floor: Spread
    """The bare runs of the models with the inputs that an untracked frame gave them."""
    tracked_floor: Spread
    stages: dict[str, Spread]
    """Of an untracked frame; ``read`` and ``encode`` lie before and behind it and are not in its time."""
    models: dict[str, Spread]
    """Of an untracked frame: what each model file took of its stage."""
    scenes: tuple[Cost, ...]
    queue: tuple[Depth, ...]
    starts: tuple[Start, ...]

    @property
    def start(self) -> Spread:
        """From the first import to the first screened picture."""
        return spread([start.seconds for start in self.starts])

    @property
    def ratio_floor(self) -> float:
        return _ratio(self.untracked, self.floor)

    @property
    def ratio_tracked_floor(self) -> float:
        return _ratio(self.tracked, self.tracked_floor)

    @property
    def ratio_tracked(self) -> float:
        return _ratio(self.tracked, self.untracked)

    @property
    def resident_mb(self) -> float:
        """After the first result of a fresh process, the most of all starts."""
        return max(start.resident_mb for start in self.starts)

    @property
    def peak_mb(self) -> float:
        return max(start.peak_mb for start in self.starts)

    def as_json(self) -> JsonObject:
        """The figures with the ratios that follow from them."""
        plain = ("pack", "threads", "ratio_floor", "ratio_tracked_floor", "ratio_tracked", "resident_mb", "peak_mb")
        spreads = ("untracked", "tracked", "floor", "tracked_floor", "start")
        return {
            "machine": {**asdict(self.before), "temperature_after_c": self.after.temperature_c},
            "providers": list(self.providers),
            **{name: getattr(self, name) for name in plain},
            **{name: asdict(getattr(self, name)) for name in spreads},
            "stages": {name: asdict(found) for name, found in self.stages.items()},
            "models": [{"file": name, **asdict(found)} for name, found in self.models.items()],
            "scenes": [_cost_json(cost) for cost in self.scenes],
            "queue": [{"rows": d.rows, "claim": asdict(d.claim), "begin_s": d.begin_s} for d in self.queue],
        }


def _ratio(ours: Spread, other: Spread) -> float:
    """Of the medians."""
    return ours.median_ms / other.median_ms


def _cost_json(cost: Cost) -> JsonObject:
    ran = {"found": cost.found, "liveness": cost.liveness}
    return {**asdict(cost.scene), **ran, "untracked": asdict(cost.untracked), "tracked": asdict(cost.tracked)}


def measure(
    folder: Path,
    pipeline: WatchedPipeline,
    picture: Image,
    plan: Plan,
    *,
    start: Callable[[Path], Start],
    threads: int,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Everything; ``folder`` is scratch space, ``start`` screens a picture file in a fresh process.

    Raises InputError when the picture shows no face or one that the gate refuses: nothing would be asked of the
    liveness models then.
    """
    person = portrait(picture, lambda image: _face_of(pipeline, image))
    before = board()
    tell(f"screening {plan.frames} frames")
    samples = by_turns(pipeline, MAIN, person, plan.frames)
    tell("other resolutions and other numbers of faces")
    scenes = tuple(cost(pipeline, scene, person, plan.scene_frames) for scene in OTHERS)
    tell(f"starting {plan.starts} times")
    file = folder / "picture.jpg"
    file.write_bytes(encode_jpeg(picture, CAMERA_QUALITY))
    starts = tuple([start(file) for _ in range(plan.starts + 1)][1:])
    queue = tuple(claim.measure(folder, secrets.token_bytes(32), plan.queue_rows, plan.claims, tell))
    return Report(
        before,
        board(),
        pipeline.pack.name,
        pipeline.providers,
        threads,
        samples.spread("untracked"),
        samples.spread("tracked"),
        samples.spread("floor"),
        samples.spread("tracked_floor"),
        samples.named("stage "),
        samples.named("model "),
        scenes,
        queue,
        starts,
    )


def _face_of(pipeline: WatchedPipeline, image: Image) -> Face | None:
    return pipeline.measure(Frame(image, 0.0, 0)).face
