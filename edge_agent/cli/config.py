"""``edge-agent config``: check and show the configuration."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from edge_agent.cli.options import config_option, load_config


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@config_option
def check(config_path: Path) -> None:
    """Check the whole file; every problem with its line. Exit code 2 when there is one."""
    load_config(config_path)
    click.echo(f"{config_path}: fine")


@config.command()
@config_option
def show(config_path: Path) -> None:
    """Print the effective configuration, defaults included; secrets are references and stay so."""
    effective = load_config(config_path).model_dump(mode="json", exclude_none=True)
    click.echo(yaml.safe_dump(effective, sort_keys=False), nl=False)
