"""The English texts for the customer, out of ``texts.json``: the one file a POS team translates. The codes are stable."""

from __future__ import annotations

import json
from importlib import resources

from edge_agent.types import GateCode

HOLD_ON = "hold_on"
"""The key of the text for no hint at all: all is well, the camera is looking."""


def _texts() -> dict[str, str]:
    """Key to text, in the order of the file."""
    text = resources.files("edge_agent").joinpath("texts.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    return found


TEXTS = _texts()


def hint_text(code: GateCode | None) -> str:
    """What to show the customer; None means that all is well."""
    return TEXTS[HOLD_ON if code is None else code.value]


def challenge_text(what: str) -> str:
    """What to show for a prompt of a challenge (``look``, ``turn_left``, ...), or once it is ``done``."""
    return TEXTS[f"challenge_{what}"]
