"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def assets() -> Path:
    """The shared test assets (real models, faces and clips); the test is skipped where they are absent."""
    folder = Path(os.environ.get("EDGE_AGENT_ASSETS", ROOT / "../shared/assets")).resolve()
    if not (folder / "manifest.json").is_file():
        pytest.skip("the shared test assets are not on this machine (EDGE_AGENT_ASSETS)")
    return folder
