"""Finds thousands of words in megabytes of text, in one pass: a terminal may know as many users."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

WHOLE_WORD = 8
"""A word that is shorter than this is found where it stands alone, a longer one inside of words too."""

_NONE: dict[int, set[str]] = {}
_BEGINNING = re.compile(r"(?<![^\W_])(?=.)", re.DOTALL)
"""A place behind anything but a letter or digit."""


class Words:
    """The words to look for, in letters of either case."""

    def __init__(self, words: Iterable[str]) -> None:
        self._long: dict[str, dict[int, set[str]]] = {}
        self._short: dict[int, set[str]] = defaultdict(set)
        for word in {_lower(word) for word in words if word}:
            if len(word) < WHOLE_WORD:
                self._short[len(word)].add(word)
            else:
                lengths = self._long.setdefault(word[:WHOLE_WORD], {})
                lengths.setdefault(len(word), set()).add(word)

    def without(self, text: str, instead: str) -> str:
        """The text with ``instead`` in the place of each."""
        parts: list[str] = []
        done = 0
        for start, end in self.found(text):
            parts += [text[done:start], instead]
            done = end
        return "".join((*parts, text[done:])) if parts else text

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each, none inside of another; the longest that begins at a place."""
        lower, done = _lower(text), 0
        for start in self._candidates(lower):
            end = self._end(lower, start) if start >= done else 0
            if end:
                yield start, end
                done = end

    def _candidates(self, text: str) -> list[int]:
        """Where a word may begin: few places, found with little work each."""
        long, short = self._long, self._short
        found = [at for at in range(len(text)) if text[at : at + WHOLE_WORD] in long] if long else []
        return sorted({*found, *(match.start() for match in _BEGINNING.finditer(text))}) if short else found

    def _end(self, text: str, at: int) -> int:
        """Where the word ends that begins here; 0 for none."""
        lengths = self._long.get(text[at : at + WHOLE_WORD], _NONE)
        for length in sorted(lengths, reverse=True):
            if text[at : at + length] in lengths[length]:
                return at + length
        if self._short and (at == 0 or not text[at - 1].isalnum()):
            for length in sorted(self._short, reverse=True):
                end = at + length
                if text[at:end] in self._short[length] and not text[end : end + 1].isalnum():
                    return end
        return 0


def _lower(text: str) -> str:
    """Places must stay what they are: a few letters become two when they are lowered."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
