"""Face embeddings: a picture of a face as a unit vector; the dot product of two is their similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_agent.types import Embedding, Image, Landmarks
from edge_agent.vision.align import align_arcface
from edge_agent.vision.liveness import to_tensor
from edge_agent.vision.runtime import Session, inference_failed

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Embedder as EmbedderManifest


class Embedder:
    """One embedding network behind the ArcFace alignment."""

    def __init__(self, manifest: EmbedderManifest, session: Session) -> None:
        self._manifest = manifest
        self._session = session

    def embed(self, image: Image, landmarks: Landmarks) -> Embedding:
        """float32 (dimensions,), L2-normalised, of the face at ``landmarks`` in ``image`` (uint8 (H, W, 3) BGR).

        Raises ModelError for degenerate landmarks, another number of dimensions or a vector without a direction.
        """
        aligned = align_arcface(image, landmarks, self._manifest.input_px)
        tensor = to_tensor(aligned, rgb=self._manifest.colour == "rgb")
        (output, *_) = self._session.run((tensor - np.float32(self._manifest.mean)) / np.float32(self._manifest.scale))
        vector: Embedding = output.reshape(-1)
        length = float(np.linalg.norm(vector))
        if vector.size != self._manifest.dimensions or length < 1e-6:
            raise inference_failed(self._session.name, f"an embedding has {self._manifest.dimensions} numbers")
        return vector / np.float32(length)
