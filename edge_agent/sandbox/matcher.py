"""How the sandbox decides whether two pictures show the same person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge_agent.sandbox.state import Outcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """``similarity`` is 0-100 and None when a face is missing."""

    outcome: Outcome
    similarity: float | None


class Matcher(Protocol):
    """Compares a target with an enrolled source. Called in one worker thread; may take long."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def usable(self, picture: bytes) -> bool:
        """Whether the picture can be enrolled: it can be read and shows a face."""
        ...

    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        """The verdict for a target; bytes that are no picture are ``no_face``, never an exception."""
        ...


class RuleMatcher:
    """Decides by the user id alone, without models: for tests in which the pictures may be any bytes.

    ``no-…`` never matches, ``noface-…`` shows no face, everybody else matches.
    """

    name = "rule"

    def usable(self, picture: bytes) -> bool:
        return bool(picture)

    def compare(self, user_id: str, source: bytes, target: bytes) -> Comparison:
        del source, target
        if user_id.startswith("noface-"):
            return Comparison("no_face", None)
        if user_id.startswith("no-"):
            return Comparison("mismatch", 12.5)
        return Comparison("match", 99.5)
