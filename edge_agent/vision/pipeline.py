"""The pipeline of one pack: what is measured of a frame. It decides nothing; limits belong to the gate."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

from edge_agent.errors import ModelError
from edge_agent.types import Embedding, Face, Frame, Image, LivenessScore, Measurement
from edge_agent.vision.detect import Detector, Sighting
from edge_agent.vision.embed import Embedder
from edge_agent.vision.eyes import EyeModel
from edge_agent.vision.heap import keep_heap_small, return_freed_memory
from edge_agent.vision.liveness import LivenessModel, open_liveness
from edge_agent.vision.quality import measure_face
from edge_agent.vision.runtime import Session

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Pack

LoadSession = Callable[[str], Session]
"""Opens the model file of that name. Raises ModelError."""

DIGEST_ROWS = 48
"""Every 48th row, the whole of it: two different camera pictures differ there too, by their noise."""


class Pipeline:
    """Detector, quality, liveness and embedder of one pack. Not thread-safe: one thread calls it."""

    def __init__(self, pack: Pack, load: LoadSession) -> None:
        """Open the detector and every liveness model; the embedder waits for its first use. Raises ModelError."""
        self.pack = pack
        self._load = load
        self._unsettled = {"measure", "liveness"}
        self._detector = Detector(pack.detector, load(pack.detector.file))
        self._liveness: tuple[LivenessModel, ...] = tuple(
            open_liveness(model, [load(member.file) for member in model.members]) for model in pack.liveness
        )

    @property
    def providers(self) -> tuple[str, ...]:
        """What ONNX Runtime runs the detector on, the first choice first."""
        return self._detector.providers

    def measure(self, frame: Frame) -> Measurement:
        """Faces, and the quality of the largest. Raises ModelError when a model cannot be run."""
        return self._measured(frame, lambda: Sighting(self._detector.detect(frame.image), whole=True))

    def measure_near(self, frame: Frame, face: Face) -> Measurement:
        """As ``measure``, looking first where ``face`` was a moment ago, see Detector.detect_near."""
        return self._measured(frame, lambda: self._detector.detect_near(frame.image, face))

    def _measured(self, frame: Frame, look: Callable[[], Sighting]) -> Measurement:
        height, width = frame.image.shape[:2]
        began = time.perf_counter()
        seen = look()
        detected = time.perf_counter()
        quality = measure_face(frame.image, seen.faces[0]) if seen.faces else None
        done = time.perf_counter()
        self._settle("measure")
        spent_ms = {"detect": (detected - began) * 1000.0, "quality": (done - detected) * 1000.0}
        return Measurement(width, height, seen.faces, quality, picture_digest(frame.image), spent_ms, whole=seen.whole)

    def forget(self) -> None:
        """Nobody is looked at for now: keep no pixel of the last frame in memory that is used again."""
        self._detector.forget()

    def liveness(self, frame: Frame, face: Face) -> tuple[LivenessScore, ...]:
        """The opinion of every liveness model of the pack, in its order. Raises ModelError."""
        scores = tuple(model.score(frame.image, face) for model in self._liveness)
        self._settle("liveness")
        return scores

    def embed(self, frame: Frame, face: Face) -> Embedding:
        """The face's embedding. Raises ModelError, also (``no_embedder``) when the pack has none."""
        return self._embedder.embed(frame.image, face.landmarks)

    @property
    def sees_eyes(self) -> bool:
        """Whether the pack has a model for them."""
        return self.pack.eyes is not None

    def eyes_open(self, frame: Frame, face: Face) -> tuple[float, float]:
        """As challenge.blink.EyeSight. Raises ModelError, also (``no_eyes``) when the pack has no model for them."""
        return self._eyes.open_eyes(frame.image, face.landmarks)

    def _settle(self, step: str) -> None:
        """After the first run of a step, which is faster with a large heap, keep it small."""
        if step in self._unsettled:
            self._unsettled.discard(step)
            keep_heap_small()
            return_freed_memory()

    @cached_property
    def _embedder(self) -> Embedder:
        manifest = self.pack.embedder
        if manifest is None:
            raise ModelError(
                f"cannot compare faces: the pack {self.pack.name} has no embedder",
                code="no_embedder",
                hint="choose a pack with an embedder (edge-agent models list)",
            )
        return Embedder(manifest, self._load(manifest.file))

    @cached_property
    def _eyes(self) -> EyeModel:
        manifest = self.pack.eyes
        if manifest is None:
            raise ModelError(f"cannot see eyes: the pack {self.pack.name} has no model for them", code="no_eyes")
        return EyeModel(manifest, self._load(manifest.file))

    def warm_up(self) -> None:
        """Load what is loaded lazily (the embedder). Raises ModelError."""
        self._embedder  # noqa: B018  touching the property loads it


def picture_digest(image: Image) -> bytes:
    """16 bytes, equal for equal pictures; from a sample of the pixels."""
    digest = blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image[::DIGEST_ROWS].tobytes())
    return digest.digest()
