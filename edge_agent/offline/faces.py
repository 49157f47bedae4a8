"""The faces of captures: embedded and compared on the device, with the models that screen the camera's frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edge_agent.config import Config
from edge_agent.errors import ModelError
from edge_agent.gate import quality_score
from edge_agent.offline.threshold import Yardstick, yardstick
from edge_agent.outbox.provisional_records import Likeness, Template
from edge_agent.types import Embedding, Face, Frame, Measurement
from edge_agent.workers import Worker

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Pack

_STORED = np.dtype("<f4")


@runtime_checkable
class FaceVision(Protocol):
    """What a comparison needs of vision/pipeline.py."""

    pack: Pack

    def measure(self, frame: Frame) -> Measurement: ...

    def embed(self, frame: Frame, face: Face) -> Embedding: ...


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The face of a capture."""

    embedding: Embedding
    quality: float
    """0-1."""
    model: str
    """What embedded it; the models may be others by now."""


class Faces:
    """Used from the event loop's thread; the work is the inference worker's."""

    def __init__(self, worker: Worker, config: Callable[[], Config], vision: Callable[[], object | None]) -> None:
        """``config``, ``vision``: those of this moment; no vision while the models are missing."""
        self._worker = worker
        self._config = config
        self._vision = vision

    def yardstick(self) -> Yardstick | None:
        """Of the present models; None while there are none. Raises ConfigurationError ``no_match_threshold``."""
        vision = self._vision()
        if vision is None:
            return None
        return yardstick(self._config().offline.face_threshold, _for_faces(vision).pack)

    async def look(self, picture: bytes) -> Seen:
        """The largest face of an encoded picture.

        Raises ModelError, also where there is none; InputError; ConfigurationError as ``yardstick``.
        """
        vision, config = _for_faces(self._vision()), self._config()
        model = yardstick(config.offline.face_threshold, vision.pack).model

        def look() -> Seen:
            from edge_agent.picture import read_picture

            frame = Frame(read_picture(picture), 0.0, 0)
            measured = vision.measure(frame)
            if measured.face is None or measured.quality is None:
                raise ModelError("cannot compare the capture: no face is found in it again", code="inference_failed")
            quality = quality_score(measured.quality, config.gate)
            return Seen(vision.embed(frame, measured.face), quality, model)

        return await self._worker.run(look)


def stored(embedding: Embedding) -> bytes:
    """As a template holds it."""
    return embedding.astype(_STORED).tobytes()


def likeness(seen: Seen, templates: Sequence[Template], by: Yardstick) -> Likeness:
    """To the most similar of the templates (at least one). Raises ModelError where they cannot be compared."""
    if seen.model != by.model:
        raise ModelError("cannot compare the capture: the models were changed meanwhile", code="inference_failed")
    best_id, best = "", float("-inf")
    for template in templates:
        known = np.frombuffer(template.embedding, _STORED)
        if known.shape != seen.embedding.shape:
            raise ModelError("cannot compare the capture: a template has another size", code="inference_failed")
        cosine = float(known @ seen.embedding)
        if cosine > best:
            best_id, best = template.id, cosine
    return Likeness(best_id, best, by.threshold, by.model, by.evidence)


def _for_faces(vision: object | None) -> FaceVision:
    if not isinstance(vision, FaceVision):
        raise ModelError("cannot compare faces: there are no models for it", code="no_embedder")
    return vision
