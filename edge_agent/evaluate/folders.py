"""The material of an evaluation: one folder, a subfolder per person or kind, files in them. Hidden ones are skipped."""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import InputError


def subfolders(folder: Path) -> list[Path]:
    """By name. Raises InputError ``folder_unreadable``."""
    return [entry for entry in _entries(folder) if entry.is_dir()]


def files_of(folder: Path) -> list[Path]:
    """By name; deeper folders are not searched. Raises InputError ``folder_unreadable``."""
    return [entry for entry in _entries(folder) if not entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as exc:
        raise InputError(
            f"cannot read the folder {folder}: {exc.strerror}",
            code="folder_unreadable",
            hint="name a folder that you may read",
        ) from exc
