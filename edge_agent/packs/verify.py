"""Checking model files against their manifest. Nothing is ever loaded that did not pass here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import ModelFile, Pack, model_path


class FileState(StrEnum):
    """What became of one file of a pack (part of the stable ``--json`` output)."""

    OK = "ok"
    MISSING = "missing"
    TAMPERED = "tampered"
    """Present, but not the bytes that the manifest names."""
    UNREADABLE = "unreadable"
    """Present, but this user may not read it, or the disk cannot."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """The check of one file; ``detail`` is for people and empty when all is well."""

    name: str
    path: Path
    state: FileState
    detail: str = ""


def matches(data: bytes, sha256: str, size: int) -> bool:
    """Whether ``data`` are exactly the bytes with this size and SHA-256."""
    return len(data) == size and hashlib.sha256(data).hexdigest() == sha256


def require_model(models_dir: Path, name: str, file: ModelFile, *, pack: str = "PACK") -> bytes:
    """The content of the model file ``name``, read once and verified.

    Create the inference session from these very bytes: a path could be exchanged between check and use.
    Raises ModelError: ``models_missing``, ``model_tampered`` or ``model_unreadable``; the hint names ``pack``.
    """
    path = model_path(models_dir, name, file)
    fetch = f"edge-agent models fetch {pack}"
    try:
        data = _read(path, file.size)
    except FileNotFoundError as exc:
        raise ModelError(f"cannot load the model {name}: {path} does not exist", hint=fetch) from exc
    except OSError as exc:
        raise ModelError(
            f"cannot load the model {name}: {path}: {exc.strerror}",
            code="model_unreadable",
            hint="make the file readable for this user",
        ) from exc
    if not matches(data, file.sha256, file.size):
        raise ModelError(
            f"cannot load the model {name}: {path} {_difference(data, path, file)}", code="model_tampered", hint=fetch
        )
    return data


def verify_file(models_dir: Path, name: str, file: ModelFile) -> FileReport:
    """Check one file without raising."""
    path = model_path(models_dir, name, file)
    try:
        data = _read(path, file.size)
    except FileNotFoundError:
        return FileReport(name, path, FileState.MISSING, "is not there")
    except OSError as exc:
        return FileReport(name, path, FileState.UNREADABLE, exc.strerror or str(exc))
    if matches(data, file.sha256, file.size):
        return FileReport(name, path, FileState.OK)
    return FileReport(name, path, FileState.TAMPERED, _difference(data, path, file))


def verify_pack(pack: Pack, models_dir: Path) -> tuple[FileReport, ...]:
    """Check every file of ``pack``, in the order of the manifest."""
    return tuple(verify_file(models_dir, name, file) for name, file in pack.files.items())


def _read(path: Path, size: int) -> bytes:
    """At most one byte more than expected: enough to know that a file is too long."""
    with path.open("rb") as stream:
        return stream.read(size + 1)


def _difference(data: bytes, path: Path, file: ModelFile) -> str:
    if len(data) < file.size:
        return f"is truncated: {len(data)} of {file.size} bytes"
    if len(data) > file.size:
        return f"is too long: {path.stat().st_size} instead of {file.size} bytes"
    return f"does not have the SHA-256 of the manifest ({file.sha256[:16]}…)"
