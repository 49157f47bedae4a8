"""The detector families: SCRFD, CenterFace and YuNet; how each wants its pixels and what its outputs mean.

Every decoder gives its landmarks in the order of types.py: the subject's right eye first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.vision.canvas import Levels, levels
from edge_agent.vision.runtime import Session, Tensor, inference_failed

STRIDES: Final = (8, 16, 32)
CENTERFACE_STRIDE: Final = 4
MAX_LOG_SIZE: Final = 10.0
"""Keeps exp() finite for a network that answers nonsense; a real face is below 8."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a network proposes, in canvas pixels, before overlaps are removed."""

    boxes: NDArray[np.float32]
    """(N, 4): x1, y1, x2, y2."""
    landmarks: NDArray[np.float32]
    """(N, 5, 2): x, y."""
    scores: NDArray[np.float32]
    """(N,): 0-1."""


NOTHING: Final = Candidates(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))

Decoder = Callable[[Session, Sequence[Tensor], tuple[int, int], float], Candidates]
"""(session, outputs, canvas (width, height), score threshold) -> candidates at or above the threshold."""


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of detector network."""

    levels: Levels
    """How its numbers are made of pixels."""
    decode: Decoder
    trim: bool
    """Whether the black rest of the canvas is cut off (not for SCRFD: it stays comparable with InsightFace)."""


def _cells(indices: NDArray[np.intp], columns: int, stride: int) -> NDArray[np.float32]:
    """Top left corners (N, 2; x, y) of row-major grid cells, in canvas pixels."""
    return np.stack([indices % columns, indices // columns], axis=1).astype(np.float32) * np.float32(stride)


def _merge(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Candidates:
    """What the strides with a hit gave."""
    if len(parts) == 1:
        return Candidates(*parts[0])
    if not parts:
        return NOTHING
    boxes, landmarks, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Candidates(boxes, landmarks, scores)


def _flat(session: Session, output: Tensor, columns: int, rows: int) -> Tensor:
    """One output as (rows, columns). Raises ModelError when it has another size."""
    if output.size != rows * columns:
        raise inference_failed(session.name, f"an output has the shape {output.shape}, not ({rows}, {columns})")
    return output.reshape(rows, columns)


def decode_scrfd(session: Session, outputs: Sequence[Tensor], size_px: tuple[int, int], threshold: float) -> Candidates:
    """SCRFD (Guo et al. 2021): per stride two anchors a cell; distances to the sides and landmark offsets in strides.

    The nine outputs are scores, boxes and landmarks, each for the strides 8, 16 and 32.
    """
    if len(outputs) != 9:
        raise inference_failed(session.name, f"SCRFD with landmarks has nine outputs, not {len(outputs)}")
    parts = []
    for level, stride in enumerate(STRIDES):
        columns, rows = size_px[0] // stride, size_px[1] // stride
        total = 2 * columns * rows
        scores = _flat(session, outputs[level], 1, total)[:, 0]
        hits = np.flatnonzero(scores >= threshold)
        if not hits.size:
            continue
        centres = _cells(hits // 2, columns, stride)
        sides = _flat(session, outputs[level + 3], 4, total)[hits] * stride
        offsets = _flat(session, outputs[level + 6], 10, total)[hits].reshape(-1, 5, 2) * stride
        boxes = np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1)
        parts.append((boxes, centres[:, None] + offsets, scores[hits]))
    return _merge(parts)


def decode_centerface(
    session: Session, outputs: Sequence[Tensor], size_px: tuple[int, int], threshold: float
) -> Candidates:
    """CenterFace (Xu et al. 2019): a heat map of face centres at stride 4; heights come before widths.

    Outputs: heat (already 0-1), log size, centre offset, and five landmarks relative to the box.
    """
    columns, rows = size_px[0] // CENTERFACE_STRIDE, size_px[1] // CENTERFACE_STRIDE
    if len(outputs) != 4:
        raise inference_failed(session.name, f"CenterFace has four outputs, not {len(outputs)}")
    heat, log_size, offset, points = (
        _flat(session, output, rows * columns, planes) for output, planes in zip(outputs, (1, 2, 2, 10), strict=True)
    )
    hits = np.flatnonzero(heat[0] >= threshold)
    size = np.exp(np.minimum(log_size[::-1, hits].T, MAX_LOG_SIZE)) * CENTERFACE_STRIDE
    cells = _cells(hits, columns, CENTERFACE_STRIDE)
    centres = cells + (offset[::-1, hits].T + 0.5) * CENTERFACE_STRIDE
    corners = centres - size / 2
    relative = points[:, hits].T.reshape(-1, 5, 2)[:, :, ::-1]
    boxes = np.concatenate([corners, corners + size], axis=1)
    return Candidates(boxes, corners[:, None] + relative * size[:, None], heat[0, hits])


def decode_yunet(session: Session, outputs: Sequence[Tensor], size_px: tuple[int, int], threshold: float) -> Candidates:
    """YuNet (Wu et al. 2023): one anchor a cell; score = sqrt(class * objectness), centre and log size in strides."""
    by_name = {spec.name: output for spec, output in zip(session.outputs, outputs, strict=True)}
    parts = []
    for stride in STRIDES:
        columns, rows = size_px[0] // stride, size_px[1] // stride
        try:
            kinds = [by_name[f"{kind}_{stride}"] for kind in ("cls", "obj", "bbox", "kps")]
        except KeyError as exc:
            raise inference_failed(session.name, f"it has no output {exc.args[0]}") from exc
        classes, objects, sides, points = (
            _flat(session, output, width, rows * columns) for output, width in zip(kinds, (1, 1, 4, 10), strict=True)
        )
        scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        hits = np.flatnonzero(scores >= threshold)
        if not hits.size:
            continue
        cells = _cells(hits, columns, stride)
        centres = cells + sides[hits, :2] * stride
        half = np.exp(np.minimum(sides[hits, 2:], MAX_LOG_SIZE)) * (stride / 2)
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        parts.append((boxes, cells[:, None] + points[hits].reshape(-1, 5, 2) * stride, scores[hits]))
    return _merge(parts)


FAMILIES: Final = {
    "scrfd": Family(levels(127.5, 1.0 / 128.0, rgb=True), decode_scrfd, trim=False),
    "centerface": Family(levels(0.0, 1.0, rgb=True), decode_centerface, trim=True),
    "yunet": Family(levels(0.0, 1.0, rgb=False), decode_yunet, trim=True),
}
