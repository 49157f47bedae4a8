"""Looks for what must not be in any file: secrets as they are, and pieces of pictures or ciphertexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

WORD_BYTES = 8
"""Any 24 bytes in a row of a known blob hold a whole aligned word of it; a chance hit has odds of 1 : 10^12."""

Words = npt.NDArray[np.uint64]


class Index:
    """The aligned 8-byte words of random-looking blobs; finds any slice of 32 bytes, and shorter ones mostly."""

    def __init__(self, blobs: Iterable[bytes]) -> None:
        parts = [np.frombuffer(blob, "<u8", count=len(blob) // WORD_BYTES) for blob in blobs]
        self._words: Words = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def found_in(self, content: bytes) -> int | None:
        """Offset of the first piece of a blob in ``content``, or None."""
        offsets = [self._first(content, shift) for shift in range(WORD_BYTES)] if self._words.size else []
        return min((offset for offset in offsets if offset is not None), default=None)

    def _first(self, content: bytes, shift: int) -> int | None:
        count = (len(content) - shift) // WORD_BYTES
        if count <= 0:
            return None
        here = np.frombuffer(content, "<u8", count=count, offset=shift)
        at = np.minimum(np.searchsorted(self._words, here), self._words.size - 1)
        hits = np.flatnonzero(self._words[at] == here)
        return int(hits[0]) * WORD_BYTES + shift if hits.size else None


def files_of(state_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Every file with its content, the write-ahead log and set-aside copies too."""
    for path in sorted(state_dir.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(state_dir)), path.read_bytes()
