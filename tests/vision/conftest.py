"""Fixtures for vision: real pictures and packs of the shared assets, and the pipeline of the default pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.types import Image
from edge_agent.vision.opening import open_pipeline
from edge_agent.vision.pipeline import Pipeline

Picture = Callable[[str], Image]


@pytest.fixture(scope="session")
def picture(assets: Path) -> Picture:
    """Reads one of the shared pictures by its file name."""
    return lambda name: read_picture(assets / "images" / name)


@pytest.fixture(scope="session")
def portraits(assets: Path) -> list[str]:
    """File names of the shared pictures that show one bona fide face."""
    media = json.loads((assets / "manifest.json").read_text())["media"]
    names = [Path(item["file"]).name for item in media if item["file"].startswith("images/")]
    return [name for name in names if name.startswith(("id_", "single_", "live_")) and "painting" not in name]


@pytest.fixture(scope="session")
def models_dir(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verified files of all packs that the assets hold."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("open", "open-lite", "scrfd-minifas"):
        fetch_pack(load_pack(name), folder, from_path=assets / "models")
    return folder


@pytest.fixture(scope="session")
def open_pack(open_pack_dir: Path) -> Pipeline:
    return open_pipeline(load_pack("open"), open_pack_dir)
