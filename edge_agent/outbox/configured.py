"""The outbox that the configuration names, opened."""

from __future__ import annotations

from edge_agent.config import Config
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.core import Listener
from edge_agent.outbox.records import Limits
from edge_agent.outbox.store import Store


def open_outbox(config: Config, *, clock: Clock, listener: Listener | None = None, adopt: bool = False) -> Store:
    """Open the store of ``config.state_dir``, the key read from its place now (it may have been mended meanwhile).

    Raises ConfigurationError (the key cannot be read or is none) and StorageError, see ``Store.open``.
    """
    previous = config.outbox.previous_key
    return Store.open(
        config.state_dir,
        config.outbox.key.read(),
        previous_key=None if previous is None else previous.read(),
        clock=clock,
        limits=Limits.of(config),
        listener=listener,
        adopt=adopt,
    )
