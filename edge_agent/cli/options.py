"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from edge_agent.config import Config, load

DEFAULT_CONFIG = Path("/etc/edge-agent/config.yaml")

models_dir_option = click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EDGE_AGENT_MODELS_DIR",
    help="Where the model files are.",
)

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="EDGE_AGENT_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file.",
)


def load_config(path: Path) -> Config:
    """The checked configuration. Raises ConfigurationError (exit code 2)."""
    return load(path)
