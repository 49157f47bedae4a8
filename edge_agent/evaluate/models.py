"""Which models were measured: figures belong to them and to no others."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.packs.manifest import Pack
from edge_agent.types import JsonObject


@dataclass(frozen=True, slots=True)
class ModelIds:
    """A pack's files by their hashes."""

    pack: str
    embedder: str
    """File name in the pack; empty where it has none."""
    embedder_sha256: str
    files: dict[str, str]
    """Every file of the pack -> SHA-256: the detector and its landmarks shape every score."""
    liveness: dict[str, float]
    """Liveness model -> threshold."""

    def as_json(self) -> JsonObject:
        embedder = {"model": self.embedder, "sha256": self.embedder_sha256} if self.embedder else None
        return {"pack": self.pack, "embedder": embedder, "files": self.files, "liveness_thresholds": self.liveness}


def models_of(pack: Pack) -> ModelIds:
    """The identity of what ``pack`` loads."""
    embedder = pack.embedder.file if pack.embedder else ""
    return ModelIds(
        pack=pack.name,
        embedder=embedder,
        embedder_sha256=pack.files[embedder].sha256 if embedder else "",
        files={name: pack.files[name].sha256 for name in sorted(pack.file_names())},
        liveness={model.name: model.threshold for model in pack.liveness},
    )
