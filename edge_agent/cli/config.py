"""``edge-agent config``: check, show and replace the configuration, and its schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from edge_agent.cli.apply import apply, confirm
from edge_agent.cli.options import config_option, load_config
from edge_agent.config import Config, InvalidConfiguration, Problem, lines_of
from edge_agent.errors import AgentError
from edge_agent.reload import is_section, leaves

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.group()
def config() -> None:
    """Check, show and replace the configuration."""


config.add_command(apply)
config.add_command(confirm)


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object: ok, problems with line, column, key and hint.")
def check(file: Path | None, config_path: Path, as_json: bool) -> None:
    """Check the whole file (FILE, or that of --config); every problem with its line. Exit code 2 when there is one."""
    config_path = file or config_path
    try:
        _check_pack(load_config(config_path), config_path)
    except InvalidConfiguration as exc:
        if not as_json:
            raise
        problems = [
            {"line": p.line, "column": p.column, "key": p.key, "message": p.message, "hint": p.hint}
            for p in exc.problems
        ]
        click.echo(json.dumps({"ok": False, "file": str(config_path), "problems": problems}))
        click.get_current_context().exit(exc.exit_code)
    click.echo(
        json.dumps({"ok": True, "file": str(config_path), "problems": []}) if as_json else f"{config_path}: fine"
    )


def _check_pack(config: Config, path: Path) -> None:
    """Raises InvalidConfiguration for a pack that there is not, and where the policy ``provisional`` would refuse to
    start: no threshold that counts.
    """
    from edge_agent.offline.threshold import yardstick
    from edge_agent.packs.manifest import load_pack

    key = "models.pack"
    try:
        pack = load_pack(config.models.pack)
        if config.offline.policy == "provisional":
            key = "offline.policy"
            yardstick(config.offline.face_threshold, pack)
    except AgentError as exc:
        line = lines_of(path).get(key, 1)
        raise InvalidConfiguration(str(path), [Problem(line, 1, key, exc.message, exc.hint)]) from exc


@config.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object: each key with its value and origin.")
def show(config_path: Path, as_json: bool) -> None:
    """Print the effective configuration, each value with where it is from; secrets are references and stay so."""
    effective = load_config(config_path).model_dump(mode="json")
    lines = lines_of(config_path)
    if as_json:
        found = {key: {"value": value, "line": lines.get(key)} for key, value in leaves(effective)}
        click.echo(json.dumps(found))
        return
    for line, origin in _listing(effective, lines):
        click.echo(f"{line:<60}  # {origin}" if origin else line)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file: an editor then completes keys and underlines mistakes."""
    described: dict[str, Any] = {"$schema": SCHEMA_DIALECT, **Config.model_json_schema()}
    click.echo(json.dumps(described, indent=2))


def _listing(values: dict[str, Any], lines: dict[str, int], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """YAML lines that can be pasted into a file, each leaf with its origin."""
    indent = "  " * prefix.count(".")
    for name, value in values.items():
        key = f"{prefix}{name}"
        if is_section(value):
            yield f"{indent}{name}:", None
            yield from _listing(value, lines, f"{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
            yield f"{indent}{name}: {text}", f"line {lines[key]}" if key in lines else "default"
