"""Reading a picture from a file or from bytes: always uint8 (H, W, 3) BGR, upright, or a clear InputError.

The header is read before anything is decoded, so neither a decompression bomb nor half a file reaches the decoder.
"""

from __future__ import annotations

from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

import cv2
import numpy as np

from edge_agent.errors import InputError
from edge_agent.picture.header import Header, read_header
from edge_agent.types import Image

MAX_PIXELS: Final = 40_000_000
MAX_BYTES: Final = 4 * MAX_PIXELS
MIN_SIDE_PX: Final = 16
FORMATS: Final = "JPEG, PNG, WebP or BMP"


def read_picture(source: bytes | Path) -> Image:
    """Decode ``source``: EXIF rotation applied, grey and 16-bit converted, transparency dropped.

    Raises InputError: ``picture_unreadable`` (no such file), ``not_an_image``, ``picture_truncated``,
    ``picture_too_large`` (more than 40 megapixels) or ``picture_too_small`` (a side below 16 px).
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_file(source)
    _check_header(name, read_header(data))
    image = _decode(data)
    if image is None:
        raise _truncated(name)
    return np.ascontiguousarray(image)


def _read_file(path: Path) -> bytes:
    """A regular file only: a device or a pipe may never end."""
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise _unreadable(path, "it is a folder" if S_ISDIR(found.st_mode) else "it is not a regular file")
        if found.st_size > MAX_BYTES:
            raise _too_large(str(path), f"the file has {found.st_size} bytes")
        return path.read_bytes()
    except OSError as exc:
        raise _unreadable(path, exc.strerror or str(exc)) from exc


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"cannot read {path}: {why}", code="picture_unreadable", hint="check the path and its permissions"
    )


def _check_header(name: str, header: Header | None) -> None:
    if header is None:
        raise InputError(f"cannot use {name}: it is not a picture", code="not_an_image", hint=f"send {FORMATS}")
    if not header.complete:
        raise _truncated(name)
    if header.width * header.height > MAX_PIXELS:
        raise _too_large(name, f"it has {header.width} x {header.height} px")
    if min(header.width, header.height) < MIN_SIDE_PX:
        raise InputError(
            f"cannot use {name}: it is only {header.width} x {header.height} px",
            code="picture_too_small",
            hint=f"each side needs at least {MIN_SIDE_PX} px",
        )


def _decode(data: bytes) -> Image | None:
    """None when the decoder gives up. OpenCV's own messages are switched off: ours is the better one.

    (A file made to look whole may still draw a line from libjpeg or libpng, which have no switch.)
    """
    logging = cv2.utils.logging
    previous = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    finally:
        logging.setLogLevel(previous)
    return image


def _truncated(name: str) -> InputError:
    return InputError(
        f"cannot use {name}: the file is cut off or damaged", code="picture_truncated", hint="copy it again"
    )


def _too_large(name: str, why: str) -> InputError:
    return InputError(
        f"cannot use {name}: {why}",
        code="picture_too_large",
        hint=f"send at most {MAX_PIXELS // 1_000_000} megapixels",
    )
