"""``edge-agent run``: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import click

from edge_agent.cli.options import config_option, load_config


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the agent until it is told to stop (SIGTERM, or Ctrl-C).

    It starts and serves its API even without camera, models or network, and says what is missing (status).
    """
    config = load_config(config_path)
    from edge_agent.vision.opening import open_ahead

    # Models load outside the interpreter's lock: they are nearly there when the rest has been imported.
    vision_factory = open_ahead(config.models)
    gc.disable()  # importing makes no garbage, and looking for it takes a twentieth of the start
    from edge_agent.daemon import serve, setup_logging

    gc.enable()
    setup_logging(config.log)
    asyncio.run(serve(config, vision_factory))
