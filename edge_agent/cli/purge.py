"""``edge-agent purge --all``: a terminal is taken out of service."""

from __future__ import annotations

import json
import os
import sys
import syslog
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.confirm import yes_option
from edge_agent.cli.options import config_option, load_config
from edge_agent.cli.outbox import as_json_option
from edge_agent.cli.tables import size
from edge_agent.errors import ConfigurationError, EnvironmentFault

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.decommission import Destroyed, Inventory

BEYOND = (
    "not reached: what the flash of this device keeps of old blocks, backups, the journal, and what CypherFace holds"
)


@click.command()
@click.option("--all", "all_", is_flag=True, help="Required, so that nobody does it by mistake.")
@yes_option
@config_option
@as_json_option
def purge(all_: bool, yes: bool, config_path: Path, as_json: bool) -> None:
    """Take this terminal out of service: destroy its keys, its credentials and everything in its state directory.

    Stop the service first. Can be repeated until it succeeds. For one user: privacy delete; for captures: outbox purge.
    """
    from edge_agent import decommission
    from edge_agent.outbox.clock import SystemClock

    if not all_:
        raise click.UsageError("say --all: it destroys everything that this terminal holds")
    config = load_config(config_path)
    _refuse_while_running(config)
    inventory = decommission.take_inventory(config, config_path.absolute(), SystemClock())
    _confirm(config.terminal_id, inventory, yes=yes)
    done = decommission.purge(inventory)
    _tell(config.terminal_id, inventory, done, as_json=as_json)
    sys.exit(1 if done.left else 0)


def _refuse_while_running(config: Config) -> None:
    """Also an agent that is degraded, and so does not hold the directory."""
    from edge_agent.cli.access import answers

    if answers(config.api.socket):
        raise EnvironmentFault(
            f"cannot purge: an agent answers at {config.api.socket}",
            code="agent_running",
            hint="systemctl disable --now edge-agent edge-agent-maintenance.timer, then this again",
        )


def _confirm(terminal_id: str, inventory: Inventory, *, yes: bool) -> None:
    for line in _plan(inventory):
        click.echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "cannot purge without being asked to: this is no terminal", code="not_confirmed", hint="add --yes"
        )
    if click.prompt(f"Type {terminal_id} to destroy all of it for good", err=True) != terminal_id:
        click.echo("nothing was changed", err=True)
        sys.exit(1)


def _plan(inventory: Inventory) -> list[str]:
    paths = [str(path) for secret in inventory.secrets for path in secret.paths]
    missing = [secret for secret in inventory.secrets if secret.within_reach and not secret.paths]
    return [
        f"{inventory.state_dir}: {inventory.files} files, {size(inventory.bytes)}",
        *(f"{path}: a secret" for path in paths),
        *(f"{secret.key}: {secret.reference} was not found; if the unit has it from elsewhere, remove it there"
          for secret in missing),
    ]  # fmt: skip


def _tell(terminal_id: str, inventory: Inventory, done: Destroyed, *, as_json: bool) -> None:
    """The record of the destruction: nothing of the terminal is left to hold it."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    line = (
        f"purged terminal {terminal_id} at {at} by uid:{os.geteuid()}: {done.files} files ({size(done.bytes)}) in "
        f"{inventory.state_dir}; secrets: {', '.join(done.secrets) or 'none'}; audit head {inventory.audit_head or 'none'}"
    )
    syslog.openlog("edge-agent")
    syslog.syslog(syslog.LOG_NOTICE, line)
    facts = {"terminal_id": terminal_id, "at": at, "state_dir": str(inventory.state_dir), **asdict(done)}
    click.echo(json.dumps({**facts, "audit_head": inventory.audit_head}) if as_json else line)
    for left in done.left:
        click.echo(f"left: {left}", err=True)
    click.echo(BEYOND, err=True)
