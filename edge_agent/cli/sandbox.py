"""``edge-agent sandbox``: CypherFace's merchant API on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from pydantic import ValidationError

from edge_agent.cli.options import models_dir_option
from edge_agent.errors import ConfigurationError
from edge_agent.sandbox.control import changed, problems
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.matcher import RuleMatcher
from edge_agent.sandbox.runtime import DEFAULT_API_KEY, DEFAULT_MERCHANT_ID, Credentials, Sandbox
from edge_agent.sandbox.server import bind, serve, url_of
from edge_agent.sandbox.variants import Variants

if TYPE_CHECKING:
    from edge_agent.sandbox.matcher import Matcher


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; others are refused.")
@click.option("--port", type=click.IntRange(0, 65535), default=8799, show_default=True, help="0 takes a free port.")
@click.option(
    "--state",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep enrolments, pictures and judgements in this folder, in the clear; default: in memory.",
)
@click.option(
    "--matcher",
    "matcher_name",
    type=click.Choice(["faces", "rule"]),
    default="faces",
    show_default=True,
    help="faces compares real faces; rule needs no models: user ids with 'no-' never match.",
)
@click.option("--pack", default="open", show_default=True, help="Model pack of the matcher faces.")
@models_dir_option
@click.option("--merchant-id", default=DEFAULT_MERCHANT_ID, show_default=True)
@click.option("--api-key", default=DEFAULT_API_KEY, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Choose a variant; see --variants.")
@click.option("--fault", "faults", multiple=True, metavar="JSON", help='For example {"step": "match", "kind": "hang"}.')
@click.option("--variants", "show_variants", is_flag=True, help="List the variants and the faults, and leave.")
def sandbox(
    host: str,
    port: int,
    folder: Path | None,
    matcher_name: str,
    pack: str,
    models_dir: Path | None,
    merchant_id: str,
    api_key: str,
    settings: tuple[str, ...],
    faults: tuple[str, ...],
    show_variants: bool,
) -> None:
    """Serve CypherFace's merchant API on loopback, for demos, tests and trying things out.

    Prints one JSON line on stdout when it is ready and logs to stderr; the guide is at /docs. SIGTERM stops it.
    """
    credentials = Credentials(merchant_id, api_key)
    if show_variants:
        from edge_agent.sandbox import guide

        click.echo(guide.text(f"http://{host}:{port}", credentials))
        return
    variants, queue = _variants(settings), [_fault(text) for text in faults]
    listener = bind(host, port)
    with listener:
        matcher = _matcher(matcher_name, pack, models_dir)
        served = Sandbox(matcher, credentials, variants, folder=folder)
        for fault in queue:
            served.faults.add(fault)
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        base_url = url_of(listener)
        asyncio.run(serve(served, listener, lambda: _announce(base_url, served)))


def _announce(base_url: str, served: Sandbox) -> None:
    ready = {
        "event": "ready",
        "base_url": base_url,
        "upload_host": base_url.removeprefix("http://").rstrip("/"),
        "merchant_id": served.credentials.merchant_id,
        "matcher": served.matcher.name,
        "docs": f"{base_url}docs",
    }
    click.echo(json.dumps(ready))
    sys.stdout.flush()


def _matcher(name: str, pack: str, models_dir: Path | None) -> Matcher:
    if name == "rule":
        return RuleMatcher()
    from edge_agent.packs.folder import default_models_dir
    from edge_agent.sandbox.face_matcher import open_face_matcher

    return open_face_matcher(pack, models_dir or default_models_dir())


def _variants(settings: tuple[str, ...]) -> Variants:
    """The defaults with ``NAME=VALUE`` applied; a value is read as YAML. Raises ConfigurationError."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigurationError(f"cannot use --set {setting}: write NAME=VALUE")
        changes[name.strip()] = _value(value, setting)
    try:
        return changed(Variants(), changes)
    except ValidationError as exc:
        raise ConfigurationError(
            f"cannot use these variants: {problems(exc)}", hint="edge-agent sandbox --variants lists them"
        ) from exc


def _value(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigurationError(f"cannot use --set {setting}: the value is not valid YAML") from exc


def _fault(text: str) -> Fault:
    """Raises ConfigurationError."""
    try:
        return Fault.model_validate_json(text)
    except ValidationError as exc:
        raise ConfigurationError(
            f"cannot use the fault {text}: {problems(exc)}", hint="edge-agent sandbox --variants lists them"
        ) from exc
