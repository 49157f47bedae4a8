"""What somebody was asked while a clip was filmed: told by a file beside it, or by its name.

- ``CLIP.prompts.yaml`` beside ``CLIP.mp4``: ``prompts: [{at_s: 2.0, turn: left}, {at_s: 5.5, turn: right}]``, seconds of
  the clip; or the order alone, ``prompts: [left, right]``;
- a name that ends with the order: ``anna-left-right.mp4``, ``07.right-left.mp4``.

Left and right are the own ones of the person filmed.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Final

import yaml

from edge_agent.challenge.turn import Side
from edge_agent.errors import InputError
from edge_agent.evaluate.turns import Challenge, EitherOrder, InOrder, Prompting, Timed, TurnRules

SUFFIX: Final = ".prompts.yaml"
_ORDER: Final = re.compile(r"(?:^|[-_. ])((?:left|right)(?:-(?:left|right))+)$")
_HINT: Final = "prompts: [{at_s: 2.0, turn: left}, {at_s: 5.5, turn: right}], or prompts: [left, right]"


def is_prompts(path: Path) -> bool:
    """True for a file that belongs to a clip."""
    return path.name.endswith(SUFFIX)


def challenge_of(clip: Path, rules: TurnRules) -> Challenge:
    """How the turns in this clip are to be judged. Raises InputError ``prompts_invalid``."""
    beside = clip.with_name(clip.stem + SUFFIX)
    if beside.exists():
        return _told(beside, rules)
    if named := _ORDER.search(clip.stem.lower()):
        return InOrder(rules.cue(), [Side(side) for side in named[1].split("-")], Prompting.ORDERED)
    return EitherOrder(rules)


def _told(path: Path, rules: TurnRules) -> Challenge:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        prompts = content["prompts"]
        if all(isinstance(prompt, str) for prompt in prompts):
            sides = [Side(side) for side in prompts]
        else:
            timed = [(float(prompt["at_s"]), Side(prompt["turn"])) for prompt in prompts]
            _check_times([at_s for at_s, _ in timed])
            sides = [side for _, side in timed]
            if len(set(sides)) > 1:
                return Timed(rules.cue(), timed)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as exc:
        raise _invalid(path, str(exc) if isinstance(exc, ValueError) else type(exc).__name__) from exc
    if len(set(sides)) < 2:
        raise _invalid(path, "a turn to both sides is needed")
    return InOrder(rules.cue(), sides, Prompting.ORDERED)


def _check_times(times_s: list[float]) -> None:
    if not all(0 <= earlier < later for earlier, later in pairwise(times_s)):
        raise ValueError("at_s must rise")


def _invalid(path: Path, why: str) -> InputError:
    return InputError(f"cannot use {path}: {why}", code="prompts_invalid", hint=_HINT)
