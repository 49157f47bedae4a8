"""``edge-agent simulate``: the terminal API for a POS team, without camera, models or network."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.simulator import outcomes

if TYPE_CHECKING:
    from edge_agent.simulator.run import Options
    from edge_agent.simulator.terminal import SimulatedAgent


@click.command()
@click.option(
    "--socket", type=click.Path(path_type=Path), help="Where to answer; default: in your run-time folder, printed."
)
@click.option("--tcp", metavar="ADDRESS:PORT", help="Answer on loopback TCP too; the bearer tokens are printed.")
@click.option("--default", "default", default="verified", show_default=True, help="Outcome of user ids that name none.")
@click.option(
    "--speed", type=click.FloatRange(0.1, 100), default=1.0, show_default=True, help="How much faster than life."
)
@click.option(
    "--lockout",
    type=click.Choice(["on", "off"]),
    default="off",
    show_default=True,
    help="Lock out after five failed verifications, as a real terminal does.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the state in this folder, over restarts; default: a temporary one, removed at the end.",
)
@click.option("--stop-with-stdin", is_flag=True, help="Also stop when the standard input ends, with the parent.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line on stdout when ready.")
@click.option("--outcomes", "show_outcomes", is_flag=True, help="List the outcomes, and leave.")
def simulate(
    socket: Path | None,
    tcp: str | None,
    default: str,
    speed: float,
    lockout: str,
    state_dir: Path | None,
    stop_with_stdin: bool,
    as_json: bool,
    show_outcomes: bool,
) -> None:
    """Answer the terminal API as a terminal would, with outcomes that the user id or a header chooses.

    THIS IS A SIMULATOR: nobody is verified. SIGTERM or Ctrl-C stops it.
    """
    if show_outcomes:
        click.echo(outcomes.table())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the loop takes it: the folder is removed
    chosen = outcomes.parse(default)
    gc.disable()  # importing makes no garbage, and looking for it takes a twentieth of the start
    from edge_agent.journal import setup_logging
    from edge_agent.simulator import run

    gc.enable()
    options = run.Options(socket or run.default_socket(), chosen, speed, lockout == "on", tcp)
    with run.state_folder(state_dir.absolute() if state_dir else None) as folder:
        config = run.configuration(folder, options)
        setup_logging(config.log)

        def ready(agent: SimulatedAgent) -> None:
            _announce(agent, options, state_dir, run.tokens(folder) if tcp is not None else {}, as_json=as_json)

        asyncio.run(run.serve(config, options, on_ready=ready, watch_stdin=stop_with_stdin))


def _announce(
    agent: SimulatedAgent, options: Options, state_dir: Path | None, tokens: dict[str, str], *, as_json: bool
) -> None:
    click.echo(_banner(options, state_dir), err=True)
    for role, token in tokens.items():
        click.echo(f"  {role:<10} http://{options.tcp}  Authorization: Bearer {token}", err=True)
    if as_json:
        ready = {
            "event": "ready",
            "simulator": True,
            "ready": agent.ready,
            "socket": str(options.socket),
            "tcp": options.tcp,
            "tokens": tokens,
            "default": str(options.default),
            "speed": options.speed,
            "lockout": options.lockout,
            "state_dir": str(state_dir.absolute()) if state_dir else None,
        }
        click.echo(json.dumps(ready))
    sys.stdout.flush()


def _banner(options: Options, state_dir: Path | None) -> str:
    return "\n".join(
        (
            "*** SIMULATOR: nobody is filmed, nobody is verified. Never point a till in production at it. ***",
            f"  socket     {options.socket}",
            f"  outcome    by user id, such as rejected:too_dark, or by the header X-Simulate; else {options.default}",
            f"  lock-out   {'on' if options.lockout else 'off'}; speed {options.speed:g}",
            f"  state      {state_dir or 'temporary, removed at the end'}",
            f"  try        edge-agent verify --socket {options.socket} rejected:too_dark",
        )
    )
