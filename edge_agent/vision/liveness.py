"""Liveness: passive single-frame models, each with its own idea of the crop.

- ``crop_softmax``: an enlarged face box, three or so classes (MiniFASNet and its relatives). Several members with
  different crops are averaged.
- ``insightface_addon``: an 80 x 80 crop aligned by five landmarks; the output is the probability itself. A crop of
  which more than 30 % lies outside the frame is refused, not judged.

Anything unexpected (a wrong shape, NaN, a probability outside 0-1) raises: an error never qualifies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import cv2
import numpy as np

from edge_agent.types import Box, Face, Image, LivenessScore
from edge_agent.vision.align import ADDON_PX, align_addon
from edge_agent.vision.runtime import Session, Tensor, inference_failed, invalid_model

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Liveness as LivenessManifest
    from edge_agent.packs.manifest import LivenessMember

ADDON_MAX_OUT_OF_BOUNDS: Final = 0.30
"""Part of the add-on's contract: its authors refuse such crops."""


class LivenessModel(Protocol):
    """One liveness opinion of a pack."""

    def score(self, image: Image, face: Face) -> LivenessScore:
        """Judge one face of ``image`` (uint8 (H, W, 3) BGR). Raises ModelError; never answers "live" by accident."""


class CropSoftmax:
    """The mean live probability of one or more crop classifiers."""

    def __init__(self, manifest: LivenessManifest, sessions: list[Session]) -> None:
        self._manifest = manifest
        self._members = list(zip(manifest.members, sessions, strict=True))
        for member, session in self._members:
            _expect_input(session, member.input_px)
            if member.crop_scale is None:
                raise invalid_model(session.name, "the pack gives no crop_scale for it")

    def score(self, image: Image, face: Face) -> LivenessScore:
        probabilities = [self._probability(image, face.box, member, session) for member, session in self._members]
        outside = max(out_of_bounds(face.box, member.crop_scale or 1.0, image) for member in self._manifest.members)
        return LivenessScore(self._manifest.name, float(np.mean(probabilities)), self._manifest.threshold, outside)

    def _probability(self, image: Image, box: Box, member: LivenessMember, session: Session) -> float:
        crop = crop_around(image, box, member.crop_scale or 1.0, member.input_px)
        (logits, *_) = session.run(to_tensor(crop, rgb=self._manifest.colour == "rgb"))
        if logits.ndim != 2 or logits.shape[0] != 1 or logits.shape[1] <= max(1, self._manifest.live_class):
            raise inference_failed(session.name, f"a liveness model answers (1, classes), not {logits.shape}")
        exponents = np.exp(logits[0].astype(np.float64) - logits[0].max())
        return float(exponents[self._manifest.live_class] / exponents.sum())


class InsightFaceAddon:
    """The contract of InsightFace's liveness add-on."""

    def __init__(self, manifest: LivenessManifest, sessions: list[Session]) -> None:
        self._manifest = manifest
        if len(sessions) != 1:
            raise invalid_model(manifest.name, "the add-on is a single model")
        self._session = sessions[0]
        _expect_input(self._session, ADDON_PX)

    def score(self, image: Image, face: Face) -> LivenessScore:
        crop, outside = align_addon(image, face.landmarks)
        probability = None if outside > ADDON_MAX_OUT_OF_BOUNDS else self._probability(crop)
        return LivenessScore(self._manifest.name, probability, self._manifest.threshold, outside, bounded=True)

    def _probability(self, crop: Image) -> float:
        outputs = self._session.run(to_tensor(crop, rgb=True) / np.float32(255.0))
        if len(outputs) != 1 or outputs[0].shape != (1,):
            raise inference_failed(self._session.name, "the liveness add-on answers one probability of shape (1,)")
        probability = float(outputs[0][0])
        if not 0.0 <= probability <= 1.0:
            raise inference_failed(self._session.name, f"{probability} is no probability")
        return probability


def open_liveness(manifest: LivenessManifest, sessions: list[Session]) -> LivenessModel:
    """The family that the pack names. Raises ModelError for a network of another contract."""
    if manifest.family == "insightface_addon":
        return InsightFaceAddon(manifest, sessions)
    return CropSoftmax(manifest, sessions)


def crop_around(image: Image, box: Box, scale: float, size_px: int) -> Image:
    """The box enlarged by ``scale`` about its centre, moved inside the picture, as uint8 (size_px, size_px, 3).

    The scale shrinks where the picture is too small for it; the resize is bilinear and does not keep the aspect.
    This is how the MiniFASNet models were trained (minivision, Silent-Face-Anti-Spoofing).
    """
    height, width = image.shape[:2]
    box_width, box_height = max(box.width, 1.0), max(box.height, 1.0)
    fitting = min(scale, (width - 1) / box_width, (height - 1) / box_height)
    x1, x2 = _slide(box.centre[0], box_width * fitting, width)
    y1, y2 = _slide(box.centre[1], box_height * fitting, height)
    crop: Image = cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], (size_px, size_px))
    return crop


def _slide(centre: float, length: float, limit: int) -> tuple[int, int]:
    """First and last pixel of a span about ``centre``, moved into 0 .. limit - 1."""
    first = min(max(centre - length / 2, 0.0), max(limit - 1 - length, 0.0))
    return int(first), min(int(first + length), limit - 1)


def out_of_bounds(box: Box, scale: float, image: Image) -> float:
    """Share, 0-1, of the enlarged box (before it is moved inside) that lies outside the picture."""
    height, width = image.shape[:2]
    half_x, half_y = max(box.width, 1.0) * scale / 2, max(box.height, 1.0) * scale / 2
    x, y = box.centre
    inside_x = max(0.0, min(x + half_x, width) - max(x - half_x, 0.0))
    inside_y = max(0.0, min(y + half_y, height) - max(y - half_y, 0.0))
    return float(np.clip(1.0 - inside_x * inside_y / (4 * half_x * half_y), 0.0, 1.0))


def to_tensor(crop: Image, *, rgb: bool) -> Tensor:
    """float32 (1, 3, H, W), values 0-255."""
    pixels = crop[:, :, ::-1] if rgb else crop
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def _expect_input(session: Session, side_px: int) -> None:
    shape = session.input.shape
    wanted = (1, 3, side_px, side_px)
    if len(shape) != 4 or any(have not in {None, want} for have, want in zip(shape, wanted, strict=True)):
        raise invalid_model(session.name, f"the pack says its input is {wanted}, the file says {shape}")
