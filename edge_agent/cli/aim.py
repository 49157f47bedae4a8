"""``edge-agent aim``: the live picture on a page, to mount the camera and the light by."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import config_option, load_config
from edge_agent.cli.stopped import agent_stopped
from edge_agent.cli.verify import socket_option
from edge_agent.errors import EnvironmentFault

if TYPE_CHECKING:
    from socket import socket as Listener  # noqa: N812 - an option is called socket

    from edge_agent.aim.show import Ended
    from edge_agent.aim.sources import Source

EXIT_CODES = dict.fromkeys(("verification", "enrolment", "check", "agent"), 1) | dict.fromkeys(
    ("left", "stopping", "failed", "not_read"), 3
)
"""By the reason for the end; 0 for what a person or the time did."""
RUNS_HINT = "give its socket with --socket, or: sudo systemctl stop edge-agent"
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""A broken SSH connection and Ctrl-Z too: a process that stands still would keep the camera."""


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8473, show_default=True, help="On 127.0.0.1; 0 = any.")
@click.option(
    "--minutes", type=click.FloatRange(0.1, 60), default=10, show_default=True, help="It ends by itself after this."
)
@socket_option
@config_option
def aim(port: int, minutes: float, socket: Path | None, config_path: Path) -> None:
    """Show what the camera sees and what the gate makes of it on a page, to mount camera and light by.

    The page is on this machine's loopback address: reach it through SSH as printed. The link opens once, in one
    browser. The camera is on while the page is open, and gives way at once to a verification. Nothing is stored.

    Exit code 0 when you or the time ended it, 1 when somebody else has or needs the camera, 2 for a mistake in the
    configuration, 3 when the camera, the port or the agent cannot be used.
    """
    from edge_agent.aim.sources import FromAgent, agent_answers

    where = socket or load_config(config_path).api.socket
    source: Source = FromAgent(where) if agent_answers(where) else _own_camera(config_path)
    end = asyncio.run(_aim(source, port, minutes))
    click.echo(f"off: {end.text}", err=True)
    sys.exit(EXIT_CODES.get(end.reason, 0))


def _own_camera(config_path: Path) -> Source:
    """Asked now for who calls it, and again when the page opens: a daemon may have started in between.

    The lock is let go at once, because the camera is the agent's as soon as one starts.
    """
    from edge_agent.aim.sources import OwnCamera

    config = load_config(config_path)

    def may_film() -> None:
        with agent_stopped(config, "open the camera", RUNS_HINT):
            pass

    may_film()
    return OwnCamera(config, may_film=may_film)


async def _aim(source: Source, port: int, minutes: float) -> Ended:
    import platform

    from edge_agent.aim.door import Door
    from edge_agent.aim.server import serve
    from edge_agent.aim.show import Show

    show, door = Show(minutes * 60), Door()
    loop = asyncio.get_running_loop()
    for number in ENDS:
        loop.add_signal_handler(number, show.stop.set)
    listener = _listen(port)
    with listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        _say(source, address, door.token, minutes)
        return await serve(source, listener, show, door, platform.node())


def _listen(port: int) -> Listener:
    from edge_agent.listening import bind_tcp

    try:
        return bind_tcp(f"127.0.0.1:{port}")
    except EnvironmentFault as exc:
        exc.hint = "another program may have the port: try --port 0"
        raise


def _say(source: Source, address: str, token: str, minutes: float) -> None:
    port = address.rpartition(":")[2]
    click.echo(
        f"the live picture of {source.description}\n"
        f"  from elsewhere  ssh -L {port}:{address} USER@THIS-TERMINAL   (leave it open)\n"
        f"  then open, once and in one browser, the link below. It ends after {minutes:g} min, with the page, or with Ctrl-C.",
        err=True,
    )
    click.echo(f"http://{address}/?token={token}")
    sys.stdout.flush()
