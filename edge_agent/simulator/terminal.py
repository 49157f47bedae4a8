"""The simulated terminal: the real agent, which asks for each request what shall come of it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.agent import Agent
from edge_agent.config import Config, CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.simulator import outcomes
from edge_agent.simulator.camera import ScriptedCamera
from edge_agent.simulator.eyes import GOOD_VIEW, Eyes, Scene
from edge_agent.simulator.outcomes import Kind, Outcome
from edge_agent.simulator.service import StandIn
from edge_agent.types import GateCode

MARK = "X-Edge-Agent-Simulator"
"""The header of every response."""

_asked: ContextVar[str | None] = ContextVar("asked", default=None)
"""The header of the request under way that chooses its outcome."""


class SimulatedAgent(Agent):
    """As Agent; ``default`` is the outcome of user ids that name none, ``speed`` how much faster than life it plays."""

    simulated = True

    def __init__(self, config: Config, *, default: Outcome, speed: float) -> None:
        self._default, self._speed = default, speed
        self._eyes = Eyes()
        self._enrolling = asyncio.Lock()
        self._camera = ScriptedCamera(default, speed)
        super().__init__(
            config,
            camera_factory=lambda: self._camera,
            vision_factory=lambda _models: self._eyes,
            client_factory=self._make_client,
            before_filming=lambda new: self._camera.play(self._chosen(new.user_id)),
        )

    def _make_client(self, settings: CypherFaceSection) -> CypherFaceClient:
        stand_in = StandIn(self.config.session.verdict_timeout_s, self._speed)
        return CypherFaceClient(settings, api_key="simulated", transport=stand_in)

    async def enrol(self, user_id: str, picture: bytes, **terms: Any) -> None:
        """As Agent; any picture that can be read is fine unless ``rejected:CODE`` is chosen."""
        outcome = self._chosen(user_id)
        async with self._enrolling:
            rejected = outcome.kind is Kind.REJECTED
            self._eyes.still = Scene(GateCode(outcome.detail)) if rejected else GOOD_VIEW
            await super().enrol(user_id, picture, **terms)

    async def enrol_from_camera(self, user_id: str, **terms: Any) -> None:
        """As Agent; what is chosen is played for the camera as for a verification."""
        outcome = self._chosen(user_id)
        if not self.searching:
            self._camera.play(outcome)
        await super().enrol_from_camera(user_id, **terms)

    def _chosen(self, user_id: str) -> Outcome:
        """Raises the refusal that was chosen, and InputError for an outcome that there is not."""
        asked = _asked.get()
        outcome = (outcomes.parse(asked) if asked is not None else outcomes.find(user_id)) or self._default
        if outcome.kind is Kind.REFUSED:
            raise outcomes.refusal(outcome.detail)
        return outcome


def marked(app: ASGIApp) -> ASGIApp:
    """``app``, whose every response says that it is simulated, and whose requests may choose their outcome."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[MARK] = "1"
            await send(message)

        token = _asked.set(Headers(scope=scope).get(outcomes.HEADER))
        try:
            await app(scope, receive, send_marked)
        finally:
            _asked.reset(token)

    return serve
