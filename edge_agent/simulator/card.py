"""The picture that a simulated capture holds: the outcome and a number, as black and white squares.

The capture is all that CypherFace gets to see, so this is how its stand-in learns what to answer: the chosen outcome goes
through the real crop, the encrypted outbox and the upload, also over a restart. Nobody can take it for a person.
"""

from __future__ import annotations

import numpy as np

from edge_agent.errors import InputError
from edge_agent.picture import read_picture
from edge_agent.types import Box, Image

SIZE = (1280, 720)
"""width, height of a frame, px."""
FACE = Box(480.0, 200.0, 800.0, 520.0)
"""Where the face is said to be: grown by the capture's margin (a half) it is the square that is painted."""
_LEFT, _TOP, _SIDE = 320, 40, 640
_CELLS = 20
"""Squares a side: 50 bytes, of which the first is the length."""
MAX_BYTES = _CELLS * _CELLS // 8 - 1


def paint(text: str) -> Image:
    """A frame that shows ``text`` (ASCII, at most MAX_BYTES characters)."""
    data = text.encode("ascii")
    if len(data) > MAX_BYTES:
        raise ValueError(f"cannot paint {len(data)} bytes: at most {MAX_BYTES} fit")
    bits = np.unpackbits(np.frombuffer(bytes([len(data)]) + data.ljust(MAX_BYTES, b"\0"), np.uint8))
    cell = _SIDE // _CELLS
    squares = np.kron(bits.reshape(_CELLS, _CELLS) * np.uint8(255), np.ones((cell, cell), np.uint8))
    frame = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    frame[_TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE] = squares[:, :, None]
    return frame


def read(jpeg: bytes) -> str:
    """What ``paint`` wrote, from the uploaded crop. Raises InputError for any other picture."""
    grey = read_picture(jpeg).mean(axis=2)
    rows, columns = (((np.arange(_CELLS) + 0.5) * side / _CELLS).astype(int) for side in grey.shape)
    data = np.packbits(grey[np.ix_(rows, columns)] > 127).tobytes()
    text = data[1 : 1 + data[0]]
    if not text.isascii() or any(data[1 + data[0] :]):
        raise InputError("cannot judge the picture: it is none of the simulator's", code="not_an_image")
    return text.decode("ascii")
