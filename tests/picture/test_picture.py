"""Reading pictures: every odd one gives pixels or a clear error, and nothing on stderr."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.errors import InputError
from edge_agent.picture import read_picture
from edge_agent.picture import reading as module
from edge_agent.picture.header import read_header
from edge_agent.types import Image

pytestmark = pytest.mark.arm


def sample(width: int = 64, height: int = 48) -> Image:
    """Red at the left, blue at the right, darker towards the bottom."""
    x, y = np.linspace(0, 1, width), np.linspace(1, 0.5, height)
    red, blue = np.outer(y, 1 - x), np.outer(y, x)
    return (np.stack([blue, np.zeros_like(red), red], axis=2) * 250).astype(np.uint8)


def encoded(image: np.ndarray, extension: str) -> bytes:
    ok, data = cv2.imencode(extension, image)
    assert ok
    return bytes(data)


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment that holds one tag."""
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHIHHI", 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_lossless_formats_come_back_as_they_were(extension: str):
    assert np.array_equal(read_picture(encoded(sample(), extension)), sample())


@pytest.mark.parametrize("extension", [".jpg", ".webp"])
def test_lossy_formats_come_back_about_as_they_were(extension: str):
    image = read_picture(encoded(sample(), extension))
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - sample()).mean() < 4


def test_a_lossless_webp_is_read():
    data = bytes(cv2.imencode(".webp", sample(), [cv2.IMWRITE_WEBP_QUALITY, 101])[1])
    assert np.array_equal(read_picture(data), sample())


def test_a_path_is_read_like_its_bytes(tmp_path: Path):
    path = tmp_path / "face.png"
    path.write_bytes(encoded(sample(), ".png"))
    assert np.array_equal(read_picture(path), sample())


CONVERTED = {
    "grey": (encoded(sample()[:, :, 2], ".png"), np.repeat(sample()[:, :, 2:], 3, axis=2)),
    "transparent": (encoded(np.dstack([sample(), np.full((48, 64), 9, np.uint8)]), ".png"), sample()),
    "16 bit": (encoded(sample().astype(np.uint16) * 257, ".png"), sample()),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_other_pixel_kinds_become_bgr(kind: str):
    data, expected = CONVERTED[kind]
    assert np.array_equal(read_picture(data), expected)


@pytest.mark.parametrize(
    ("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)], ids=["upright", "180", "90 cw", "90 ccw"]
)
def test_exif_rotation_is_applied(orientation: int, turns: int):
    stored = encoded(sample(), ".jpg")
    expected = np.rot90(read_picture(stored), turns)
    assert np.array_equal(read_picture(with_orientation(stored, orientation)), expected)


JPEG, PNG = encoded(sample(), ".jpg"), encoded(sample(), ".png")
WEBP, BMP = encoded(sample(), ".webp"), encoded(sample(), ".bmp")
THUMBNAIL = JPEG[:2] + b"\xff\xe2" + struct.pack(">H", len(JPEG) + 2) + JPEG + JPEG[2:-30]

BAD = {
    "empty": (b"", "not_an_image"),
    "text": (b"hello, world, I am a text file\n", "not_an_image"),
    "a gif": (b"GIF89a" + bytes(60), "not_an_image"),
    "jpeg cut in the scan": (JPEG[:-30], "picture_truncated"),
    "jpeg cut in the header": (JPEG[:60], "picture_truncated"),
    "jpeg magic only": (JPEG[:3], "picture_truncated"),
    "jpeg cut after a whole thumbnail": (THUMBNAIL, "picture_truncated"),
    "png cut": (PNG[: len(PNG) // 2], "picture_truncated"),
    "png without its end": (PNG[:-4], "picture_truncated"),
    "png with a flipped byte": (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "picture_truncated"),
    "webp cut": (WEBP[: len(WEBP) // 2], "picture_truncated"),
    "bmp cut": (BMP[:-100], "picture_truncated"),
    "one pixel": (encoded(sample(1, 1), ".png"), "picture_too_small"),
    "a thin strip": (encoded(sample(200, 2), ".jpg"), "picture_too_small"),
    "no height": (png_claiming(64, 0), "picture_too_small"),
    "a decompression bomb": (png_claiming(50_000, 50_000), "picture_too_large"),
    "just too large": (png_claiming(8_000, 5_001), "picture_too_large"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture_is_a_clear_error(case: str, capfd: pytest.CaptureFixture[str]):
    data, code = BAD[case]
    with pytest.raises(InputError, match=r"^cannot use the picture: ") as caught:
        read_picture(data)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [JPEG[:-30], THUMBNAIL, PNG[:-4], WEBP[:-1], BMP[:-100]])
def test_a_cut_is_noticed_without_the_decoder(data: bytes):
    """Decoders differ: some fill what is missing with grey and call it a picture."""
    header = read_header(data)
    assert header is not None and not header.complete


def test_a_png_that_is_whole_but_holds_no_pixels_is_an_error():
    """Only the decoder notices, and libpng says so on stderr by itself."""
    with pytest.raises(InputError) as caught:
        read_picture(png_claiming(64, 48))
    assert caught.value.code == "picture_truncated"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(InputError):
        read_picture(png_claiming(50_000, 50_000))


def test_twenty_megapixels_are_fine():
    image = read_picture(encoded(np.zeros((4000, 5000), np.uint8), ".png"))
    assert image.shape == (4000, 5000, 3)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"^cannot read .*nobody\.jpg: No such file") as caught:
        read_picture(tmp_path / "nobody.jpg")
    assert caught.value.code == "picture_unreadable"


def test_a_huge_file_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "face.png"
    path.write_bytes(PNG)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert caught.value.code == "picture_too_large"
