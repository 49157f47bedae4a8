"""How the agent is: in words for the service manager, in figures for the status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from edge_agent.availability import ForwarderStatus
from edge_agent.config import OfflineSection
from edge_agent.errors import AgentError
from edge_agent.offline.provisional import Provisional
from edge_agent.outbox.store import Store
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import JsonObject


def in_words(faults: Mapping[str, AgentError], forwarder: ForwarderStatus | None, *, searching: bool) -> str:
    """One line for a started agent: what is missing, or what it does."""
    if faults:
        return "degraded: " + ", ".join(f"{part} ({error.code})" for part, error in sorted(faults.items()))
    doing = "verifying" if searching else "ready"
    return f"{doing}; CypherFace {forwarder.network if forwarder is not None else 'unknown'}"


async def outbox(keeper: Storekeeper) -> tuple[JsonObject, JsonObject]:
    """The queue (depth, age, how many verifications are in which state) and the storage, as of one moment.

    Raises AgentError.
    """
    queue, storage = await keeper.run(lambda store: (_queue(store), _storage(store)))
    salvaged = keeper.salvaged
    return queue, {
        **storage,
        "reopened": keeper.reopened,
        "salvaged": salvaged and {"kept": salvaged.captures_kept, "lost": list(salvaged.captures_lost)},
    }


def _queue(store: Store) -> JsonObject:
    stats = store.queue()
    return {
        "depth": stats.depth,
        "parked": stats.parked,
        "bytes": stats.payload_bytes,
        "oldest_age_s": stats.oldest_age_s,
        "states": {state.value: count for state, count in store.counts().items()},
    }


def _storage(store: Store) -> JsonObject:
    """Whether the outbox has room, and how its keys and its audit stand."""
    space = store.space()
    return {
        "free_bytes": space.free_bytes,
        "reserve_bytes": space.reserve_bytes,
        "takes_captures": space.takes_captures,
        "problem": space.problem,
        "rotation": store.rotation.value,
        "audit_head": str(store.audit_head()),
    }


async def offline(keeper: Storekeeper, settings: OfflineSection, provisional: Provisional) -> JsonObject:
    """What is remembered of CypherFace, and how provisional answers stand. Raises AgentError."""
    verdicts = asdict(await keeper.run(Store.verdict_summary))
    return {
        "policy": settings.policy,
        "matches": {**verdicts, "ttl_s": settings.match_ttl_s, "per_user": settings.max_matches},
        "provisional": await _provisional(keeper, provisional) if settings.policy == "provisional" else None,
    }


async def _provisional(keeper: Storekeeper, provisional: Provisional) -> JsonObject:
    by = provisional.yardstick()
    return {
        "threshold": by.threshold if by else None,
        "evidence": by.evidence if by else None,
        "measured": by.measured if by else False,
        **asdict(await keeper.run(Store.provisional_summary)),
        "counts": {str(name): number for name, number in provisional.counts.items()},
    }
