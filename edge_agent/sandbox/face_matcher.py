"""Matches real faces with the detector and the embedder of a model pack."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.errors import InputError, ModelError
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.sandbox.matcher import Comparison
from edge_agent.sandbox.state import Outcome
from edge_agent.types import Embedding, Frame
from edge_agent.vision.opening import open_pipeline

THRESHOLD_SIMILARITY = 80.0
"""The similarity that is reported for a cosine of exactly the threshold."""

REMEMBERED = 64


class FaceMatcher:
    """Same person when the cosine of both pictures' largest faces reaches the threshold."""

    name = "faces"

    def __init__(self, embed: Callable[[bytes], Embedding | None], threshold: float) -> None:
        """``embed``: a picture's bytes to the embedding of its largest face, None where there is none."""
        self._embed = embed
        self._threshold = threshold
        self._known: OrderedDict[bytes, Embedding | None] = OrderedDict()

    def usable(self, picture: bytes) -> bool:
        return self._embedding(picture) is not None

    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        del user_id
        enrolled, presented = self._embedding(source), self._embedding(target)
        if enrolled is None or presented is None:
            return Comparison("no_face", None)
        cosine = float(np.clip(enrolled @ presented, -1.0, 1.0))
        outcome: Outcome = "match" if cosine >= self._threshold else "mismatch"
        return Comparison(outcome, similarity(cosine, self._threshold))

    def _embedding(self, picture: bytes) -> Embedding | None:
        """Remembers the last pictures, so that a source is not embedded again for every match."""
        key = hashlib.sha256(picture).digest()
        if key not in self._known:
            self._known[key] = self._embed(picture)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


def similarity(cosine: float, threshold: float) -> float:
    """Cosine -1 … threshold … 1 to 0 … 80 … 100, straight in between, two decimals.

    The service does not document its scale; this one only rises with the cosine and has a fixed point to compare
    ``min_similarity`` with.
    """
    if cosine >= threshold:
        above = (cosine - threshold) / max(1.0 - threshold, 1e-9)
        return round(THRESHOLD_SIMILARITY + (100.0 - THRESHOLD_SIMILARITY) * above, 2)
    return round(THRESHOLD_SIMILARITY * (cosine + 1.0) / (threshold + 1.0), 2)


def open_face_matcher(pack_name: str, models_dir: Path) -> FaceMatcher:
    """A matcher with the models of a pack. Raises ModelError when files are missing or there is no embedder."""
    pack = load_pack(pack_name)
    if pack.embedder is None:
        raise ModelError(
            f"cannot match faces with the pack {pack.name}: it has no embedder",
            code="no_embedder",
            hint="use a pack with an embedder, or --matcher rule",
        )
    pipeline = open_pipeline(pack, models_dir, with_embedder=True)

    def embed(picture: bytes) -> Embedding | None:
        try:
            frame = Frame(read_picture(picture), 0.0, 0)
        except InputError:
            return None
        face = pipeline.measure(frame).face
        return pipeline.embed(frame, face) if face is not None else None

    return FaceMatcher(embed, pack.embedder.sandbox_threshold)
