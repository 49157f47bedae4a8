"""The command line: ``edge-agent``. Each command lives in a module of its own and is imported only when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from edge_agent import __version__
from edge_agent.errors import AgentError

COMMANDS = {
    "models": ("edge_agent.cli.models", "models"),
    "screen": ("edge_agent.cli.screen", "screen"),
    "sandbox": ("edge_agent.cli.sandbox", "sandbox"),
    "run": ("edge_agent.cli.run", "run"),
    "verify": ("edge_agent.cli.verify", "verify"),
    "status": ("edge_agent.cli.verify", "status"),
    "doctor": ("edge_agent.cli.doctor", "doctor"),
    "bundle": ("edge_agent.cli.bundle", "bundle"),
    "simulate": ("edge_agent.cli.simulate", "simulate"),
    "demo": ("edge_agent.cli.demo", "demo"),
    "aim": ("edge_agent.cli.aim", "aim"),
    "config": ("edge_agent.cli.config", "config"),
    "evaluate": ("edge_agent.cli.evaluate", "evaluate"),
    "calibrate": ("edge_agent.cli.calibrate", "calibrate"),
    "bench": ("edge_agent.cli.bench", "bench"),
    "outbox": ("edge_agent.cli.outbox", "outbox"),
    "audit": ("edge_agent.cli.proof", "audit"),
    "key": ("edge_agent.cli.proof", "key"),
    "adopt": ("edge_agent.cli.proof", "adopt"),
    "privacy": ("edge_agent.cli.privacy", "privacy"),
    "purge": ("edge_agent.cli.purge", "purge"),
}


class LazyGroup(click.Group):
    """Imports a command's module only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{name} is not a command")
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-agent")
def cli() -> None:
    """Pre-screen faces on the device, forward the best capture to CypherFace, answer the POS fail-closed.

    Exit codes: 0 fine, 1 negative result, 2 usage or configuration, 3 environment (camera, model, network).
    """


def report(error: AgentError) -> None:
    """Print an error for a person, on stderr."""
    click.echo(f"edge-agent: {error.message}", err=True)
    if error.hint:
        click.echo(f"  try: {error.hint}", err=True)


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        cli.main(prog_name="edge-agent", standalone_mode=True)
    except AgentError as exc:
        report(exc)
        sys.exit(exc.exit_code)
