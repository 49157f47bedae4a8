"""What the installer says when it cannot go on."""

from __future__ import annotations

UNHEALTHY, USAGE, ENVIRONMENT = 1, 2, 3
"""Exit codes; the first line of scripts/install tells what each means."""


class CannotInstall(Exception):
    """What could not be done and why, and what to try."""

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = ENVIRONMENT) -> None:
        super().__init__(message)
        self.message, self.hint, self.exit_code = message, hint, exit_code
