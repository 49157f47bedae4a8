"""The outbox: a durable, encrypted queue of verifications over SQLite. See ``Store``."""

from edge_agent.outbox.store import Store

__all__ = ["Store"]
