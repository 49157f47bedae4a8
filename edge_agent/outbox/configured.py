"""The outbox that the configuration names, opened or salvaged."""

from __future__ import annotations

from pathlib import Path

from edge_agent.config import Config
from edge_agent.errors import ConfigurationError
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.core import Listener
from edge_agent.outbox.database import DATABASE_FILE
from edge_agent.outbox.records import Limits, SalvageReport
from edge_agent.outbox.salvage import salvage
from edge_agent.outbox.store import Store

PUT_BACK = "put back the key that this queue was made with; never make a new one (docs/runbook.md)"


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


def read_device_key(config: Config) -> bytes:
    """The secret that the configuration names. Raises ConfigurationError; over a queue a lost key must come back."""
    try:
        return config.outbox.key.read()
    except ConfigurationError as exc:
        if _is_lost(exc) and _has_queue(config.state_dir):
            exc.hint = PUT_BACK
        raise


def _is_lost(error: ConfigurationError) -> bool:
    """The file is not there, or empty; not one that this user may not read, or that systemd did not pass."""
    return error.code == "secret_missing" and (isinstance(error.__cause__, FileNotFoundError) or error.hint is None)


def _has_queue(state_dir: Path) -> bool:
    try:
        return (state_dir / DATABASE_FILE).exists()
    except OSError:
        return False  # whoever may not look there cannot be told


def _keys(config: Config) -> tuple[bytes, bytes | None]:
    previous = config.outbox.previous_key
    return read_device_key(config), None if previous is None else previous.read()
