"""Where model files are kept when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.errors import ConfigurationError
from edge_agent.packs.folder import default_models_dir

CONFIG = """
models: {dir: /srv/models}
cypherface:
  base_url: https://staging.cypherface.com/
  merchant_id: 0123456789abcdef01234567
  api_key: {env: KEY}
  upload_hosts: [bucket.example]
"""


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ordinary user without any setting."""
    for name in ("EDGE_AGENT_MODELS_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_AGENT_MODELS_DIR", "/mnt/models")
    assert default_models_dir(tmp_path / "never-read.yaml") == Path("/mnt/models")


def test_then_the_configuration_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    assert default_models_dir(path) == Path("/srv/models")


def test_a_configuration_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        default_models_dir(tmp_path / "absent.yaml")


def test_then_the_systems_folder_where_it_is(tmp_path: Path) -> None:
    assert default_models_dir(system_dir=tmp_path) == tmp_path


def test_root_can_make_the_systems_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_models_dir(system_dir=tmp_path / "absent") == tmp_path / "absent"


@pytest.mark.parametrize(
    ("data_home", "expected"), [(None, "home/.local/share/edge-agent/models"), ("data", "data/edge-agent/models")]
)
def test_anybody_else_gets_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_home: str | None, expected: str
) -> None:
    if data_home:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / data_home))
    assert default_models_dir(system_dir=tmp_path / "absent") == tmp_path / expected
