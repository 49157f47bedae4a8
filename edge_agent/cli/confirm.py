"""Asking before what cannot be undone."""

from __future__ import annotations

import sys

import click

from edge_agent.errors import ConfigurationError

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(what: str, *, yes: bool) -> None:
    """Return when ``what`` may be done; a no ends the command with exit code 1.

    Raises ConfigurationError (exit code 2) when nobody is there to be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"cannot {what} without being asked to: this is no terminal", code="not_confirmed", hint="add --yes"
        )
    if not click.confirm(f"{what[:1].upper()}{what[1:]}?", err=True):
        click.echo("nothing was changed", err=True)
        sys.exit(1)
