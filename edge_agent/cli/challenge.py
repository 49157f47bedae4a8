"""The options of the commands that measure the head turn challenge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_agent.evaluate.turns import TurnRules

Command = Callable[..., Any]

_challenge = click.option(
    "--challenge", type=click.Choice(["head_turn"]), help="Judge the turns of the head as well (docs/challenge.md)."
)
_threshold = click.option(
    "--turn-threshold",
    type=click.FloatRange(0.10, 0.15),
    default=0.12,
    show_default=True,
    help="How far the nose has to move against the face's plane, eye distances.",
)
_mirrored = click.option("--mirrored", is_flag=True, help="The pictures are mirror images.")


def challenge_options(command: Command) -> Command:
    """``challenge``, ``turn_threshold`` and ``mirrored``."""
    for option in (_mirrored, _threshold, _challenge):
        command = option(command)
    return command


def turn_rules(challenge: str | None, threshold: float, *, mirrored: bool) -> TurnRules | None:
    """None without ``--challenge``."""
    from edge_agent.evaluate.turns import TurnRules

    return None if challenge is None else TurnRules(threshold, mirrored)
