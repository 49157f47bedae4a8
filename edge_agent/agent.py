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
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.announcer import Announcer
from edge_agent.availability import ForwarderStatus
from edge_agent.camera import Camera, open_camera
from edge_agent.config import Config
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.enrolment import Enrolment
from edge_agent.errors import AgentError, ModelError, SessionRefused, report
from edge_agent.events import EventBus
from edge_agent.filming import Captured, Filming, Listeners, Lost, Outcome, Rejected
from edge_agent.forwarder import Forwarder
from edge_agent.health import Heartbeats
from edge_agent.links import LinkWatch
from edge_agent.outbox.clock import Clock, SystemClock
from edge_agent.outbox.configured import open_outbox, salvage_outbox
from edge_agent.outbox.records import (
    Environment,
    NewVerification,
    StateConflict,
    VerificationRecord,
)
from edge_agent.outbox.store import Store
from edge_agent.screening import Vision
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
        vision_factory: Callable[[], Vision] | None = None,
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
        self._camera_factory = camera_factory or (lambda: open_camera(config.camera))
        self._vision_factory = vision_factory or self._open_pipeline
        self.heartbeats = Heartbeats()
        self.keeper = Storekeeper(
            self._open_store,
            lambda: salvage_outbox(config, clock=self.clock),
            on_change=self._storage_changed,
            beat=self.heartbeats.expect("outbox", within_s=OUTBOX_TURN_S),
        )
        self._links = LinkWatch(self._network_came_up)
        self._camera_worker = Worker("camera")
        self._inference_worker = Worker("inference")
        self._enrolment = Enrolment(config, self.keeper, self._inference_worker)
        self._vision: Vision | None = None
        self._client: CypherFaceClient | None = None
        self.forwarder: Forwarder | None = None
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
        client = asyncio.create_task(self._guarded("cypherface", self._open_client), name="open the client")
        self._events = asyncio.get_running_loop()
        await self.keeper.bring_up()
        self._loop("outbox", self.keeper.watch)
        await client
        if self._client is not None:
            self._start_forwarder(self._client)
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
        if self._client is not None:
            await self._client.aclose()
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
            self._vision = await self._inference_worker.run(self._vision_factory)

        await self._guarded("models", load)

    def _open_pipeline(self) -> Vision:
        from edge_agent.vision.opening import open_configured

        return open_configured(self.config.models)

    def _open_store(self, *, adopt: bool) -> Store:
        def changed(record: VerificationRecord) -> None:
            self._events.call_soon_threadsafe(self._announcer.state, record)

        return open_outbox(self.config, clock=self.clock, listener=changed, adopt=adopt)

    def _storage_changed(self, fault: AgentError | None) -> None:
        self._announcer.storage(fault)
        if fault is None and self.forwarder is not None:
            self.forwarder.wake()

    async def _open_client(self) -> None:
        """In a thread: reading the certificate authorities takes 40 ms."""
        self._client = await asyncio.to_thread(CypherFaceClient, self.config.cypherface)

    def _start_forwarder(self, client: CypherFaceClient) -> None:
        self.forwarder = Forwarder(
            self.keeper,
            client,
            self.config.cypherface,
            deny_offline=self.config.offline.policy == "deny",
            on_network=self._announcer.network,
            beat=self.heartbeats.expect("forwarder", within_s=FORWARDER_TURN_S),
        )
        self._loop("forwarder", self.forwarder.run)

    def _network_came_up(self) -> None:
        if self.forwarder is not None:
            self.forwarder.network_came_up()

    def _loop(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Keep a loop of ours running: an unexpected error is logged, and it starts again."""

        async def supervised() -> None:
            while True:
                try:
                    await body()
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
            await self._refuse_if_not_possible(new)
            camera = await self._camera_worker.run(self._camera_factory)
            try:
                record, replayed = await self.keeper.run(Store.create, new)
            except BaseException:
                await self._camera_worker.run(camera.close)
                raise
            session = _Session(record.id, new.caller, camera)
            self._session = session
            session.task = self._spawn(self._film(session, record), f"film {record.id}")
            return record, replayed

    async def _refuse_if_not_possible(self, new: NewVerification) -> None:
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
        if self.forwarder is None:
            raise self._fault("cypherface")
        if self.config.offline.policy == "deny" and self.forwarder.status.network in {"offline", "stopped"}:
            raise SessionRefused(
                "cannot start: CypherFace cannot be reached and offline.policy is deny", code="offline"
            )
        await self._need_vision()

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
        if self._vision is None:
            raise ModelError("cannot film: the models are gone", code="models_missing")

        def hint(code: GateCode | None) -> None:
            session.hint = code
            self._announcer.hint(session.id, code)

        def camera_state(state: str, detail: str) -> None:
            self._announcer.camera(session.id, state, detail)

        return Filming(
            session.camera,
            self._vision,
            camera_worker=self._camera_worker,
            inference_worker=self._inference_worker,
            session=self.config.session,
            gate=self.config.gate,
            capture=self.config.capture,
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
            self._spawn(self._hand_over(record), f"hand over {record.id}")

    def _session_ended(self, session: _Session) -> None:
        if self._session is session:
            self._session = None

    async def _hand_over(self, record: VerificationRecord) -> None:
        """Forward the live capture at once; when no verdict came in time it is pending."""
        if self.forwarder is not None:
            try:
                await self.forwarder.submit(record.id)
            except Exception as exc:  # whatever it is, the deadline below must come
                report(log, exc, f"cannot hand {record.id} over: it waits in the queue")
                self.forwarder.wake()
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
        if self._client is None:
            raise self._fault("cypherface")
        await self._enrolment.enrol(user_id, picture, vision, self._client)

    # -- state -----------------------------------------------------------------------------------------

    @property
    def faults(self) -> dict[str, AgentError]:
        """What is missing, by part (store, models, cypherface); empty when all is well."""
        store = self.keeper.fault
        return {**({"store": store} if store is not None else {}), **self._faults}

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
