"""Handlers about the agent's own condition: alive, ready, and everything about it."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.api.answers import answer
from edge_agent.api.calls import Call
from edge_agent.api.configuring import configuration_body
from edge_agent.api.wire_status import (
    AccessBody,
    CameraBody,
    ConfigurationBody,
    FaultBody,
    HealthBody,
    NetworkBody,
    OfflineBody,
    QueueStatusBody,
    ReadyBody,
    StatusBody,
    StorageBody,
    UnavailableBody,
)
from edge_agent.errors import AgentError


async def health(call: Call) -> Response:
    """The process lives and its loop turns."""
    del call
    return answer(HealthBody())


async def ready(call: Call) -> Response:
    """200 when a verification could start, else 503 with what is missing."""
    agent = call.agent
    missing = {part: error.code for part, error in agent.faults.items()}
    return answer(ReadyBody(ready=agent.ready, missing=missing), 200 if agent.ready else 503)


async def status(call: Call) -> Response:
    """How the agent is doing: parts, queue, network, frames; for an admin also what others asked and said."""
    agent = call.agent
    queue, storage = await _outbox(agent)
    body = StatusBody(
        version=__version__,
        terminal_id=agent.config.terminal_id,
        simulator=agent.simulated,
        started_at=agent.started_at,
        uptime_s=round((datetime.now(UTC) - agent.started_at).total_seconds(), 1),
        started=agent.started,
        ready=agent.ready,
        searching=agent.searching,
        aiming=agent.aimer.on,
        faults=[
            FaultBody(part=part, code=error.code, detail=error.message, hint=error.hint)
            for part, error in agent.faults.items()
        ],
        configuration=configuration_body(call.settings),
        pack=agent.config.models.pack,
        frames=dict(agent.frames),
        first_frame_after_s=agent.first_frame_after_s,
        camera=CameraBody.model_validate({**agent.camera.describe(), **agent.lookout.describe()}),
        network=_network(agent),
        queue=queue,
        storage=storage,
        offline=await _offline(agent) if call.peer.is_admin else None,
        access=AccessBody.model_validate(call.access.describe()),
    )
    return answer(body if call.peer.is_admin else _for_others(body))


def _for_others(body: StatusBody) -> StatusBody:
    """Without what only an admin is told: what the service said (it may name a user), who else is served, how it is set."""
    network = body.network.model_copy(update={"last_error": None})
    configuration = ConfigurationBody(restart_needed=body.configuration.restart_needed)
    queue, storage = body.queue, body.storage
    if isinstance(queue, QueueStatusBody):
        queue = queue.model_copy(update={"states": None})
    if isinstance(storage, StorageBody):
        storage = StorageBody(takes_captures=storage.takes_captures, problem=storage.problem)
    told = {"network": network, "configuration": configuration, "queue": queue, "storage": storage, "access": None}
    return body.model_copy(update=told)


def _network(agent: Agent) -> NetworkBody:
    forwarder = agent.forwarder_status
    if forwarder is None:
        return NetworkBody(state="unknown", stopped_code=None, last_error=None, last_success_at=None)
    return NetworkBody(
        state=forwarder.network,
        stopped_code=forwarder.stopped_code,
        last_error=forwarder.last_error,
        last_success_at=forwarder.last_success_at,
    )


async def _outbox(agent: Agent) -> tuple[QueueStatusBody | UnavailableBody, StorageBody | UnavailableBody]:
    try:
        queue, storage = await agent.outbox()
    except AgentError as exc:
        return UnavailableBody(error=exc.code), UnavailableBody(error=exc.code)
    return QueueStatusBody.model_validate(queue), StorageBody.model_validate(storage)


async def _offline(agent: Agent) -> OfflineBody | UnavailableBody:
    try:
        return OfflineBody.model_validate(await agent.offline())
    except AgentError as exc:
        return UnavailableBody(error=exc.code)
