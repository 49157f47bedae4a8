"""The commented example is the configuration's defaults, whole."""

from __future__ import annotations

from edge_agent.config import Config, load
from tests.project.tree import ROOT

EXAMPLE = ROOT / "docs/config.example.yaml"
NOT_DEFAULTS = {"cypherface": {"base_url", "merchant_id", "api_key", "upload_hosts"}, "outbox": {"key"}}


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    shown = load(EXAMPLE).model_dump()
    defaults = Config.model_validate({"cypherface": shown["cypherface"]}).model_dump()
    for section, keys in NOT_DEFAULTS.items():
        for key in keys:
            del shown[section][key], defaults[section][key]
    assert shown == defaults


def test_the_example_names_every_section() -> None:
    text = EXAMPLE.read_text()
    missing = [name for name in Config.model_fields if f"\n{name}:" not in text]
    assert missing == []
