"""``edge-agent run``: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from pathlib import Path

import click

from edge_agent.cli.options import config_option
from edge_agent.config import Config
from edge_agent.errors import AgentError
from edge_agent.trial import Source, begin

SWITCH_S = 0.0005
"""A thread that computes lets the next one in after so long. The interpreter's own 5 ms would make the event loop wait
that long for camera, inference and store each time it has sent something."""


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the agent until it is told to stop (SIGTERM, or Ctrl-C).

    It starts and serves its API even without camera, models or network, and says what is missing (status).
    """
    config, source = begin(config_path)
    try:
        exit_code = _serve(config, source)
    except AgentError as exc:
        if source.trial is None or not source.trial.open:
            raise
        source.give_up(exc.message)  # the file's configuration ran before, and will again
        exit_code = _serve(*begin(config_path))
    if exit_code:
        logging.shutdown()
        os._exit(exit_code)  # sys.exit would wait for the thread that hangs in the camera's driver


def _serve(config: Config, source: Source) -> int:
    from edge_agent.vision.opening import open_ahead

    # Models load outside the interpreter's lock: they are nearly there when the rest has been imported.
    vision_factory = open_ahead(config.models)
    gc.disable()  # importing makes no garbage, and looking for it takes a twentieth of the start
    from edge_agent.daemon import serve
    from edge_agent.journal import setup_logging

    gc.enable()
    setup_logging(config.log)
    if source.trial is not None and source.trial.open:
        logging.getLogger(__name__).warning("this configuration is on trial: without a confirmation it is forgotten")
    sys.setswitchinterval(SWITCH_S)
    return asyncio.run(serve(config, source, vision_factory))
