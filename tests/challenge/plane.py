"""A picture of a face, held before a camera in somebody's hand: rendered by following the ray of every pixel.

Perspective, the tremor of a hand, blur, sensor noise and JPEG: what lies between a print and the detector's landmarks
moves these about, and simulated landmarks alone would say the attack is weaker than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import tan
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.types import Face, Image, Landmarks
from edge_agent.vision.detect import Detector
from tests.challenge.heads import EYE_DISTANCE_MM, rotation
from tests.challenge.surfaces import Flat, Surface

HALF_WIDTH_MM, ABOVE_MM, BELOW_MM = 100.0, 125.0, 145.0
"""Of the print around the nose: about A4, the face in its own size."""
FIELD_OF_VIEW_DEG: Final = 60.0
SEEN: Final = 0.56
"""Share of the frame's width, in its middle, in which the print can be: only there rays are followed."""
BACKGROUND: Final = 96


@dataclass(frozen=True)
class Print:
    """A picture, scaled to the size in which the face is shown."""

    image: Image
    mm_per_px: float
    nose_px: tuple[float, float]

    @classmethod
    def of(cls, still: Image, face: Face, px_per_mm: float) -> Print:
        """``still``, cut to the print's size, with about ``px_per_mm`` as it will be seen: no more than that aliases."""
        mm_per_px = EYE_DISTANCE_MM / face.inter_eye_px
        shrink = min(1.0, 1.5 * px_per_mm * mm_per_px)
        small = cv2.resize(still, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        (x, y), mm_per_px = face.landmarks[2] * shrink, mm_per_px / shrink
        left, right = (max(0, round(x + sign * HALF_WIDTH_MM / mm_per_px)) for sign in (-1, 1))
        top, bottom = max(0, round(y - ABOVE_MM / mm_per_px)), round(y + BELOW_MM / mm_per_px)
        return cls(np.asarray(small[top:bottom, left:right], np.uint8), mm_per_px, (float(x) - left, float(y) - top))


class Camera:
    """Follows rays, then blurs, adds noise and compresses. ``size_px``: (width, height)."""

    def __init__(self, size_px: tuple[int, int] = (480, 270), *, seed: int = 0) -> None:
        width, height = size_px
        self.focal_px = width / 2 / tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
        self._columns = slice(round(width * (1 - SEEN) / 2), round(width * (1 + SEEN) / 2))
        columns = np.arange(width)[self._columns]
        x, y = np.meshgrid(columns - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
        self._empty = np.full((height, width, 3), BACKGROUND, np.uint8)
        self._rays = np.stack([x / self.focal_px, y / self.focal_px, np.ones_like(x)], axis=-1).astype(np.float32)
        self._rng = np.random.default_rng(seed)
        self._noise = self._rng.normal(0.0, 4.0, (2 * height, 2 * width, 3)).astype(np.int16)

    def picture(
        self, print_: Print, surface: Surface, turn: NDArray[np.float64], place_mm: NDArray[np.float64]
    ) -> Image:
        """The print, turned by the matrix ``turn`` and moved to ``place_mm`` before the camera."""
        rays = self._rays @ turn.astype(np.float32)
        eye_x, eye_y, eye_z = (-turn.T @ place_mm).tolist()
        s, t = surface.meet((eye_x, eye_y, eye_z), rays[..., 0], rays[..., 1], rays[..., 2])
        map_x = np.nan_to_num(s / print_.mm_per_px + print_.nose_px[0], nan=-1e4)
        map_y = np.nan_to_num(t / print_.mm_per_px + print_.nose_px[1], nan=-1e4)
        sharp = self._empty.copy()
        sharp[:, self._columns] = cv2.remap(
            print_.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(BACKGROUND,) * 3
        )
        return self._recorded(sharp)

    def _recorded(self, sharp: Image) -> Image:
        """Blurred by the lens and by movement, noisy, compressed."""
        moved = int(self._rng.integers(1, 4))
        soft = cv2.blur(cv2.GaussianBlur(sharp, (0, 0), float(self._rng.uniform(0.5, 1.0))), (moved, 1))
        height, width = sharp.shape[:2]
        top, left = self._rng.integers(0, (height, width))
        noise = self._noise[top : top + height, left : left + width]
        noisy = cv2.add(soft, noise, dtype=cv2.CV_8U)
        _, jpeg = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])
        return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


class Held:
    """A print in a trembling hand, looked at by the real detector; called with a yaw it gives what was found."""

    def __init__(
        self,
        still: Image,
        detector: Detector,
        surface: Surface | None = None,
        *,
        camera: Camera | None = None,
        distance_mm: float = 400.0,
        nod: float = 0.0,
        axis_mm: float = 0.0,
        seed: int = 0,
    ) -> None:
        """``nod``: how far it is tilted backwards for every degree that it is turned, so that it keeps its proportions.
        ``axis_mm``: how far behind its middle the axis is about which it turns.
        Raises ValueError where ``still`` shows no face.
        """
        faces = detector.detect(still)
        if not faces:
            raise ValueError("there is no face to print")
        self._detector, self._surface = detector, surface or Flat()
        self._camera = camera or Camera(seed=seed)
        self._place_mm = np.array([0.0, 0.0, distance_mm])
        self._print = Print.of(still, faces[0], self._camera.focal_px / distance_mm)
        self._nod, self._axis_mm = nod, np.array([0.0, 0.0, axis_mm])
        self._rng = np.random.default_rng(seed)
        self._tremor = np.zeros(6)
        self.frames = 0

    def picture(self, yaw_deg: float) -> Image:
        """The next frame: the print is turned by ``yaw_deg`` (+ = the pictured face's own left)."""
        self.frames += 1
        self._tremor = 0.8 * self._tremor + self._rng.normal(0.0, (0.5, 0.5, 0.5, 1.0, 1.0, 1.5))
        yaw, pitch, roll = self._tremor[:3]
        turn = rotation(yaw_deg + yaw, self._nod * abs(yaw_deg) + pitch, roll)
        place_mm = self._place_mm + self._tremor[3:] + self._axis_mm - turn @ self._axis_mm
        return self._camera.picture(self._print, self._surface, turn, place_mm)

    def __call__(self, yaw_deg: float) -> Landmarks | None:
        faces = self._detector.detect(self.picture(yaw_deg))
        return faces[0].landmarks if faces else None
