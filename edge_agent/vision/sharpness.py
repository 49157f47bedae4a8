"""Sharpness of a face: how much its edges lose when they are blurred once more.

A gradient that is already wide loses little by another blur, a steep one loses much; the ratio of the gradients
before and after is a measure of the edge's width that depends neither on the contrast nor on the exposure (re-blur
method: Zhuo and Sim, "Defocus map estimation from a single image", 2011). Three things are ours:

- the gradient before is taken *along the direction of the one after*, so noise, which has no direction, averages out;
- horizontal and vertical edges are judged apart and the worse counts, because motion blurs only one of them;
- fine grain that drowns the edges lowers the result: a noisy dark picture is not a sharp one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

FINE_SIGMA_PX: Final = 0.8
COARSE_SIGMA_PX: Final = 3.0
"""At 64 px between the eyes: 1.3 % and 4.7 % of the inter-eye distance."""

STRONGEST_SHARE: Final = 0.3
"""Share of the edge pixels (the strongest ones) that is used."""
MIN_EDGES: Final = 10
MAX_GRAIN: Final = 0.6
"""Grain (noise / edge strength) from which on the result is lowered; sharp portraits have at most 0.4."""

_IMMERKAER: Final = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)

_ACROSS: Final = np.ones((1, 3), np.uint8)

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges of one orientation."""

    steepness: float
    """Gradient before / after the second blur; 1 = no difference."""
    strength: float
    """Mean gradient after the second blur, luma steps per px."""


def sharpness(luma: NDArray[np.uint8]) -> float | None:
    """0-1 of an aligned face patch, uint8 (H, W): 0 = one more blur changes nothing, 1 = it halves the gradient.

    None when the patch has no edges to judge. A Gaussian blur of 3 % of the inter-eye distance gives about 0.5, of
    4 % about 0.4, of 5 % about 0.3.
    """
    return _sharpness(luma, most=1.0)


def scene_sharpness(image: NDArray[np.uint8]) -> float | None:
    """As ``sharpness``, of the middle half of a picture, uint8 (H, W, 3) BGR, at its own resolution, without the upper end.

    For turning a lens: it compares one scene with itself, per pixel and not per inter-eye distance. None without edges.
    """
    height, width = image.shape[:2]
    middle = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
    return _sharpness(np.asarray(cv2.cvtColor(middle, cv2.COLOR_BGR2GRAY), np.uint8), most=np.inf)


def _sharpness(luma: NDArray[np.uint8], *, most: float) -> float | None:
    plane = luma.astype(np.float32)
    coarse_x, coarse_y = _gradient(plane, COARSE_SIGMA_PX)
    fine_x, fine_y = _gradient(plane, FINE_SIGMA_PX)
    strength = cv2.magnitude(coarse_x, coarse_y)
    strength += np.float32(1e-6)
    aligned = (fine_x * coarse_x + fine_y * coarse_y) / strength
    upright = np.abs(coarse_x) > np.abs(coarse_y)
    edges = [_edges(strength, aligned, upright, _ACROSS), _edges(strength, aligned, ~upright, _ACROSS.T)]
    found = [edge for edge in edges if edge is not None]
    if len(found) < len(edges):
        return None
    grain = noise_sigma(plane) / float(np.mean([edge.strength for edge in found]))
    steepness = min(edge.steepness for edge in found)
    return float(np.clip(steepness - 1.0, 0.0, most)) * min(1.0, MAX_GRAIN / max(grain, 1e-6))


def noise_sigma(plane: Plane) -> float:
    """Standard deviation of the noise in luma steps (Immerkaer, "Fast noise variance estimation", 1996)."""
    response = cv2.filter2D(plane, cv2.CV_32F, _IMMERKAER)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def _gradient(plane: Plane, sigma_px: float) -> tuple[Plane, Plane]:
    blurred = cv2.GaussianBlur(plane, (0, 0), sigma_px)
    return (
        cv2.Sobel(blurred, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8),
        cv2.Sobel(blurred, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8),
    )


def _edges(strength: Plane, aligned: Plane, chosen: NDArray[np.bool_], across: NDArray[np.uint8]) -> _Edges | None:
    """The strongest ridges of ``strength`` among ``chosen``; ``across`` is the neighbourhood across the edge."""
    ridge = np.flatnonzero(chosen & (strength >= cv2.dilate(strength, across)))
    if ridge.size < MIN_EDGES:
        return None
    values = strength.ravel()[ridge]
    wanted = max(MIN_EDGES, int(STRONGEST_SHARE * values.size))
    strongest = np.flatnonzero(values >= np.partition(values, -wanted)[-wanted])
    total = float(values[strongest].sum())
    steepness = float(aligned.ravel()[ridge[strongest]].sum()) / total
    return _Edges(steepness, total / strongest.size) if total > MIN_EDGES * 0.01 else None
