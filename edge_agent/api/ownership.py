"""Whose verification it is: what belongs to somebody else is answered exactly as what is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent.errors import InputError

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.api.calls import Call
    from edge_agent.events import Event
    from edge_agent.outbox.records import VerificationRecord


TERMINAL_WIDE = frozenset({"camera", "network", "storage", "configuration", "dropped"})
MOST_KNOWN = 1000
"""Verifications whose owner one reader remembers; an older one is looked up again."""


async def readable(call: Call) -> VerificationRecord:
    """The verification of the path, for its owner or an admin. Raises InputError not_found."""
    record = await call.agent.get(call.request.path_params["id"])
    if record.caller != call.peer.caller and not call.peer.is_admin:
        raise InputError("cannot find the verification: there is none with this id", code="not_found")
    return record


async def owned(call: Call) -> VerificationRecord:
    """The verification of the path, for its owner alone. Raises InputError not_found; ``forbidden`` for an admin."""
    record = await readable(call)
    if record.caller != call.peer.caller:
        raise InputError(
            "cannot do this to another caller's verification",
            code="forbidden",
            hint="only who started it can; it ends by itself after its search_timeout_s",
        )
    return record


def lens(agent: Agent, caller: str) -> Callable[[Event], Awaitable[Event | None]]:
    """What of each event ``caller`` may see who is no admin: None for a state or hint of somebody else's verification.

    An event about the terminal is for everybody, without the id of a verification that is not the reader's. What it
    returns raises AgentError while the owner cannot be looked up: to take the reader for a stranger would hide an end.
    """
    own: dict[str, bool] = {}

    async def see(event: Event) -> Event | None:
        id_ = event.verification_id
        if id_ is None:
            return event
        if id_ not in own:
            if len(own) >= MOST_KNOWN:
                del own[next(iter(own))]
            own[id_] = await _is_of(agent, id_, caller)
        if own[id_]:
            return event
        return replace(event, verification_id=None) if event.kind in TERMINAL_WIDE else None

    return see


async def _is_of(agent: Agent, verification_id: str, caller: str) -> bool:
    try:
        return (await agent.get(verification_id)).caller == caller
    except InputError:  # what is not there is nobody's
        return False
