"""A folder of identities, one subfolder of pictures each, as embeddings: what ``evaluate match`` compares.

Only what a terminal would have compared is compared: by default a picture has to pass the gate's checks of a single
frame. Liveness is left out of that: the pictures of a set are pictures, and whether they were shown to a camera says
nothing about how alike two faces are. Whatever is left out is listed with its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import GateSection
from edge_agent.errors import InputError, ModelError
from edge_agent.evaluate.folders import files_of, subfolders
from edge_agent.gate import check_frame
from edge_agent.picture import read_picture
from edge_agent.types import Embedding, Face, Frame, JsonObject, Measurement

DUPLICATE = "duplicate"
"""The very same file again under the same name: it would be a genuine pair of similarity 1."""
NO_FACE = "no_face"
HINT = "one subfolder per person, named as you like, with that person's pictures in it"


class Eyes(Protocol):
    """What looks at the pictures; ``vision.pipeline.Pipeline`` is one. Raises ModelError."""

    def measure(self, frame: Frame) -> Measurement: ...

    def embed(self, frame: Frame, face: Face) -> Embedding: ...


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not compared."""

    file: Path
    reason: str
    """A gate code, the code of an error, or ``duplicate``."""


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The captures that are compared, by person."""

    embeddings: tuple[NDArray[np.float32], ...]
    """One (captures, dimensions) array per person with at least one capture; rows have length 1."""
    folders: int
    """Persons that the set names, also those of whom nothing could be used."""
    files: int
    left_out: tuple[LeftOut, ...]

    @property
    def captures(self) -> int:
        return sum(len(rows) for rows in self.embeddings)

    @property
    def reasons(self) -> Counter[str]:
        """Why how many files were left out."""
        return Counter(item.reason for item in self.left_out)


def pictures_by_person(folder: Path) -> dict[str, list[Path]]:
    """The files of every subfolder, both by name; hidden ones are skipped.

    Raises InputError ``no_pictures`` or ``one_identity`` where there is nothing to compare.
    """
    found = {sub.name: files_of(sub) for sub in subfolders(folder)}
    if not any(found.values()):
        raise InputError(f"cannot evaluate {folder}: no subfolder of it has a file", code="no_pictures", hint=HINT)
    if len(found) < 2:
        raise InputError(
            f"cannot evaluate {folder}: it holds one identity only, and nobody to confuse it with",
            code="one_identity",
            hint=HINT,
        )
    return found


def look_at_people(
    pictures: dict[str, list[Path]],
    eyes: Eyes,
    limits: GateSection | None,
    watched: Callable[[Sequence[tuple[str, Path]]], Iterable[tuple[str, Path]]] = lambda files: files,
) -> People:
    """Detect, align and embed every picture. ``limits`` None: any picture with a face counts.

    ``watched`` sees the files go by. Raises InputError where the same file is in two persons' folders
    (``mixed_identities``) or fewer than two persons are left (``one_identity``).
    """
    files = [(name, file) for name, of_person in pictures.items() for file in of_person]
    rows: dict[str, list[Embedding]] = {}
    left_out: list[LeftOut] = []
    owners: dict[bytes, tuple[str, Path]] = {}
    for name, file in watched(files):
        found = _look(file, name, eyes, limits, owners)
        if isinstance(found, str):
            left_out.append(LeftOut(file, found))
        else:
            rows.setdefault(name, []).append(found)
    people = People(tuple(np.stack(of) for of in rows.values()), len(pictures), len(files), tuple(left_out))
    if len(people.embeddings) < 2:
        raise InputError(
            f"cannot evaluate: pictures of {len(people.embeddings)} of {len(pictures)} identities can be used, "
            f"and two are the least; left out: {counted(people.reasons)}",
            code="one_identity",
            hint="see with edge-agent screen what is wrong with the pictures; --gate none takes any that has a face",
        )
    return people


def people_json(people: People) -> JsonObject:
    """What was compared and what was not, for ``evaluate match --json``."""
    return {
        "files_seen": people.files,
        "folders": people.folders,
        "captures": people.captures,
        "left_out": [{"file": str(item.file), "reason": item.reason} for item in people.left_out],
    }


def counted(reasons: Counter[str]) -> str:
    """The most frequent first: ``3 too_far, 1 no_face``."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none"


def _look(
    file: Path, name: str, eyes: Eyes, limits: GateSection | None, owners: dict[bytes, tuple[str, Path]]
) -> Embedding | str:
    """The embedding of the picture's largest face, or why there is none."""
    try:
        if _seen_before(file, name, owners):
            return DUPLICATE
        frame = Frame(read_picture(file), 0.0, 0)
        measurement = eyes.measure(frame)
        if measurement.face is None:
            return NO_FACE
        refused = _refused(measurement, limits)
        return refused or eyes.embed(frame, measurement.face)
    except OSError:
        return "picture_unreadable"
    except (InputError, ModelError) as exc:
        if exc.code in {"mixed_identities", "no_embedder"}:
            raise
        return exc.code


def _refused(measurement: Measurement, limits: GateSection | None) -> str | None:
    """The most severe failed check, None for a picture that qualifies but for liveness."""
    if limits is None:
        return None
    failed = (check.code.value for check in check_frame(measurement, limits) if check.passed is False)
    return next(failed, None)


def _seen_before(file: Path, name: str, owners: dict[bytes, tuple[str, Path]]) -> bool:
    """Raises InputError ``mixed_identities`` when another person owns the same bytes, OSError as reading does."""
    digest = hashlib.sha256(file.read_bytes()).digest()
    owner, first = owners.setdefault(digest, (name, file))
    if owner != name:
        raise InputError(
            f"cannot evaluate: {file} and {first} are the same picture, under two identities",
            code="mixed_identities",
            hint="one of the two is in the wrong folder, and would be counted as a false match",
        )
    return first != file
