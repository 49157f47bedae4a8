"""Pictures as a recording: one file after the other, each as somebody standing in front of the camera."""

from __future__ import annotations

from pathlib import Path

from edge_agent.camera.port import checked
from edge_agent.camera.sway import SwayingStill
from edge_agent.errors import CameraError, InputError
from edge_agent.picture import read_picture
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
        return checked(read_picture(file), str(file))
    except InputError as exc:
        code = "camera_unavailable" if exc.code == "picture_unreadable" else "camera_format"
        raise CameraError(exc.message, code=code, hint=exc.hint) from exc
