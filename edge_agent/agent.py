"""The agent: one terminal's verifications, from the request to the verdict. Composition and lifetime of all parts.

It starts and serves even when the store, the models, the camera or the network are missing: *degraded*, refusing what
it cannot do with the code that says why. Everything here runs in the event loop; blocking work is in named workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edge_agent.announcer import Announcer
from edge_agent.availability import ForwarderStatus
from edge_agent.camera import Camera, open_camera
from edge_agent.config import Config, ModelsSection
from edge_agent.enrolment import Enrolment
from edge_agent.errors import AgentError, SessionRefused, report
from edge_agent.events import EventBus
from edge_agent.filming import Captured, Filming, Listeners, Lost, Outcome, Rejected
from edge_agent.forwarder import Forwarder
from edge_agent.health import Heartbeats
from edge_agent.links import LinkWatch
from edge_agent.outbox.clock import Clock, SystemClock
from edge_agent.outbox.configured import open_outbox, salvage_outbox
from edge_agent.outbox.records import (
    Environment,
    Limits,
    NewVerification,
    StateConflict,
    VerificationRecord,
)
from edge_agent.outbox.store import Store
from edge_agent.reload import Part
from edge_agent.screening import Vision
from edge_agent.services import Service, Services
from edge_agent.storekeeper import Storekeeper, starting
from edge_agent.types import Assessment, GateCode, JsonObject, State
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

FORWARDER_TURN_S = 120.0
"""The forwarder looks at the queue every 30 s; a store that lets it wait longer than this hangs."""
OUTBOX_TURN_S = 1800.0
"""One turn of the keeper may be a salvage: a gigabyte read from a slow card."""
RESTART_PAUSE_S = 1.0
"""A loop of ours that ended with an unexpected error starts again after this."""


@dataclass(slots=True)
class _Session:
    """The verification that is being filmed."""

    id: str
    caller: str
    camera: Camera
    config: Config
    """What it began with, and keeps."""
    vision: Vision
    forwarder: Forwarder
    task: asyncio.Task[None] | None = None
    hint: GateCode | None = None


class Agent:
    """One terminal. ``start``, then ``drain`` and ``close``, once each; the rest between them."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        camera_factory: Callable[[], Camera] | None = None,
        vision_factory: Callable[[ModelsSection], Vision] | None = None,
    ) -> None:
        self.config = config
        self.bus = EventBus()
        self.frames: Counter[str] = Counter()
        self.clock: Clock = clock or SystemClock()
        self.started_at = datetime.now(UTC)
        self.first_frame_after_s: float | None = None
        """Seconds from the start to the first screened frame, once there was one."""
        self._announcer = Announcer(self.bus, self.clock, config.session.result_valid_s)
        self._began_s = self.clock.monotonic_s()
        self._camera_factory = camera_factory or (lambda: open_camera(self.config.camera))
        self._vision_factory = vision_factory or _open_pipeline
        self.heartbeats = Heartbeats()
        self.keeper = Storekeeper(
            self._open_store,
            lambda: salvage_outbox(self.config, clock=self.clock),
            on_change=self._storage_changed,
            beat=self.heartbeats.expect("outbox", within_s=OUTBOX_TURN_S),
        )
        self._links = LinkWatch(self._network_came_up)
        self._camera_worker = Worker("camera")
        self._inference_worker = Worker("inference")
        self._enrolment = Enrolment(config, self.keeper, self._inference_worker)
        self._vision: Vision | None = None
        self._services = Services(
            self.keeper,
            on_network=self._announcer.network,
            expect=lambda: self.heartbeats.expect("forwarder", within_s=FORWARDER_TURN_S),
            loop=self._loop,
        )
        self._session: _Session | None = None
        self._begin = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._faults: dict[str, AgentError] = {}
        self._stopping = False
        self._ready = asyncio.Event()

    # -- lifetime -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what can be brought up; the rest is a fault that ``faults`` names. Never raises AgentError."""
        models = asyncio.create_task(self._load_models(), name="load models")
        service = asyncio.create_task(self._services.prepare(self.config), name="open the client")
        self._events = asyncio.get_running_loop()
        await self.keeper.bring_up()
        self._loop("outbox", self.keeper.watch)
        await self._guarded("cypherface", lambda: self._begin_forwarding(service))
        self._links.start()
        await models
        self._ready.set()

    async def drain(self) -> None:
        """First half of stopping, while the API still answers. In this order, each step needing the ones after it:

        1. no new verifications (``stopping``); the one being filmed ends as failed/interrupted, nothing is filmed;
        2. the forwarder and the clocks: sequences under way are given back, their captures stay queued;
        3. event readers and waiting requests are told that it is over.
        """
        self._stopping = True
        self._links.close()
        await self._end_session("interrupted", "the agent stopped")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.bus.close()

    async def close(self) -> None:
        """Second half, once no request is under way: the HTTP client, the store, then the workers."""
        await self._services.aclose()
        await self.keeper.close()
        for worker in (self._camera_worker, self._inference_worker):
            worker.close()

    async def _guarded(self, part: str, bring_up: Callable[[], Awaitable[None]]) -> None:
        try:
            await bring_up()
        except AgentError as exc:
            self._faults[part] = exc
            log.error("degraded: %s", exc.message, extra={"code": exc.code})  # noqa: TRY400 - the message says it
        else:
            self._faults.pop(part, None)

    async def _load_models(self) -> None:
        async def load() -> None:
            self._vision = await self._inference_worker.run(self._vision_factory, self.config.models)

        await self._guarded("models", load)

    def _open_store(self, *, adopt: bool) -> Store:
        def changed(record: VerificationRecord) -> None:
            self._events.call_soon_threadsafe(self._announcer.state, record)

        return open_outbox(self.config, clock=self.clock, listener=changed, adopt=adopt)

    def _storage_changed(self, fault: AgentError | None) -> None:
        self._announcer.storage(fault)
        if fault is None:
            self._spawn(self._set_limits(), "set the limits of the outbox")  # it was opened with those of before
            if self.forwarder is not None:
                self.forwarder.wake()

    async def _begin_forwarding(self, service: Awaitable[Service]) -> None:
        self._services.change_to(await service)

    @property
    def forwarder(self) -> Forwarder | None:
        """The one of the present configuration; None when its client could not be made."""
        return self._services.current.forwarder if self._services.current is not None else None

    def _network_came_up(self) -> None:
        if self.forwarder is not None:
            self.forwarder.network_came_up()

    def _loop(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop of ours running until it returns: an unexpected error is logged, and it starts again."""

        async def supervised() -> None:
            while True:
                try:
                    return await body()
                except asyncio.CancelledError:
                    raise
                except Exception as exc:  # the top of a loop
                    report(log, exc, f"the {name} loop ended unexpectedly and starts again")
                await asyncio.sleep(RESTART_PAUSE_S)

        self._spawn(supervised(), name)

    def _spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except Exception as exc:  # the top of a task: nobody else would hear of it
                report(log, exc, f"{name} failed")

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _fault(self, part: str) -> AgentError:
        """What to raise for a part that is missing. The fault lives on: its traceback must not grow by every refusal."""
        return (self._faults.get(part) or starting()).with_traceback(None)

    # -- verifications --------------------------------------------------------------------------------------------

    def environment(self) -> Environment:
        """The service that new captures are for."""
        return Environment(self.config.cypherface.base_url, self.config.cypherface.merchant_id)

    async def begin(self, new: NewVerification) -> tuple[VerificationRecord, bool]:
        """Start a verification, or give the one that this idempotency key already started (``True``).

        Raises SessionRefused (busy, locked_out, offline, stopping), CameraError, ModelError, StorageError and
        InputError (idempotency_*); then nothing was stored and the key is unused.
        """
        async with self._begin:
            if self._stopping:
                raise SessionRefused("cannot start a verification: the agent is stopping", code="stopping")
            known = await self.keeper.run(Store.find_replay, new)
            if known is not None:
                return known, True
            vision, forwarder = await self._refuse_if_not_possible(new)
            new = replace(new, environment=forwarder.environment)  # a reload may have come since the request
            camera = await self._camera_worker.run(self._camera_factory)
            try:
                record, replayed = await self.keeper.run(Store.create, new)
            except BaseException:
                await self._camera_worker.run(camera.close)
                raise
            session = _Session(record.id, new.caller, camera, self.config, vision, forwarder)
            self._session = session
            forwarder.hold()
            session.task = self._spawn(self._film(session, record), f"film {record.id}")
            return record, replayed

    async def _refuse_if_not_possible(self, new: NewVerification) -> tuple[Vision, Forwarder]:
        if self._session is not None:
            own = self._session.caller == new.caller
            active = f" ({self._session.id})" if own else ""
            raise SessionRefused(f"cannot start: another verification is searching{active}", code="busy")
        lockout = await self.keeper.run(Store.locked_until, new.user_id)
        if lockout is not None:
            raise SessionRefused(
                f"cannot start: too many failed verifications ({lockout.scope})",
                code="locked_out",
                retry_after_s=lockout.retry_after_s,
            )
        forwarder = self.forwarder
        if forwarder is None:
            raise self._fault("cypherface")
        if self.config.offline.policy == "deny" and forwarder.status.network in {"offline", "stopped"}:
            raise SessionRefused(
                "cannot start: CypherFace cannot be reached and offline.policy is deny", code="offline"
            )
        return await self._need_vision(), forwarder

    async def _need_vision(self) -> Vision:
        """The models; tried again when they were missing at the start. Raises ModelError."""
        if self._vision is None and self._ready.is_set():
            await self._load_models()
        if self._vision is None:
            raise self._fault("models")
        return self._vision

    async def _film(self, session: _Session, record: VerificationRecord) -> None:
        try:
            outcome = await self._filming(session, record).run()
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # the top of a task: the session must end in the store too
            report(log, exc, f"filming {session.id} ended unexpectedly")
            outcome = Lost(AgentError.code, type(exc).__name__)
        finally:
            await self._close_camera(session)
        await self._conclude(session, record, outcome)

    async def _close_camera(self, session: _Session) -> None:
        try:
            await self._camera_worker.run(session.camera.close)
        except Exception as exc:  # a driver's whim must not leave the terminal busy for ever
            report(log, exc, "cannot close the camera")

    def _filming(self, session: _Session, record: VerificationRecord) -> Filming:
        def hint(code: GateCode | None) -> None:
            session.hint = code
            self._announcer.hint(session.id, code)

        def camera_state(state: str, detail: str) -> None:
            self._announcer.camera(session.id, state, detail)

        return Filming(
            session.camera,
            session.vision,
            camera_worker=self._camera_worker,
            inference_worker=self._inference_worker,
            session=session.config.session,
            gate=session.config.gate,
            capture=session.config.capture,
            search_timeout_s=record.search_timeout_s,
            listeners=Listeners(hint=hint, camera=camera_state, frame=self._count_frame),
            clock=self.clock.monotonic_s,
        )

    def _count_frame(self, assessment: Assessment) -> None:
        if self.first_frame_after_s is None:
            self.first_frame_after_s = self.clock.monotonic_s() - self._began_s
        self.frames["accepted" if assessment.accepted else "refused"] += 1

    async def _conclude(self, session: _Session, record: VerificationRecord, outcome: Outcome) -> None:
        """Commit what filming found. A cancellation that came first wins (compare-and-set in the store)."""
        try:
            match outcome:
                case Captured(best=best, jpeg=jpeg):
                    live = min(s.score or 0.0 for s in best.liveness)
                    await self.keeper.run(
                        Store.commit_capture,
                        record.id,
                        jpeg,
                        quality_score=best.assessment.quality_score,
                        liveness_score=live,
                        facts={"liveness": {s.model: s.score for s in best.liveness}, "votes": best.votes},
                    )
                case Rejected(reasons=reasons):
                    await self.keeper.run(Store.reject, record.id, [reason.value for reason in reasons])
                case Lost(code=code, detail=detail):
                    await self.keeper.run(Store.fail, record.id, code, detail)
        except StateConflict as exc:
            log.info("the outcome of %s is not used: %s", record.id, exc.message)
            return
        except Exception as exc:  # whatever it is, nobody may wait for this session any longer
            report(log, exc, f"cannot store the outcome of {record.id}")
            code, detail = (
                (exc.code, exc.message) if isinstance(exc, AgentError) else (AgentError.code, type(exc).__name__)
            )
            with contextlib.suppress(AgentError):
                await self.keeper.run(Store.fail, record.id, code, detail)
            return
        finally:
            self._session_ended(session)
        if isinstance(outcome, Captured):
            session.forwarder.hold()
            self._spawn(self._hand_over(record, session.forwarder), f"hand over {record.id}")

    def _session_ended(self, session: _Session) -> None:
        if self._session is session:
            self._session = None
            session.forwarder.let_go()

    async def _hand_over(self, record: VerificationRecord, forwarder: Forwarder) -> None:
        """Forward the live capture at once; when no verdict came in time it is pending."""
        try:
            await forwarder.submit(record.id)
        except Exception as exc:  # whatever it is, the deadline below must come
            report(log, exc, f"cannot hand {record.id} over: it waits in the queue")
            forwarder.wake()
        finally:
            forwarder.let_go()
        await asyncio.sleep(record.verdict_timeout_s)
        await self.keeper.run(Store.pend, record.id)

    async def cancel(self, verification_id: str) -> VerificationRecord:
        """Cancel while searching. Raises StateConflict after the capture.

        A start waits until this is over, and this until a start is: whoever learns of the cancellation can start anew.
        """
        async with self._begin:
            record = await self.keeper.run(Store.cancel, verification_id)
            session = self._session
            if session is not None and session.id == verification_id:
                await self._stop_filming(session)
            return record

    async def _stop_filming(self, session: _Session) -> None:
        if session.task is not None:
            session.task.cancel()
            await asyncio.gather(session.task, return_exceptions=True)
        await self._close_camera(session)
        self._session_ended(session)

    async def _end_session(self, code: str, detail: str) -> None:
        async with self._begin:  # a request that is just starting ends here first
            session = self._session
        if session is None:
            return
        await self._stop_filming(session)
        with contextlib.suppress(AgentError):
            await self.keeper.run(Store.fail, session.id, code, detail)

    async def get(self, verification_id: str) -> VerificationRecord:
        """Raises InputError not_found."""
        return await self.keeper.run(Store.get, verification_id)

    async def list(self, *, state: State | None = None, limit: int = 100) -> list[VerificationRecord]:
        """The newest first."""
        return await self.keeper.run(Store.list, state=state, limit=limit)

    async def wait(self, verification_id: str, seconds: float, done: Callable[[VerificationRecord], bool]) -> None:
        """Return when ``done`` says so of the record, or after ``seconds``."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + seconds
        with self.bus.subscribe(verification_id) as reader:
            while not done(await self.get(verification_id)):
                left_s = deadline_s - loop.time()
                if left_s <= 0:
                    return
                try:
                    await reader.next(left_s)
                except StopAsyncIteration:
                    return

    def hint_of(self, verification_id: str) -> GateCode | None:
        """The hint that the customer is shown now, while searching."""
        session = self._session
        return session.hint if session is not None and session.id == verification_id else None

    def is_approved(self, record: VerificationRecord) -> bool:
        """See outbox.records.approved: the one thing a POS may act on."""
        return self._announcer.is_approved(record)

    # -- enrolment ------------------------------------------------------------------------------------------------

    async def enrol(self, user_id: str, picture: bytes) -> None:
        """Pre-screen ``picture`` and upload it as the user's source; never queued.

        Raises InputError (not a picture), PictureRefused (the gate), ModelError, CypherFaceError.
        """
        self.keeper.require()  # an enrolment that cannot be audited does not begin
        vision = await self._need_vision()
        service = self._services.current
        if service is None:
            raise self._fault("cypherface")
        service.forwarder.hold()  # and its client
        try:
            await self._enrolment.enrol(user_id, picture, vision, service.client)
        finally:
            service.forwarder.let_go()

    # -- configuration --------------------------------------------------------------------------------------------

    async def reconfigure(self, config: Config, parts: frozenset[Part], *, strict: bool = True) -> None:
        """Go on with ``config``. ``parts`` are made anew; the session that is being filmed keeps what it began with.

        strict: raises AgentError when one of them cannot be made, and then everything is as it was. Otherwise that
        part is missing, as after a restart with this configuration. What was missing before is tried again.
        """
        await self._ready.wait()
        vision = await self._fresh_vision(config, strict=strict) if Part.MODELS in parts else self._vision
        service = await self._fresh_service(config, strict=strict) if Part.SERVICE in parts else None
        async with self._begin:
            if self._stopping:
                raise SessionRefused("cannot take a configuration: the agent is stopping", code="stopping")
            self.config, self._vision = config, vision
            self._enrolment = Enrolment(config, self.keeper, self._inference_worker)
            if Part.VALIDITY in parts:
                self._announcer.set_result_valid_s(config.session.result_valid_s)
            if Part.SERVICE in parts:
                self._services.change_to(service)
        await self._set_limits()
        await self._look_again(renewed=Part.SERVICE in parts)

    async def _fresh_vision(self, config: Config, *, strict: bool) -> Vision | None:
        """In a thread of its own: a session that is being filmed needs the worker. None where it may be missing."""
        try:
            vision = await asyncio.to_thread(self._vision_factory, config.models)
        except AgentError as exc:
            if strict:
                raise
            self._faults["models"] = exc
            return None
        self._faults.pop("models", None)
        return vision

    async def _fresh_service(self, config: Config, *, strict: bool) -> Service | None:
        """As ``_fresh_vision``."""
        try:
            service = await self._services.prepare(config)
        except AgentError as exc:
            if strict:
                raise
            self._faults["cypherface"] = exc
            return None
        self._faults.pop("cypherface", None)
        return service

    async def _look_again(self, *, renewed: bool) -> None:
        """What was missing may be there now; nobody waits any longer for what may have been mended."""
        if self._vision is None:
            await self._load_models()
        if self._services.current is None:
            await self._guarded("cypherface", lambda: self._begin_forwarding(self._services.prepare(self.config)))
        elif not renewed:
            await self._services.look_again()

    async def _set_limits(self) -> None:
        def set_limits(store: Store, limits: Limits) -> None:
            store.limits = limits

        with contextlib.suppress(AgentError):  # a store that is missing is opened with them
            await self.keeper.run(set_limits, Limits.of(self.config))

    async def try_camera(self) -> str | None:
        """Open the camera and close it again, without a picture. Why it cannot be had, or None; untried in a session."""
        async with self._begin:
            if self._session is not None:
                return None
            try:
                camera = await self._camera_worker.run(self._camera_factory)
            except AgentError as exc:
                return exc.message
            await self._camera_worker.run(camera.close)
            return None

    async def try_service(self, limit_s: float) -> None:
        """Have the forwarder find out how the service is, if it does not know; what takes longer stays unknown."""
        if self.forwarder is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self.forwarder.check()

    # -- state -----------------------------------------------------------------------------------------

    @property
    def faults(self) -> dict[str, AgentError]:
        """What is missing, by part (store, models, cypherface); empty when all is well."""
        store = self.keeper.fault
        return {**({"store": store} if store is not None else {}), **self._faults}

    @property
    def started(self) -> bool:
        """True once ``start`` has brought up what could be brought up."""
        return self._ready.is_set()

    async def wait_started(self) -> None:
        """Return once ``start`` has brought up what could be brought up."""
        await self._ready.wait()

    @property
    def ready(self) -> bool:
        """True once everything was brought up and nothing is missing."""
        return self._ready.is_set() and not self.faults and not self._stopping

    def describe(self) -> str:
        """How the agent is, in words, for the service manager."""
        if not self._ready.is_set():
            return "starting"
        if self.faults:
            return "degraded: " + ", ".join(f"{part} ({error.code})" for part, error in sorted(self.faults.items()))
        network = self.forwarder.status.network if self.forwarder is not None else "unknown"
        doing = "verifying" if self.searching else "ready"
        return f"{doing}; CypherFace {network}"

    @property
    def searching(self) -> bool:
        return self._session is not None

    @property
    def forwarder_status(self) -> ForwarderStatus | None:
        return self.forwarder.status if self.forwarder is not None else None

    async def storage(self) -> JsonObject:
        """Whether the outbox is open and has room, and what happened to it since the start."""
        keeper, salvaged = self.keeper, self.keeper.salvaged
        space = await keeper.run(Store.space)
        return {
            "free_bytes": space.free_bytes,
            "reserve_bytes": space.reserve_bytes,
            "takes_captures": space.takes_captures,
            "problem": space.problem,
            "rotation": (await keeper.run(lambda store: store.rotation)).value,
            "audit_head": str(await keeper.run(Store.audit_head)),
            "reopened": keeper.reopened,
            "salvaged": salvaged and {"kept": salvaged.captures_kept, "lost": list(salvaged.captures_lost)},
        }

    async def queue(self) -> JsonObject:
        """Depth and age of the queue and how many verifications are in which state."""
        stats = await self.keeper.run(Store.queue)
        counts = await self.keeper.run(Store.counts)
        return {
            "depth": stats.depth,
            "parked": stats.parked,
            "bytes": stats.payload_bytes,
            "oldest_age_s": stats.oldest_age_s,
            "states": {state.value: count for state, count in counts.items()},
        }


def _open_pipeline(models: ModelsSection) -> Vision:
    from edge_agent.vision.opening import open_configured

    return open_configured(models)
