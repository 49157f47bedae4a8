"""Fields of a JSON object that are known, and no others: what a newer or another program says more is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge_agent.bundle.cleaning import Cleaner


class Leaf:
    """What becomes of one value."""


NUMBER: Final = Leaf()
"""A number, true, false or null; anything else is left out."""
WORD: Final = Leaf()
"""A state, a code, a version, a time: a text that is cleaned all the same."""
HOW_MANY: Final = Leaf()
"""A list or an object, of which only the length is told."""

Shape = Leaf | Mapping[str, "Shape"] | tuple["Shape", ...]
"""An object by its keys, where ``*`` stands for any key that is a word; a list of one shape."""


def picked(value: Any, shape: Shape, cleaner: Cleaner) -> Any:
    """``value`` as far as it has this shape; null for what has another one."""
    if shape is HOW_MANY:
        return len(value) if isinstance(value, list | dict) else None
    if shape is NUMBER:
        return value if isinstance(value, bool | int | float) else None
    if shape is WORD:
        return cleaner.text(value) if isinstance(value, str) else picked(value, NUMBER, cleaner)
    if isinstance(shape, tuple):
        return [picked(item, shape[0], cleaner) for item in value] if isinstance(value, list) else None
    if not isinstance(shape, Mapping) or not isinstance(value, Mapping):
        return None
    if "*" in shape:
        return {cleaner.text(str(key)): picked(item, shape["*"], cleaner) for key, item in value.items()}
    return {key: picked(value[key], part, cleaner) for key, part in shape.items() if key in value}
