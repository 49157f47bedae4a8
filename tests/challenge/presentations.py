"""The pictures and the species of the rendered attack, and one attempt with each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.challenge.turn import Side, TurnCue
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.types import Image
from edge_agent.vision.detect import Detector
from edge_agent.vision.runtime import load_session
from tests.challenge.following import Follower, Outcome
from tests.challenge.heads import NECK_MM
from tests.challenge.plane import Camera, Held
from tests.challenge.surfaces import Bent, Flat, Folded, Relief, Surface


@dataclass(frozen=True)
class Species:
    """A kind of print, and how it is moved."""

    surface: Surface
    nod: float = 0.0
    axis_mm: float = 0.0
    """See ``Held``."""


SPECIES: Final = {
    "flat": Species(Flat()),
    "flat_nodding": Species(Flat(), nod=0.9),
    "bent_slack": Species(Bent(200.0)),
    "bent_tight": Species(Bent(75.0)),
    "folded": Species(Folded(25.0)),
    "head": Species(Relief(), axis_mm=NECK_MM),
}
"""By name; ``head`` is no attack, it is there to be seen passing."""
MIN_FACE_PX: Final = 60
"""Between the eyes of a still: a print of less is a blur."""


def portraits_of(assets: Path) -> list[Path]:
    """The shared pictures that show one bona fide face."""
    media = json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]
    files = [assets / item["file"] for item in media if item["file"].startswith("images/")]
    return [f for f in files if f.name.startswith(("id_", "single_", "live_")) and "painting" not in f.name]


def stills_of(assets: Path, detector: Detector, min_inter_eye_px: float = MIN_FACE_PX) -> list[Path]:
    """Those whose face is large enough to be printed."""
    return [f for f in portraits_of(assets) if _inter_eye_px(read_picture(f), detector) >= min_inter_eye_px]


def _inter_eye_px(still: Image, detector: Detector) -> float:
    faces = detector.detect(still)
    return faces[0].inter_eye_px if faces else 0.0


def shared_detector(assets: Path) -> Detector:
    """SCRFD-500M at 320 pixels, on one thread."""
    manifest = load_pack("scrfd-minifas").detector
    model = (assets / "models/insightface" / manifest.file).read_bytes()
    return Detector(manifest, load_session(model, name=manifest.file, providers="cpu", threads=1))


def presented(
    still: Path,
    detector: Detector,
    species: str,
    angle_deg: float,
    *,
    fps: float,
    seed: int,
    camera: Camera | None = None,
    wait_s: float = 0.7,
) -> Outcome:
    """One attempt: the still as ``species``, turned by ``angle_deg`` as the prompts say; an odd ``seed``: right first."""
    order = (Side.RIGHT, Side.LEFT) if seed % 2 else (Side.LEFT, Side.RIGHT)
    held = held_as(species, read_picture(still), detector, camera=camera, seed=seed)
    # far turns are made faster: nobody takes more than a second for one
    deg_per_s = max(30.0, angle_deg * 1.2)
    return Follower(held, angle_deg, fps, deg_per_s, wait_s, order, gives_up=True).run(TurnCue())


def held_as(species: str, still: Image, detector: Detector, *, camera: Camera | None = None, seed: int = 0) -> Held:
    """``still`` as the ``species`` would show it to a camera. Raises ValueError where there is no face."""
    kind = SPECIES[species]
    return Held(still, detector, kind.surface, camera=camera, nod=kind.nod, axis_mm=kind.axis_mm, seed=seed)
