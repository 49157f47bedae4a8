"""Commands that take the camera themselves do so only where no daemon has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_agent.errors import EnvironmentFault, StorageError

if TYPE_CHECKING:
    from edge_agent.config import Config


@contextmanager
def agent_stopped(config: Config, doing: str, hint: str) -> Iterator[None]:
    """Holds the daemon's lock, so that it neither has the camera nor takes it in between.

    Raises EnvironmentFault "cannot ``doing``": ``agent_running`` with ``hint``, or when that cannot be seen.
    """
    from edge_agent.outbox.database import LOCK_FILE, StateLock

    lock = None
    try:
        if (config.state_dir / LOCK_FILE).exists():
            lock = StateLock(config.state_dir)
    except StorageError as exc:
        raise EnvironmentFault(
            f"cannot {doing}: the agent runs, and only one process can have the camera",
            code="agent_running",
            hint=hint,
        ) from exc
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot {doing}: whether the agent runs cannot be seen in {config.state_dir}: {exc.strerror}",
            hint="call it as root or as the daemon's user",
        ) from exc
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
