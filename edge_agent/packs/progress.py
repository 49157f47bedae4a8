"""The port through which a fetch tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Received = Callable[[int], None]
"""Called with the bytes received so far."""


class Progress(Protocol):
    """Where news of a fetch goes. Called from one thread; may not raise."""

    def line(self, text: str) -> None:
        """Take note of one finished step, in a sentence without a full stop."""

    def transfer(self, label: str, expected: int | None) -> AbstractContextManager[Received]:
        """Open a transfer of ``expected`` bytes (None: unknown); the context gives the function to feed."""
        ...


class Silent:
    """Tells nobody."""

    def line(self, text: str) -> None:
        del text

    def transfer(self, label: str, expected: int | None) -> AbstractContextManager[Received]:
        del label, expected
        return nullcontext(_ignore)


def _ignore(received: int) -> None:
    del received
