"""What the header of a picture file says, without decoding it: JPEG, PNG, WebP and BMP."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Header:
    """Stored size in px (before any EXIF rotation), and whether the file reaches to its end marker."""

    width: int
    height: int
    complete: bool


_CUT_OFF: Final = Header(0, 0, complete=False)

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
_START_OF_SCAN: Final = 0xDA
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def read_header(data: bytes) -> Header | None:
    """The header of ``data``; None when it is none of the four formats."""
    try:
        if data.startswith(_JPEG_MAGIC):
            return _jpeg(data)
        if data.startswith(_PNG_MAGIC):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM" and len(data) >= 26:
            return _bmp(data)
    except (struct.error, IndexError):
        return _CUT_OFF
    return None


def _jpeg(data: bytes) -> Header:
    """Walk the segments (ITU T.81, B.1.1) to the first scan; after it, the end marker can only be the end.

    An end marker before the scan belongs to a thumbnail.
    """
    at, size = 2, (0, 0)
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker == _START_OF_SCAN:
            return Header(size[0], size[1], complete=data.find(_JPEG_END, at + length) != -1)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = (width, height)
        at += length
        if data[at] != 0xFF:
            return _CUT_OFF


def _png(data: bytes) -> Header:
    """Walk the chunks to IEND, each with its check sum (ISO/IEC 15948)."""
    width, height = struct.unpack_from(">II", data, 16)
    at = len(_PNG_MAGIC)
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (stored,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(data[at + 4 : at + 8 + length]) != stored:
            return Header(width, height, complete=False)
        if kind == b"IEND":
            return Header(width, height, complete=True)
        at += 12 + length


def _webp(data: bytes) -> Header:
    """The RIFF length, and the size from whichever of the three bitstream headers is there (RFC 9649)."""
    (length,) = struct.unpack_from("<I", data, 4)
    complete = len(data) >= 8 + length
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header(width, height, complete)


def _bmp(data: bytes) -> Header:
    """Windows bitmap header; rows of an uncompressed picture are padded to four bytes."""
    start, header_size = struct.unpack_from("<II", data, 10)
    if header_size < 40:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    row = (abs(width) * bits + 31) // 32 * 4
    needed = start + (row * abs(height) if compression in {0, 3} else 1)
    return Header(abs(width), abs(height), complete=len(data) >= needed)
