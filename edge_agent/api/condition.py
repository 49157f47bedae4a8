"""Handlers about the agent's own condition: alive, ready, and everything about it."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import JSONResponse, Response

from edge_agent import __version__
from edge_agent.api.calls import Call
from edge_agent.api.configuring import configuration_json
from edge_agent.errors import AgentError
from edge_agent.types import JsonObject


async def health(call: Call) -> Response:
    """The process lives and its loop turns."""
    del call
    return JSONResponse({"status": "ok"})


async def ready(call: Call) -> Response:
    """200 when a verification could start, else 503 with what is missing."""
    agent = call.agent
    missing = {part: error.code for part, error in agent.faults.items()}
    return JSONResponse({"ready": agent.ready, "missing": missing}, 200 if agent.ready else 503)


async def status(call: Call) -> Response:
    """How the agent is doing: parts, queue, network, frames; for an admin also what others asked and said."""
    agent = call.agent
    forwarder = agent.forwarder_status
    body: JsonObject = {
        "version": __version__,
        "terminal_id": agent.config.terminal_id,
        "started_at": agent.started_at.isoformat(),
        "uptime_s": round((datetime.now(UTC) - agent.started_at).total_seconds(), 1),
        "started": agent.started,
        "ready": agent.ready,
        "searching": agent.searching,
        "faults": [
            {"part": part, "code": error.code, "detail": error.message, "hint": error.hint}
            for part, error in agent.faults.items()
        ],
        "configuration": configuration_json(call.settings),
        "pack": agent.config.models.pack,
        "frames": dict(agent.frames),
        "first_frame_after_s": agent.first_frame_after_s,
        "camera": agent.camera.describe(),
        "network": {
            "state": forwarder.network if forwarder else "unknown",
            "stopped_code": forwarder.stopped_code if forwarder else None,
            "last_error": forwarder.last_error if forwarder else None,
            "last_success_at": (
                forwarder.last_success_at.isoformat() if forwarder and forwarder.last_success_at else None
            ),
        },
    }
    try:
        body["queue"] = await agent.queue()
        body["storage"] = await agent.storage()
    except AgentError as exc:
        body["queue"] = body["storage"] = {"error": exc.code}
    if call.peer.is_admin:
        body["access"] = call.access.describe()
    else:
        _withhold(body)
    return JSONResponse(body)


def _withhold(body: JsonObject) -> None:
    """What only an admin is told: what the service said (it may name a user), who else is served, what is configured."""
    body["network"]["last_error"] = None
    body["configuration"] = {"restart_needed": body["configuration"]["restart_needed"]}
    body["storage"] = {name: body["storage"].get(name) for name in ("takes_captures", "problem")}
    body["queue"].pop("states", None)
