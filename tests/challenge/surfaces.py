"""What a picture can be printed on: where a ray from the camera meets it, and which point of the print is there.

Millimetres in the frame of the print: x to the right, y down, z away from the camera when it is held upright; the
origin is the tip of the nose, on a print the nearest point. Every kind of print is bent or folded about the vertical
through it, away from the camera at both sides: the way that lets the nose stand out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, tan
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Rays = NDArray[np.float32]
Point = tuple[float, float, float]


class Surface(Protocol):
    """A sheet of paper or a display."""

    def meet(self, eye: Point, x: Rays, y: Rays, z: Rays) -> tuple[Rays, Rays]:
        """(s, t): mm along the sheet to the right and down where the rays from ``eye`` in the directions (x, y, z) meet
        it; NaN in s where they do not.
        """
        ...


@dataclass(frozen=True)
class Flat:
    """A sheet on a board; a tablet."""

    def meet(self, eye: Point, x: Rays, y: Rays, z: Rays) -> tuple[Rays, Rays]:
        far = -eye[2] / z
        return np.where(far > 0, eye[0] + far * x, np.nan).astype(np.float32), (eye[1] + far * y).astype(np.float32)


@dataclass(frozen=True)
class Bent:
    """A sheet bent to a part of a cylinder with a vertical axis."""

    radius_mm: float

    def meet(self, eye: Point, x: Rays, y: Rays, z: Rays) -> tuple[Rays, Rays]:
        # the axis stands at z = radius: |(eye + far * ray) - axis| = radius, the nearer of two solutions
        from_axis = eye[2] - self.radius_mm
        a, b = x * x + z * z, eye[0] * x + from_axis * z
        root = b * b - a * (eye[0] ** 2 + from_axis**2 - self.radius_mm**2)
        far = (-b - np.sqrt(np.where(root >= 0, root, np.nan))) / a
        s = self.radius_mm * np.arctan2(eye[0] + far * x, -(from_axis + far * z))
        return s.astype(np.float32), (eye[1] + far * y).astype(np.float32)


@dataclass(frozen=True)
class Folded:
    """A sheet with a vertical crease down the nose; each half leans back by ``lean_deg``."""

    lean_deg: float

    def meet(self, eye: Point, x: Rays, y: Rays, z: Rays) -> tuple[Rays, Rays]:
        slope, cosine = tan(radians(self.lean_deg)), cos(radians(self.lean_deg))
        nearest = np.full(x.shape, np.inf, np.float32)
        for side in (-1.0, 1.0):
            far = (eye[2] - side * slope * eye[0]) / (side * slope * x - z)
            on_it = (side * (eye[0] + far * x) >= 0) & (far > 0)
            nearest = np.where(on_it & (far < nearest), far, nearest).astype(np.float32)
        nearest = np.where(np.isfinite(nearest), nearest, np.nan).astype(np.float32)
        return ((eye[0] + nearest * x) / cosine).astype(np.float32), (eye[1] + nearest * y).astype(np.float32)


@dataclass(frozen=True)
class Relief:
    """Roughly a head: a face on a cylinder, with a nose. The still is laid on it as it is seen from the front.

    What a person shows who turns, for comparison with the prints; also what a mask shows.
    """

    radius_mm: float = 85.0
    nose_mm: float = 24.0
    """Height of the nose over the cylinder; the eyes and the corners of the mouth lie some 6 mm further back."""
    STEPS: ClassVar = 8

    def meet(self, eye: Point, x: Rays, y: Rays, z: Rays) -> tuple[Rays, Rays]:
        """Goes along the rays to the depth that the face has where they are, again and again."""
        far = (self.nose_mm - eye[2]) / z
        for _ in range(self.STEPS):
            s, t = eye[0] + far * x, eye[1] + far * y
            far = ((self._depth_mm(s, t) - eye[2]) / z + far) / 2
        beside = np.abs(s) > 0.97 * self.radius_mm
        return np.where(beside, np.nan, s).astype(np.float32), t.astype(np.float32)

    def _depth_mm(self, s: Rays, t: Rays) -> Rays:
        """z of the face at (s, t), 0 at the tip of the nose."""
        round_ = self.radius_mm - np.sqrt(np.maximum(self.radius_mm**2 - s * s, 0.05 * self.radius_mm**2))
        bridge_or_lip = np.where(t < 0, t / 22.0, t / 9.0)
        nose = self.nose_mm * np.exp(-(s * s) / 242.0 - bridge_or_lip**2 / 2)
        return np.asarray(self.nose_mm + round_ - nose, np.float32)
