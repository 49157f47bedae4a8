"""The options of the commands that measure the head turn challenge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_agent.config import LivenessSection
    from edge_agent.evaluate.turns import TurnRules

Command = Callable[..., Any]

_challenge = click.option(
    "--challenge", type=click.Choice(["head_turn"]), help="Judge the turns of the head as well (docs/challenge.md)."
)
_threshold = click.option(
    "--turn-threshold",
    type=click.FloatRange(0.10, 0.15),
    help="How far the nose has to move against the face's plane, eye distances.  [default: liveness.turn_threshold]",
)
_mirrored = click.option(
    "--mirrored/--not-mirrored",
    default=None,
    help="Whether the pictures are mirror images.  [default: liveness.mirrored]",
)


def challenge_options(command: Command) -> Command:
    """``challenge``, ``turn_threshold`` and ``mirrored``."""
    for option in (_mirrored, _threshold, _challenge):
        command = option(command)
    return command


def turn_rules(
    challenge: str | None, threshold: float | None, mirrored: bool | None, configured: LivenessSection
) -> TurnRules | None:
    """None without ``--challenge``; what no option says is as ``configured``."""
    from edge_agent.evaluate.turns import TurnRules

    if challenge is None:
        return None
    return TurnRules(
        configured.turn_threshold if threshold is None else threshold,
        configured.mirrored if mirrored is None else mirrored,
    )
