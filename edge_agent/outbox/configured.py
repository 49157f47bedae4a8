"""The outbox that the configuration names, opened or salvaged."""

from __future__ import annotations

from edge_agent.config import Config
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.core import Listener
from edge_agent.outbox.records import Limits, SalvageReport
from edge_agent.outbox.salvage import salvage
from edge_agent.outbox.store import Store


def open_outbox(config: Config, *, clock: Clock, listener: Listener | None = None, adopt: bool = False) -> Store:
    """Open the store of ``config.state_dir``, the key read from its place now (it may have been mended meanwhile).

    Raises ConfigurationError (the key cannot be read or is none) and StorageError, see ``Store.open``.
    """
    key, previous_key = _keys(config)
    return Store.open(
        config.state_dir,
        key,
        previous_key=previous_key,
        clock=clock,
        limits=Limits.of(config),
        listener=listener,
        adopt=adopt,
    )


def salvage_outbox(config: Config, *, clock: Clock) -> SalvageReport:
    """Rebuild a corrupt store of ``config.state_dir``, which must be closed. Raises as ``salvage``."""
    key, previous_key = _keys(config)
    return salvage(config.state_dir, key, previous_key=previous_key, clock=clock, limits=Limits.of(config))


def _keys(config: Config) -> tuple[bytes, bytes | None]:
    previous = config.outbox.previous_key
    return config.outbox.key.read(), None if previous is None else previous.read()
