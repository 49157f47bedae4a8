"""How the agent is while a candidate is on trial: looked at before, and again with the candidate."""

from __future__ import annotations

from edge_agent.agent import Agent
from edge_agent.reload import Change
from edge_agent.trial import Health

ASK_S = 10.0
"""How long the service may take to say how it is."""


async def examine(agent: Agent, changes: tuple[Change, ...]) -> str | None:
    """Try what ``changes`` are about, the candidate running or not; returns what is wrong with the camera."""
    changed = {change.key.partition(".")[0] for change in changes}
    if "cypherface" in changed:
        await agent.try_service(ASK_S)
    return await agent.try_camera() if "camera" in changed else None


def health_of(agent: Agent, camera: str | None) -> Health:
    """At this moment; ``camera``: what ``examine`` said."""
    forwarder = agent.forwarder_status
    return Health(
        # the camera is judged where its section changed: a cable that is pulled meanwhile is nobody's mistake
        faults={part: error.code for part, error in agent.faults.items() if part != "camera"},
        network=forwarder.network if forwarder else "unknown",
        stopped_code=forwarder.stopped_code if forwarder else None,
        camera=camera,
        late=tuple(agent.heartbeats.late()),
    )
