"""The files of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_OURS = {"__pycache__", "build", "dist", "node_modules"}


def project_files() -> list[Path]:
    """What git keeps or would keep; where there is no git, everything but hidden and generated folders."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        found = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
        return sorted(file for file in found if file.is_file())
    return sorted(file for file in ROOT.rglob("*") if file.is_file() and _is_ours(file.relative_to(ROOT)))


def _is_ours(file: Path) -> bool:
    return not any(
        part in _NOT_OURS or part.endswith(".egg-info") or (part.startswith(".") and part != ".ci")
        for part in file.parts[:-1]
    )
