"""What the sandbox knows: upload URLs it gave out, pictures that arrived, judgements it made; optionally on disk."""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from pydantic import TypeAdapter, ValidationError

from edge_agent.errors import StorageError

UploadType = Literal["upload", "match"]
Outcome = Literal["match", "mismatch", "no_face"]

MAX_JUDGEMENTS = 10_000
MAX_UPLOADS = 1_000


@dataclass(frozen=True, slots=True)
class Upload:
    """A pre-signed URL that was given out."""

    key: str
    user_id: str
    type: UploadType
    image_name: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One PUT that was accepted. Times are seconds of SandboxClock.now_s."""

    key: str
    user_id: str
    type: UploadType
    image_name: str
    sha256: str
    size: int
    received_at_s: float
    lands_at_s: float
    """The moment it becomes the object under its key; later than received for a late PUT."""
    ready_at_s: float
    """The moment it takes part in matching: landed, plus the processing lag."""
    usable: bool
    """False for an enrolment picture in which the matcher finds no face."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One comparison that was made; the tests hold it against what the agent captured."""

    at_s: float
    user_id: str
    outcome: Outcome
    similarity: float | None
    target_sha256: str
    target_image_name: str
    source_sha256: str


@dataclass(slots=True)
class Saved:
    """The content of ``state.json``."""

    secret: str = field(default_factory=lambda: secrets.token_hex(32))
    """Signs tokens and URLs: both outlive a restart, as the service's do."""
    advanced_s: float = 0.0
    uploads: dict[str, Upload] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


_SAVED = TypeAdapter(Saved)


class SandboxState:
    """The records and the pictures' bytes. Only the server's event loop changes it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._blobs: dict[str, bytes] = {}
        self._lock = _claim(folder) if folder else None
        try:
            self.saved = _load(folder) if folder else Saved()
            self.write(self.dump())  # the secret: tokens made before the first change outlive a restart too
        except StorageError:
            self.close()
            raise

    def close(self) -> None:
        """Give the folder free for another process."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def blob(self, sha256: str) -> bytes:
        """The bytes of a picture. Raises StorageError when they are gone from the folder."""
        if self._folder is None:
            return self._blobs[sha256]
        path = self._folder / "pictures" / sha256
        try:
            return path.read_bytes()
        except OSError as exc:
            raise StorageError(f"cannot read the picture {path}: {exc.strerror}") from exc

    def keep_blob(self, sha256: str, content: bytes) -> None:
        """Store a picture's bytes under their SHA-256. Raises StorageError."""
        if self._folder is None:
            self._blobs[sha256] = content
        else:
            _write(self._folder / "pictures" / sha256, content)

    def add_upload(self, upload: Upload) -> None:
        uploads = self.saved.uploads
        uploads[upload.key] = upload
        while len(uploads) > MAX_UPLOADS:
            del uploads[next(iter(uploads))]

    def add_picture(self, picture: Picture) -> None:
        """Add, and let go of the targets that can never be judged again."""
        self.saved.pictures.append(picture)
        ready = self._ready(picture.user_id, "match", picture.received_at_s)
        for old in ready[:-1]:
            self.saved.pictures.remove(old)
        kept = {p.sha256 for p in self.saved.pictures}
        for sha256 in {p.sha256 for p in ready[:-1]} - kept:
            self._forget_blob(sha256)

    def add_judgement(self, judgement: Judgement) -> None:
        self.saved.judgements.append(judgement)
        del self.saved.judgements[:-MAX_JUDGEMENTS]

    def knows(self, user_id: str) -> bool:
        """Whether this user was ever enrolled (or tried to)."""
        return any(p.user_id == user_id and p.type == "upload" for p in self.saved.pictures)

    def source(self, user_id: str, now_s: float) -> Picture | None:
        """The enrolled picture: the first key that was processed, with what landed last under it."""
        ready = [p for p in self._ready(user_id, "upload", now_s) if p.usable]
        return [p for p in ready if p.key == ready[0].key][-1] if ready else None

    def target(self, user_id: str, now_s: float) -> Picture | None:
        """The last uploaded target that is ready at ``now_s``."""
        ready = self._ready(user_id, "match", now_s)
        return ready[-1] if ready else None

    def is_processing(self, user_id: str, now_s: float) -> bool:
        """Whether a target has landed and is not ready yet."""
        return any(
            p.user_id == user_id and p.type == "match" and p.lands_at_s <= now_s < p.ready_at_s
            for p in self.saved.pictures
        )

    def _ready(self, user_id: str, type_: UploadType, now_s: float) -> list[Picture]:
        """In the order in which they landed."""
        mine = (p for p in self.saved.pictures if p.user_id == user_id and p.type == type_ and p.ready_at_s <= now_s)
        return sorted(mine, key=lambda p: p.lands_at_s)

    def clear(self) -> None:
        """Forget users, pictures and judgements; tokens stay valid."""
        for sha256 in {p.sha256 for p in self.saved.pictures}:
            self._forget_blob(sha256)
        self.saved = Saved(secret=self.saved.secret, advanced_s=self.saved.advanced_s)

    def _forget_blob(self, sha256: str) -> None:
        self._blobs.pop(sha256, None)
        if self._folder:
            (self._folder / "pictures" / sha256).unlink(missing_ok=True)

    def dump(self) -> bytes:
        """The content of ``state.json`` as of now."""
        return _SAVED.dump_json(self.saved)

    def write(self, dumped: bytes) -> None:
        """Replace ``state.json``; nothing without a folder. Raises StorageError."""
        if self._folder:
            _write(self._folder / "state.json", dumped)


def _claim(folder: Path) -> IO[bytes]:
    """Make the folder and take its lock. Raises StorageError when another sandbox holds it.

    An existing folder keeps its mode; what is made in it is readable by this user only.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "pictures").mkdir(mode=0o700, exist_ok=True)
        lock = (folder / "lock").open("wb")
    except OSError as exc:
        raise StorageError(f"cannot use the sandbox state folder {folder}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.close()
        raise StorageError(
            f"cannot use the sandbox state folder {folder}: another sandbox is using it",
            hint="stop the other one, or give another folder with --state",
        ) from exc
    return lock


def _load(folder: Path) -> Saved:
    path = folder / "state.json"
    try:
        return _SAVED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Saved()
    except (OSError, ValidationError) as exc:
        raise StorageError(
            f"cannot read the sandbox state {path}: {exc}", hint=f"delete {folder} to start anew"
        ) from exc


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, durably. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror}", code="storage_full") from exc
