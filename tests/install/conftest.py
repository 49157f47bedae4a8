"""A machine with nothing on it, and somebody to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.installer.release import Sources
from tests.install.stage import Machine, Technician, sources_of


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return sources_of(tmp_path / "sources", "1.0.0")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "machine").mkdir()
    return Machine(tmp_path / "machine")


@pytest.fixture
def bare(machine: Machine, sources: Sources) -> Technician:
    """Nobody brought a configuration or an API key."""
    return Technician(machine, sources)


@pytest.fixture
def technician(machine: Machine, sources: Sources, tmp_path: Path) -> Technician:
    """Everything that a first installation needs."""
    found = Technician(machine, sources)
    (tmp_path / "config.yaml").write_text("terminal_id: pos-7\n")
    (tmp_path / "key").write_text("secret\n")
    found.install(config=tmp_path / "config.yaml", api_key=tmp_path / "key")
    return found
