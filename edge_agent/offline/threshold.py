"""The threshold that a provisional answer rests on: from the pack's manifest or from the operator, never from nobody.

The shipped packs carry none. With ``not_evidence`` (a sandbox on loopback) there is one that nobody measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edge_agent.config import FaceThresholdSection
from edge_agent.errors import ConfigurationError
from edge_agent.evidence import MAX_FMR, claim_problem, pairs_needed
from edge_agent.packs.manifest import Embedder, Pack

_ALIGNMENT = "arcface-1"
"""Names how faces are aligned before they are embedded; a change of it makes other embeddings."""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What two captures are compared with, and by."""

    model: str
    """The embedder, and a digest of everything that makes its embeddings what they are."""
    threshold: float
    """Cosine from which two captures show one person."""
    evidence: str
    """What the threshold rests on, for people."""
    measured: bool
    """False for ``not_evidence``."""


def yardstick(given: FaceThresholdSection | None, pack: Pack) -> Yardstick:
    """The operator's threshold, else the manifest's. Raises ConfigurationError ``no_match_threshold``."""
    embedder = pack.embedder
    if embedder is None:
        raise _missing(f"the pack {pack.name} has no embedder")
    model = model_of(pack, embedder)
    if given is not None:
        return _given(given, model, pack.files[embedder.file].sha256)
    if embedder.match is None:
        raise _missing(f"nobody measured one for the embedder of the pack {pack.name}")
    claim = embedder.match
    problem = claim_problem(claim.impostor_pairs, claim.fmr_upper_95)
    if problem is not None:
        raise _missing(f"the one in the manifest of {pack.name} is not enough: {problem}")
    evidence = f"{claim.source}: {claim.impostor_pairs} impostor pairs, FMR <= {claim.fmr_upper_95:g}"
    return Yardstick(model, claim.threshold, evidence, measured=True)


def model_of(pack: Pack, embedder: Embedder) -> str:
    """Name and version: other weights, another detector or another preparation of its input is another model."""
    parts = (
        pack.files[embedder.file].sha256,
        pack.files[pack.detector.file].sha256,
        embedder.input_px,
        embedder.mean,
        embedder.scale,
        embedder.colour,
        embedder.dimensions,
        _ALIGNMENT,
    )
    return f"{embedder.file}/{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _given(given: FaceThresholdSection, model: str, embedder_sha256: str) -> Yardstick:
    if given.not_evidence:
        return Yardstick(model, given.cosine, "none: not_evidence", measured=False)
    if given.embedder_sha256 != embedder_sha256:
        raise _missing("offline.face_threshold was measured with another embedder than the pack's")
    evidence = f"operator: {given.impostor_pairs} impostor pairs, FMR <= {given.fmr_upper_95:g}"
    return Yardstick(model, given.cosine, evidence, measured=True)


def _missing(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot answer provisionally: there is no face threshold that counts: {why}",
        code="no_match_threshold",
        hint=f"measure one ({pairs_needed()} impostor pairs or more show FMR <= {MAX_FMR:g}) and give it as "
        "offline.face_threshold; until then every capture is queued. See docs/offline.md",
    )
