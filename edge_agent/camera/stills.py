"""Pictures as a recording: one file after the other, each as somebody standing in front of the camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_agent.camera.port import checked
from edge_agent.camera.sway import SwayingStill
from edge_agent.errors import CameraError
from edge_agent.types import Image

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class Stills:
    """``shots`` frames of each file in turn; a single file is shown without an end when it loops."""

    def __init__(
        self, files: list[Path], *, size: tuple[int, int], fps: float, shots: int, loop: bool, seed: int
    ) -> None:
        self.fps, self.size = fps, size
        self._files, self._shots, self._loop, self._seed = files, shots, loop, seed
        self._shown = 0
        self._still = self._load(0)

    def image(self, number: int) -> Image | None:
        turn = number // self._shots
        if turn >= len(self._files) and not self._loop:
            return None
        if turn % len(self._files) != self._shown:
            self._still = self._load(turn % len(self._files))
        return self._still.frame(number, number / self.fps)

    def close(self) -> None:
        """Nothing is held open."""

    def _load(self, position: int) -> SwayingStill:
        still = SwayingStill(_picture(self._files[position]), self.size, seed=self._seed + position)
        self._shown = position
        return still


def _picture(file: Path) -> Image:
    """Raises CameraError camera_format, or camera_unavailable where the file cannot be read."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as exc:
        raise CameraError(f"cannot read the picture {file}: {exc.strerror}") from exc
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise CameraError(
            f"cannot replay {file}: it is not a picture, or it is damaged",
            code="camera_format",
            hint="use a JPEG or PNG that an image viewer opens",
        )
    return checked(image, str(file))
