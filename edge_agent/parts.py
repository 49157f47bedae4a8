"""What a configuration is made into: the models, the way to the service, the enrolment. Each may be missing.

A part that cannot be made is a fault with a code and a hint, and the agent goes on without it; it is tried again when
it is needed, and when the configuration is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edge_agent.config import Config, ModelsSection
from edge_agent.enrolment import Enrolment
from edge_agent.errors import AgentError
from edge_agent.forwarder import Forwarder
from edge_agent.moments import told
from edge_agent.reload import Part
from edge_agent.screening import Vision
from edge_agent.services import Service, Services
from edge_agent.storekeeper import Storekeeper, starting
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

VisionFactory = Callable[[ModelsSection], Vision]
"""Opens the models; blocks. Raises ModelError."""


class Fresh:
    """Parts that were made for another configuration, and are not in use yet."""

    def __init__(self, vision: Vision | None, service: Service | None) -> None:
        self.vision, self.service = vision, service


class Parts:
    """Used from the event loop's thread only."""

    def __init__(
        self,
        config: Config,
        *,
        keeper: Storekeeper,
        services: Services,
        inference_worker: Worker,
        vision_factory: VisionFactory,
    ) -> None:
        self.config = config
        self.services = services
        self.vision: Vision | None = None
        self.faults: dict[str, AgentError] = {}
        """Why a part is missing, by its name (models, cypherface)."""
        self._keeper = keeper
        self._inference_worker = inference_worker
        self._vision_factory = vision_factory
        self.enrolment = Enrolment(config, keeper, inference_worker)
        self._tried = False

    @property
    def forwarder(self) -> Forwarder | None:
        """The one of the present configuration; None when its client could not be made."""
        return self.services.current.forwarder if self.services.current is not None else None

    def fault(self, part: str) -> AgentError:
        """What to raise for a part that is missing. The fault lives on: its traceback must not grow by every refusal."""
        return (self.faults.get(part) or starting()).with_traceback(None)

    async def load_models(self) -> None:
        """Never raises AgentError."""

        async def load() -> None:
            self.vision = await self._inference_worker.run(self._vision_factory, self.config.models)

        await self._guarded("models", load)
        self._tried = True

    async def begin_forwarding(self, service: Awaitable[Service]) -> None:
        """Never raises AgentError."""

        async def begin() -> None:
            self.services.change_to(await service)

        await self._guarded("cypherface", begin)

    async def need_vision(self) -> Vision:
        """The models; tried again when they were missing at the start. Raises ModelError."""
        if self.vision is None and self._tried:
            await self.load_models()
        if self.vision is None:
            raise self.fault("models")
        return self.vision

    # -- another configuration

    async def prepare(self, config: Config, parts: frozenset[Part], *, strict: bool) -> Fresh:
        """Make what ``config`` needs anew, beside what is in use.

        strict: raises AgentError when one cannot be made. Otherwise that one is missing, with its fault.
        """
        vision = await self._fresh_vision(config, strict=strict) if Part.MODELS in parts else self.vision
        service = await self._fresh_service(config, strict=strict) if Part.SERVICE in parts else None
        return Fresh(vision, service)

    def change_to(self, config: Config, fresh: Fresh, parts: frozenset[Part]) -> None:
        """Use them from now on."""
        self.config, self.vision = config, fresh.vision
        self.enrolment = Enrolment(config, self._keeper, self._inference_worker)
        if Part.SERVICE in parts:
            self.services.change_to(fresh.service)

    async def look_again(self, *, renewed: bool) -> None:
        """What was missing may be there now; nobody waits any longer for what may have been mended."""
        if self.vision is None:
            await self.load_models()
        if self.services.current is None:
            await self.begin_forwarding(self.services.prepare(self.config))
        elif not renewed:
            await self.services.look_again()

    async def _fresh_vision(self, config: Config, *, strict: bool) -> Vision | None:
        """In a thread of its own: a session that is being filmed needs the worker. None where it may be missing."""
        try:
            vision = await asyncio.to_thread(self._vision_factory, config.models)
        except AgentError as exc:
            if strict:
                raise
            self.faults["models"] = exc
            return None
        self.faults.pop("models", None)
        return vision

    async def _fresh_service(self, config: Config, *, strict: bool) -> Service | None:
        """As ``_fresh_vision``."""
        try:
            service = await self.services.prepare(config)
        except AgentError as exc:
            if strict:
                raise
            self.faults["cypherface"] = exc
            return None
        self.faults.pop("cypherface", None)
        return service

    async def _guarded(self, part: str, bring_up: Callable[[], Awaitable[None]]) -> None:
        try:
            await bring_up()
        except AgentError as exc:
            self.faults[part] = exc
            moment = told("part_missing", part=part, code=exc.code)
            log.error("degraded: %s", exc.message, extra=moment)  # noqa: TRY400 - the message says it
        else:
            self.faults.pop(part, None)
