"""The agent: one terminal's verifications, from the request to the verdict. Composition and lifetime of all parts.

It starts and serves even when the store, the models, the camera or the network are missing: *degraded*, refusing what
it cannot do with the code that says why. Everything here runs in the event loop; blocking work is in named workers.

What it is made of: ``verifications`` (the one that is filmed), ``parts`` (what a configuration is made into),
``storekeeper`` (the outbox), ``camerakeeper`` (the camera and its recovery), ``services`` (the way to CypherFace),
``tasks`` (every loop and task).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent import condition
from edge_agent.aiming import Aimer
from edge_agent.announcer import Announcer, ShownHint
from edge_agent.availability import ForwarderStatus
from edge_agent.camera import Camera, CameraStatus
from edge_agent.camerakeeper import Camerakeeper, Ending
from edge_agent.challenge.course import Course
from edge_agent.config import Config, CypherFaceSection, LivenessSection, ModelsSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.enrolling import Enroller, Studio
from edge_agent.enrolments import Enrolments
from edge_agent.errors import AgentError, SessionRefused
from edge_agent.events import EventBus, Subscription
from edge_agent.forwarder import Forwarder
from edge_agent.health import Heartbeats
from edge_agent.links import LinkWatch
from edge_agent.lookout import Lookout
from edge_agent.moments import told
from edge_agent.offline.faces import Faces
from edge_agent.offline.provisional import Provisional
from edge_agent.outbox.clock import Clock, SystemClock
from edge_agent.outbox.configured import open_outbox, salvage_outbox
from edge_agent.outbox.records import Destruction, Environment, Limits, NewVerification, VerificationRecord
from edge_agent.outbox.store import Store
from edge_agent.parts import Parts, VisionFactory
from edge_agent.reload import Part
from edge_agent.screening import Vision
from edge_agent.services import Services
from edge_agent.storekeeper import Storekeeper
from edge_agent.tally import Tally
from edge_agent.tasks import Tasks
from edge_agent.timeservice import TimeService
from edge_agent.types import Assessment, JsonObject, State
from edge_agent.verifications import Rooms, Verifications
from edge_agent.waiting import Waiting
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

FORWARDER_TURN_S = 120.0
"""The forwarder looks at the queue every 30 s; a store that lets it wait longer than this hangs."""
OUTBOX_TURN_S = 1800.0
"""One turn of the keeper may be a salvage: a gigabyte read from a slow card."""
CAMERA_TURN_S = 60.0
"""It turns every 5-10 s, also while the camera hangs: only a loop of ours that hangs itself is late."""


class Agent:
    """One terminal. ``start``, then ``drain`` and ``close``, once each; the rest between them."""

    simulated = False
    """True where the outcomes are made up (edge_agent.simulator): a POS in production must never accept them."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        camera_factory: Callable[[], Camera] | None = None,
        vision_factory: VisionFactory | None = None,
        start_anew: Callable[[], None] | None = None,
        client_factory: Callable[[CypherFaceSection], CypherFaceClient] = CypherFaceClient,
        before_filming: Callable[[NewVerification], None] = lambda _: None,
        challenge_terms: Callable[[LivenessSection], LivenessSection] = lambda terms: terms,
        faces: Faces | None = None,
    ) -> None:
        """``camera_factory`` gives a closed camera. ``start_anew`` ends the daemon, None: nobody would start it again.
        ``before_filming`` has the last word when a verification could begin: it may raise why not;
        ``challenge_terms`` is asked then what of the configured challenge holds. ``faces``: what compares them, None: the
        models.
        """
        self.bus = EventBus()
        self._waiting = Waiting(self.bus, self.get)
        self._time_service = TimeService()
        self.clock: Clock = clock or SystemClock(self._time_service.told)
        self.started_at = datetime.now(UTC)
        self.heartbeats = Heartbeats()
        self.tally = Tally()
        self._tasks = Tasks()
        self._announcer = Announcer(self.bus, self.clock, config.session.result_valid_s)
        self.keeper = Storekeeper(
            self._open_store,
            lambda: salvage_outbox(self.config, clock=self.clock),
            on_change=self._storage_changed,
            beat=self.heartbeats.expect("outbox", within_s=OUTBOX_TURN_S),
        )
        self._links = LinkWatch(self._network_came_up)
        self._rooms = Rooms(Worker("camera"), Worker("inference"))
        self.provisional = Provisional(
            self.keeper,
            faces or Faces(self._rooms.inference, lambda: self.config, lambda: self._parts.vision),
            lambda: self.config,
        )
        self._services = Services(
            self.keeper,
            on_network=self._announcer.network,
            on_attempt=self.tally.attempt,
            expect=lambda: self.heartbeats.expect("forwarder", within_s=FORWARDER_TURN_S),
            loop=self._tasks.loop,
            client_factory=client_factory,
            provisional=self.provisional,
        )
        self._parts = Parts(
            config,
            keeper=self.keeper,
            services=self._services,
            inference_worker=self._rooms.inference,
            vision_factory=vision_factory or _open_pipeline,
        )
        self.camera = Camerakeeper(
            config.camera,
            worker=self._rooms.camera,
            clock=self.clock,
            state_dir=config.state_dir,
            spawn=self._tasks.spawn,
            make=camera_factory,
            on_change=self._camera_changed,
            beat=self.heartbeats.expect("camera", within_s=CAMERA_TURN_S),
        )
        self.lookout = Lookout(
            self.camera, lambda: self.config.camera, clock=self.clock, on_change=self._announcer.motion
        )
        self._enroller = Enroller(self._studio())
        self._verifications = Verifications(
            self._parts,
            enroller=self._enroller,
            keeper=self.keeper,
            camera=self.camera,
            rooms=self._rooms,
            tasks=self._tasks,
            announcer=self._announcer,
            tally=self.tally,
            clock=self.clock,
            before_filming=before_filming,
            terms=challenge_terms,
        )
        self._enrolments = Enrolments(
            self._parts,
            keeper=self.keeper,
            enroller=self._enroller,
            verifications=self._verifications,
            announcer=self._announcer,
        )
        self.aimer = Aimer(
            self._parts,
            camera=self.camera,
            verifications=self._verifications,
            keeper=self.keeper,
            announcer=self._announcer,
            rooms=self._rooms,
            clock=self.clock,
        )
        if start_anew is not None:
            self.camera.ending = Ending(self._verifications.end_if_idle, self._verifications.go_on, start_anew)
        self._ready = asyncio.Event()

    def _studio(self) -> Studio:
        return Studio(
            open_camera=lambda: self.camera.open("enrolment"),
            close_camera=self.camera.release,
            camera_worker=self._rooms.camera,
            inference_worker=self._rooms.inference,
            announcer=self._announcer,
            on_frame=self._count_frame,
            clock=self.clock.monotonic_s,
        )

    def _count_frame(self, assessment: Assessment) -> None:
        self._verifications.count_frame(assessment)

    @property
    def config(self) -> Config:
        """The present one."""
        return self._parts.config

    # -- lifetime -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what can be brought up; the rest is a fault that ``faults`` names. Never raises AgentError."""
        models = asyncio.create_task(self._parts.load_models(), name="load models")
        service = asyncio.create_task(self._services.prepare(self.config), name="open the client")
        self._events = asyncio.get_running_loop()
        await self.keeper.bring_up()
        self._tasks.loop("outbox", self.keeper.watch)
        self._tasks.loop("camera", self.camera.watch)
        self._tasks.loop("lookout", self.lookout.run)
        if isinstance(self.clock, SystemClock) and not self.clock.kernel_tells():
            self._tasks.loop("time service", self._time_service.watch)
        await self._parts.begin_forwarding(service)
        self._links.start()
        await models
        self._ready.set()

    async def drain(self) -> None:
        """First half of stopping, while the API still answers. In this order, each step needing the ones after it:

        1. no new verifications (``stopping``); the one being filmed ends as failed/interrupted, nothing is filmed;
        2. the forwarder and the clocks: sequences under way are given back, their captures stay queued;
        3. event readers and waiting requests are told that it is over.
        """
        self._verifications.stopping = True
        self._links.close()
        await self._verifications.interrupt("interrupted", "the agent stopped")
        await self._enroller.end(SessionRefused("cannot enrol: the agent is stopping", code="stopping"))
        await self.aimer.end("stopping")
        await self._tasks.cancel()
        await self.camera.close()
        self.bus.close()

    async def close(self) -> None:
        """Second half, once no request is under way: the HTTP client, the store, then the workers."""
        await self._services.aclose()
        await self.keeper.close()
        self._rooms.camera.close(abandon=self.camera.hangs)
        self._rooms.inference.close()

    def _open_store(self, *, adopt: bool) -> Store:
        def changed(record: VerificationRecord) -> None:
            self._events.call_soon_threadsafe(self._state_changed, record)

        return open_outbox(self.config, clock=self.clock, listener=changed, adopt=adopt)

    def _state_changed(self, record: VerificationRecord) -> None:
        if self.tally.state(record):
            _log_state(record)
        self._announcer.state(record)

    def _storage_changed(self, fault: AgentError | None) -> None:
        self._announcer.storage(fault)
        if fault is None:
            self._tasks.spawn(self._set_limits(), "set the limits of the outbox")  # it was opened with those of before
            if self.forwarder is not None:
                self.forwarder.wake()

    def _camera_changed(self, status: CameraStatus) -> None:
        self._events.call_soon_threadsafe(self._announcer.camera_status, status)

    @property
    def forwarder(self) -> Forwarder | None:
        """The one of the present configuration; None when its client could not be made."""
        return self._parts.forwarder

    def _network_came_up(self) -> None:
        if self.forwarder is not None:
            self.forwarder.network_came_up()

    async def try_camera(self) -> str | None:
        """Open the camera and close it again, without a picture. Why it cannot be had, or None; untried in a session."""
        async with self._verifications.starts:
            if self.searching:
                return None
            try:
                await self.camera.examine()
            except AgentError as exc:
                return exc.message
            return None

    # -- verifications --------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        """The service that new captures are for."""
        return Environment(self.config.cypherface.base_url, self.config.cypherface.merchant_id)

    async def begin(self, new: NewVerification) -> tuple[VerificationRecord, bool]:
        """See Verifications.begin."""
        return await self._verifications.begin(new)

    async def cancel(self, verification_id: str) -> VerificationRecord:
        """See Verifications.cancel."""
        return await self._verifications.cancel(verification_id)

    async def withdraw(self, verification_id: str, *, actor: str) -> VerificationRecord:
        """See Verifications.withdraw."""
        return await self._verifications.withdraw(verification_id, actor=actor)

    async def delete_user(self, user_id: str, *, actor: str) -> tuple[Destruction, bool]:
        """See Verifications.delete_user."""
        return await self._verifications.delete_user(user_id, actor=actor)

    def hint_of(self, verification_id: str) -> ShownHint | None:
        """The hint that the customer is shown now, while searching; None before the first."""
        return self._verifications.hint_of(verification_id)

    def challenge_of(self, verification_id: str) -> Course | None:
        """See Verifications.challenge_of."""
        return self._verifications.challenge_of(verification_id)

    def answer_challenge(self, verification_id: str, step: int | None) -> None:
        """See Verifications.answer_challenge."""
        self._verifications.answer_challenge(verification_id, step)

    async def get(self, verification_id: str) -> VerificationRecord:
        """Raises InputError not_found."""
        return await self.keeper.run(Store.get, verification_id)

    async def list(
        self, *, state: State | None = None, caller: str | None = None, limit: int = 100
    ) -> list[VerificationRecord]:
        """The newest first; with ``caller`` that one's alone."""
        return await self.keeper.run(Store.list, state=state, caller=caller, limit=limit)

    async def wait(
        self, verification_id: str, seconds: float, done: Callable[[VerificationRecord], bool]
    ) -> VerificationRecord:
        """The record once ``done`` says so of it, or after ``seconds``. Cancelling it changes nothing."""
        return await self._waiting.until(verification_id, seconds, done)

    async def begin_events(self, reader: Subscription) -> None:
        """Have a reader of one verification begin with how it is now, unless what it will read tells that.

        Whatever was committed before the record was read has been published when this goes on: both come out of the
        store's thread, in order. So a state that waits for the reader is at least as new as the record.
        """
        if reader.verification_id is None:
            return
        record = await self.get(reader.verification_id)
        if not reader.tells_state:
            course = self.challenge_of(record.id)
            prompt = course.prompt() if course else None
            reader.begin_with(self._announcer.present(reader, record, self.hint_of(record.id), prompt))

    def is_approved(self, record: VerificationRecord) -> bool:
        """See outbox.records.approved: the one thing a POS may act on."""
        return self._announcer.is_approved(record)

    # -- enrolment ------------------------------------------------------------------------------------------------

    async def enrol(self, user_id: str, picture: bytes, *, actor: str) -> None:
        """See Enrolments.enrol."""
        await self._enrolments.enrol(user_id, picture, actor=actor)

    async def enrol_from_camera(self, user_id: str, *, actor: str, search_timeout_s: float | None = None) -> None:
        """See Enrolments.enrol_from_camera."""
        await self._enrolments.enrol_from_camera(user_id, actor=actor, search_timeout_s=search_timeout_s)

    # -- configuration --------------------------------------------------------------------------------------------

    async def reconfigure(self, config: Config, parts: frozenset[Part], *, strict: bool = True) -> None:
        """Go on with ``config``. ``parts`` are made anew; the session that is being filmed keeps what it began with.

        strict: raises AgentError when one of them cannot be made, and then everything is as it was. Otherwise that
        part is missing, as after a restart with this configuration. What was missing before is tried again.
        """
        await self._ready.wait()
        fresh = await self._parts.prepare(config, parts, strict=strict)
        async with self._verifications.starts:
            self._verifications.refuse_if_stopping("take a configuration")
            self._parts.change_to(config, fresh, parts)
            if Part.CAMERA in parts:
                self.camera.renew(config.camera)
            if Part.VALIDITY in parts:
                self._announcer.set_result_valid_s(config.session.result_valid_s)
        await self._set_limits()
        await self._parts.look_again(renewed=Part.SERVICE in parts)

    async def _set_limits(self) -> None:
        def set_limits(store: Store, limits: Limits) -> None:
            store.limits = limits

        with contextlib.suppress(AgentError):  # a store that is missing is opened with them
            await self.keeper.run(set_limits, Limits.of(self.config))

    async def try_service(self, limit_s: float) -> None:
        """Have the forwarder find out how the service is, if it does not know; what takes longer stays unknown."""
        if self.forwarder is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self.forwarder.check()

    # -- state ----------------------------------------------------------------------------------------------------

    def set_fault(self, part: str, fault: AgentError | None) -> None:
        """Name a part that others look after (the API's sockets) among what is missing; None: it is there."""
        self._parts.faults.pop(part, None)
        if fault is not None:
            self._parts.faults[part] = fault

    @property
    def faults(self) -> dict[str, AgentError]:
        """What is missing, by part (store, camera, models, cypherface); empty when all is well."""
        kept = {"store": self.keeper.fault, "camera": self.camera.fault, "offline": self.provisional.fault}
        return {**{part: fault for part, fault in kept.items() if fault is not None}, **self._parts.faults}

    @property
    def started(self) -> bool:
        """True once ``start`` has brought up what could be brought up."""
        return self._ready.is_set()

    async def wait_started(self) -> None:
        """Return once ``start`` has brought up what could be brought up."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """True once everything was brought up and nothing is missing that a verification needs."""
        return self._ready.is_set() and not self.faults.keys() - {"offline"} and not self._verifications.stopping

    def describe(self) -> str:
        """How the agent is, in words, for the service manager."""
        if not self.started:
            return "starting"
        words = condition.in_words(self.faults, self.forwarder_status, searching=self.searching)
        return f"the live picture is on (aim); {words}" if self.aimer.on else words

    @property
    def searching(self) -> bool:
        """True while a verification is being filmed."""
        return self._verifications.searching

    @property
    def frames(self) -> Counter[str]:
        """Screened frames since the start: accepted, refused."""
        return self.tally.frames

    @property
    def first_frame_after_s(self) -> float | None:
        """Seconds from the start to the first screened frame, once there was one."""
        return self._verifications.first_frame_after_s

    @property
    def forwarder_status(self) -> ForwarderStatus | None:
        return self.forwarder.status if self.forwarder is not None else None

    async def outbox(self) -> tuple[JsonObject, JsonObject]:
        """The queue and the storage: see condition.outbox."""
        return await condition.outbox(self.keeper)

    async def offline(self) -> JsonObject:
        """See condition.offline."""
        return await condition.offline(self.keeper, self.config.offline, self.provisional)


def _log_state(record: VerificationRecord) -> None:
    level = logging.WARNING if record.state is State.FAILED else logging.INFO
    because = record.error_code if record.state is State.FAILED else ", ".join(record.reasons)
    moment = told(
        "verification_state",
        verification=record.id,
        state=record.state.value,
        code=record.error_code,
        reasons=list(record.reasons),
        late=record.late,
        contradicted=record.contradicted,
    )
    log.log(level, "%s is %s%s", record.id, record.state.value, f": {because}" if because else "", extra=moment)


def _open_pipeline(models: ModelsSection) -> Vision:
    from edge_agent.vision.opening import open_configured

    return open_configured(models)
