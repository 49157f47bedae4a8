"""Releases: a virtual environment each, side by side, and the link that says which one runs."""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from scripts.installer.hands import Hands
from scripts.installer.places import Places
from scripts.installer.refusal import USAGE, CannotInstall

LOCK = "requirements.lock"
INSTALLED = ("edge_agent", "models", "systemd", "scripts/install", "scripts/installer", "docs", "README.md")
"""What of the sources decides whether a release is another one, with the lock and pyproject.toml."""
KEPT = ("systemd", "scripts/install", "scripts/installer", "docs")
"""What goes along: going back to a release brings its units back, and uninstalling needs no sources."""
STAMP = "release.json"
"""Written last: a release without it was interrupted."""
PIP_S = 3600.0
HINTS = {
    "DO NOT MATCH THE HASHES": "the wheelhouse is damaged, or is not of this release: make it again (scripts/wheelhouse)",
    "No matching distribution": "the wheelhouse is of another release, processor or Python: make one for this machine "
    "(scripts/wheelhouse DIR --platform ARCHITECTURE --python VERSION). Nothing is ever compiled here",
    "No space left": "make room: a release needs about 500 MB in /opt",
    "ensurepip is not": "apt-get install python3-venv (or python3.11-venv)",
}


def advice(output: str) -> str:
    """What to try after what pip or venv said."""
    found = [hint for text, hint in HINTS.items() if text in output]
    return found[0] if found else "the same again when the network is back, or --wheelhouse DIR without a network"


@dataclass(frozen=True, slots=True)
class Sources:
    """The folder that scripts/install lies in: a checkout, or an unpacked release."""

    root: Path

    @property
    def version(self) -> str:
        """Raises CannotInstall when there is nothing to install from, as in the copy of the scripts in a release."""
        try:
            project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        except OSError as exc:
            raise CannotInstall(
                f"cannot install from {self.root}: it holds no sources",
                hint="run scripts/install of a checkout or of an unpacked release; this copy can only --uninstall",
                exit_code=USAGE,
            ) from exc
        return str(project["version"])

    def fingerprint(self) -> str:
        """Of everything that is installed, and of the Python it is for."""
        found = hashlib.sha256(f"{sys.version_info[:2]}".encode())
        for name in (LOCK, "pyproject.toml", *INSTALLED):
            for file in self._files(self.root / name):
                found.update(f"\n{file.relative_to(self.root)}\n".encode())
                found.update(file.read_bytes())
        return found.hexdigest()

    @staticmethod
    def _files(path: Path) -> list[Path]:
        if path.is_file():
            return [path]
        return sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


@dataclass(frozen=True, slots=True)
class Release:
    """One folder below releases/."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def program(self) -> Path:
        return self.path / "bin/edge-agent"

    @property
    def python(self) -> Path:
        return self.path / "bin/python"

    def fingerprint(self) -> str | None:
        """Of the sources it was made from; None when it was not finished."""
        try:
            return str(json.loads((self.path / STAMP).read_text(encoding="utf-8"))["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def made_s(self) -> float:
        """When it was finished, wall clock; 0 when it was not."""
        stamp = self.path / STAMP
        return stamp.stat().st_mtime if stamp.exists() else 0.0


def linked(places: Places) -> Release | None:
    """The release that ``current`` names, if it is there and whole."""
    if not places.current.is_symlink():
        return None
    release = Release(places.opt / places.current.readlink())
    return release if release.fingerprint() is not None else None


def existing(places: Places) -> list[Release]:
    """Every folder below releases/, the newest first, unfinished ones last."""
    found = [Release(p) for p in places.releases.iterdir() if p.is_dir()] if places.releases.is_dir() else []
    return sorted(found, key=lambda r: (-r.made_s(), r.name))


def release_for(places: Places, sources: Sources) -> Release:
    """Where these sources go: their own release if it was made, else VERSION, else VERSION and a part of the fingerprint."""
    version, fingerprint = sources.version, sources.fingerprint()
    for release in existing(places):
        if release.fingerprint() == fingerprint:
            return release
    plain = Release(places.releases / version)
    return plain if plain.fingerprint() is None else Release(places.releases / f"{version}+{fingerprint[:8]}")


def make(hands: Hands, release: Release, sources: Sources, wheelhouse: Path | None) -> None:
    """The environment, from the lock and by its hashes, the package, and what goes along. Raises CannotInstall."""
    hands.remove(release.path)
    hands.run(
        sys.executable, "-m", "venv", str(release.path), failing=f"cannot make {release.path}", hint=advice
    )  # fmt: skip
    source = ["--no-index", "--find-links", str(wheelhouse)] if wheelhouse else []
    locked = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(sources.root / LOCK)]
    _pip(hands, release, *source, *locked, failing=f"cannot install the libraries of {LOCK}")
    package = ["--no-index", "--no-deps", "--no-build-isolation", str(sources.root)]
    _pip(hands, release, *package, failing="cannot install edge-agent itself")
    for name in KEPT:
        hands.copy(sources.root / name, release.path / name)
    hands.copy(sources.root / "README.md", release.path / "docs/README.md")
    stamp = {"version": sources.version, "fingerprint": sources.fingerprint()}
    hands.write(release.path / STAMP, json.dumps(stamp).encode())


def _pip(hands: Hands, release: Release, *arguments: str, failing: str) -> None:
    # without its cache: nothing is left in root's home
    quiet = ("--disable-pip-version-check", "--no-cache-dir", "-q")
    hands.run(
        str(release.python), "-m", "pip", *quiet, "install", *arguments, failing=failing, hint=advice, timeout_s=PIP_S
    )  # fmt: skip


def prune(hands: Hands, places: Places, running: Release, *, keep: int = 2) -> None:
    """Keep the one that runs and the newest others, ``keep`` in all; unfinished ones go, too."""
    others = [release for release in existing(places) if release.path != running.path]
    whole = [release for release in others if release.fingerprint() is not None]
    for release in others:
        if release not in whole[: keep - 1]:
            hands.remove(release.path)
