"""The simulated terminal: the real agent, which asks for each request what shall come of it."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent.agent import Agent
from edge_agent.config import Config, CypherFaceSection, LivenessSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.errors import AgentError
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.records import NewVerification, VerificationRecord
from edge_agent.simulator import outcomes
from edge_agent.simulator.camera import ScriptedCamera
from edge_agent.simulator.eyes import GOOD_VIEW, Eyes, Scene
from edge_agent.simulator.faces import SimulatedFaces, confirm_before
from edge_agent.simulator.outcomes import Kind, Outcome
from edge_agent.simulator.service import LATE_S, Line, StandIn
from edge_agent.types import WORKING_STATES, GateCode

MARK = "X-Edge-Agent-Simulator"
"""The header of every response."""

SEARCH_TIMEOUT_S, VERDICT_TIMEOUT_S = 20.0, 15.0
"""In life: the defaults of a configuration."""
ANSWERED = (Kind.VERIFIED, Kind.NOT_VERIFIED, Kind.PROVISIONAL, Kind.CHALLENGE)
CAPTURED = (*ANSWERED, Kind.PENDING, Kind.SLOW)

_asked: ContextVar[str | None] = ContextVar("asked", default=None)
"""The header of the request under way that chooses its outcome."""


class _TrustedClock(SystemClock):
    """Whether a laptop keeps the time is nobody's business here."""

    def synchronised(self) -> bool:
        return True


class SimulatedAgent(Agent):
    """As Agent; ``default`` is the outcome of user ids that name none, ``speed`` how much faster than life it plays."""

    simulated = True

    def __init__(self, config: Config, *, default: Outcome, speed: float) -> None:
        self._default, self._speed = default, speed
        self._eyes = Eyes()
        self._enrolling = asyncio.Lock()
        self._camera = ScriptedCamera(default, speed)
        self._line = Line(LATE_S / speed)
        self._challenged = False
        """The verification that began last has a challenge."""
        self._cut_for: str | None = None
        """The user for whom the line is cut."""
        super().__init__(
            config,
            camera_factory=lambda: self._camera,
            vision_factory=lambda _models: self._eyes,
            client_factory=self._make_client,
            before_filming=lambda new: self._play(self._chosen(new.user_id), new.user_id),
            challenge_terms=self._challenge_terms,
            faces=SimulatedFaces(),
            clock=_TrustedClock(),
        )

    async def begin(self, new: NewVerification) -> tuple[VerificationRecord, bool]:
        """As Agent; what shall go well has all of life's time for it, so that no busy machine spoils it."""
        if self._shall_be(Kind.PROVISIONAL, new):
            with contextlib.suppress(AgentError):  # then it is answered as on a terminal that knows nobody
                await self.keeper.run(confirm_before, new)
        return await super().begin(self._unhurried(new))

    def _shall_be(self, kind: Kind, new: NewVerification) -> bool:
        with contextlib.suppress(AgentError):  # begin raises it, unless it is a replay
            return self._chosen(new.user_id).kind is kind
        return False

    def _play(self, outcome: Outcome, user_id: str) -> None:
        cut = outcome.kind is Kind.PROVISIONAL
        (self._line.cut if cut else self._line.restore)()
        self._cut_for = user_id if cut else None
        self._challenged = outcome.kind is Kind.CHALLENGE
        self._camera.play(outcome)

    def _challenge_terms(self, terms: LivenessSection) -> LivenessSection:
        """Only who chose one has a challenge: a till that knows of none is asked for none."""
        return terms.model_copy(update={"challenge": "head_turn" if self._challenged else "off"})

    def answer_challenge(self, verification_id: str, step: int | None) -> None:
        """As Agent; from now on the customer can read what is asked."""
        super().answer_challenge(verification_id, step)
        course = self.challenge_of(verification_id)
        standing = course.standing() if course is not None else {}
        if standing.get("shown") and standing["step"] == step:
            self._camera.ask(str(standing["prompt"]))

    def _state_changed(self, record: VerificationRecord) -> None:
        super()._state_changed(record)
        if record.user_id == self._cut_for and record.state not in WORKING_STATES:
            self._line.missed()

    def _unhurried(self, new: NewVerification) -> NewVerification:
        """With life's time-outs where the chosen outcome does not wait for one; a search time that was asked for stays."""
        try:
            kind = self._chosen(new.user_id).kind
        except AgentError:  # begin raises it, unless it is a replay
            return new
        session = self.config.session
        if kind in CAPTURED and new.search_timeout_s == session.search_timeout_s:
            new = replace(new, search_timeout_s=max(new.search_timeout_s, SEARCH_TIMEOUT_S))
        if kind in ANSWERED:
            new = replace(new, verdict_timeout_s=max(new.verdict_timeout_s, VERDICT_TIMEOUT_S))
        return new

    def _make_client(self, settings: CypherFaceSection) -> CypherFaceClient:
        stand_in = StandIn(self.config.session.verdict_timeout_s, self._speed, self._line)
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
