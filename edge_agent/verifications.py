"""The verifications of one terminal: the one that is being filmed, from the request to its capture, and what follows.

One is filmed at a time. ``starts`` is the lock behind that: whoever holds it knows that none begins and none is
cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_agent.announcer import Announcer, ShownHint
from edge_agent.camera import Camera
from edge_agent.camerakeeper import Camerakeeper
from edge_agent.challenge.course import Course, not_running
from edge_agent.challenge.prompts import News
from edge_agent.config import Config, LivenessSection
from edge_agent.enrolling import Enroller
from edge_agent.errors import AgentError, InputError, SessionRefused, report
from edge_agent.filming import Captured, Filming, Listeners, Lost, Outcome, Rejected
from edge_agent.forwarder import Forwarder
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.records import Destruction, NewVerification, StateConflict, VerificationRecord
from edge_agent.outbox.store import Store
from edge_agent.parts import Parts
from edge_agent.screening import Vision
from edge_agent.storekeeper import Storekeeper
from edge_agent.tally import Tally
from edge_agent.tasks import Tasks
from edge_agent.types import Assessment, ChallengeCode, GateCode
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

CLOSING_S = 2.0
"""A capture is handed over once the camera has closed, so that the next one can begin with its verdict, or after this:
its deadline runs, and a driver that hangs must not make the verdict late."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where the blocking work is done."""

    camera: Worker
    inference: Worker


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
    challenge: Course | None = None
    task: asyncio.Task[None] | None = None
    hint: ShownHint | None = None


class Verifications:
    """Used from the event loop's thread only."""

    def __init__(
        self,
        parts: Parts,
        *,
        keeper: Storekeeper,
        camera: Camerakeeper,
        enroller: Enroller,
        rooms: Rooms,
        tasks: Tasks,
        announcer: Announcer,
        tally: Tally,
        clock: Clock,
        before_filming: Callable[[NewVerification], None],
        terms: Callable[[LivenessSection], LivenessSection] = lambda terms: terms,
    ) -> None:
        """``terms``: what of the configured challenge holds for the verification that is beginning."""
        self._parts = parts
        self._keeper = keeper
        self._camera = camera
        self._enroller = enroller
        self._rooms = rooms
        self._tasks = tasks
        self._announcer = announcer
        self._tally = tally
        self._clock = clock
        self._before_filming = before_filming
        self._terms = terms
        self._began_s = clock.monotonic_s()
        self._session: _Session | None = None
        self.starts = asyncio.Lock()
        """Held while one begins or is cancelled."""
        self.stopping = False
        """None begins any more."""
        self._ending = False
        self._handing_over = 0
        self.first_frame_after_s: float | None = None
        """Seconds from the start to the first screened frame, once there was one."""

    @property
    def searching(self) -> bool:
        """Somebody is being filmed: for a verification or for an enrolment."""
        return self._session is not None or self._enroller.sitting is not None

    def refuse_if_stopping(self, what: str) -> None:
        """Raises SessionRefused."""
        if self.stopping or self._ending:
            raise SessionRefused(f"cannot {what}: the agent is stopping", code="stopping")

    def refuse_if_filming(self, what: str) -> None:
        """Raises SessionRefused (stopping, busy)."""
        self.refuse_if_stopping(what)
        if self._session is not None:
            raise SessionRefused(f"cannot {what}: a verification is searching", code="busy")
        self._enroller.refuse_if_filming()

    def end_if_idle(self) -> bool:
        """From now on none begins, if nobody is filmed and nobody waits for a verdict. ``go_on`` takes it back."""
        self._ending = not (self.starts.locked() or self.searching or self._handing_over)
        return self._ending

    def go_on(self) -> None:
        """The end did not come."""
        self._ending = False

    # -- begin ----------------------------------------------------------------------------------------------------

    async def begin(self, new: NewVerification) -> tuple[VerificationRecord, bool]:
        """Start a verification, or give the one that this idempotency key already started (``True``).

        Raises SessionRefused (busy, locked_out, offline, stopping), CameraError, ModelError, StorageError and
        InputError (idempotency_*); then nothing was stored and the key is unused.
        """
        async with self.starts:
            self.refuse_if_stopping("start a verification")
            known = await self._keeper.run(Store.find_replay, new)
            if known is not None:
                return known, True
            vision, forwarder = await self._refuse_if_not_possible(new)
            new = replace(new, environment=forwarder.environment)  # a reload may have come since the request
            camera = await self._camera.open()
            try:
                record, replayed = await self._keeper.run(Store.create, new)
            except BaseException:
                await self._camera.release(camera)
                raise
            session = _Session(record.id, new.caller, camera, self._parts.config, vision, forwarder)
            session.challenge = self._challenge_for(session)
            self._session = session
            forwarder.hold()
            session.task = self._tasks.spawn(self._film(session, record), f"film {record.id}")
            return record, replayed

    async def _refuse_if_not_possible(self, new: NewVerification) -> tuple[Vision, Forwarder]:
        if self._session is not None:
            own = self._session.caller == new.caller
            active_id = self._session.id if own else None
            active = f" ({active_id})" if own else ""
            raise SessionRefused(
                f"cannot start: another verification is searching{active}", code="busy", active_id=active_id
            )
        self._enroller.refuse_if_filming()
        lockout = await self._keeper.run(Store.locked_until, new.user_id)
        if lockout is not None:
            raise SessionRefused(
                f"cannot start: too many failed verifications ({lockout.scope})",
                code="locked_out",
                retry_after_s=lockout.retry_after_s,
            )
        forwarder = self._parts.forwarder
        if forwarder is None:
            raise self._parts.fault("cypherface")
        if self._parts.config.offline.policy == "deny" and forwarder.status.network in {"offline", "stopped"}:
            raise SessionRefused(
                "cannot start: CypherFace cannot be reached and offline.policy is deny", code="offline"
            )
        vision = await self._parts.need_vision()
        self._before_filming(new)
        return vision, forwarder

    # -- film -----------------------------------------------------------------------------------------------------

    async def _film(self, session: _Session, record: VerificationRecord) -> None:
        try:
            outcome = await self._filming(session, record).run()
        except asyncio.CancelledError:
            await self._camera.release(session.camera)
            raise
        except Exception as exc:  # the top of a task: the session must end in the store too
            report(log, exc, f"filming {session.id} ended unexpectedly")
            outcome = Lost(AgentError.code, type(exc).__name__)
        closing = self._tasks.spawn(self._camera.release(session.camera), "close the camera")
        # a driver may need a second to close: a capture is made durable meanwhile
        if not isinstance(outcome, Captured):
            await asyncio.wait({closing})
        await self._conclude(session, record, outcome, closing)

    def _filming(self, session: _Session, record: VerificationRecord) -> Filming:
        def hint(code: GateCode | None) -> None:
            session.hint = self._announcer.hint(session.id, code)

        def camera_state(state: str, detail: str) -> None:
            self._announcer.camera(session.id, state, detail)

        return Filming(
            session.camera,
            session.vision,
            camera_worker=self._rooms.camera,
            inference_worker=self._rooms.inference,
            session=session.config.session,
            gate=session.config.gate,
            capture=session.config.capture,
            search_timeout_s=record.search_timeout_s,
            listeners=Listeners(hint=hint, camera=camera_state, frame=self.count_frame),
            clock=self._clock.monotonic_s,
            challenge=session.challenge,
        )

    def _challenge_for(self, session: _Session) -> Course | None:
        def tell(news: News) -> None:
            self._announcer.challenge(session.id, news)
            if news.kind in {"done", "cancel"}:
                log.info("challenge of %s: %s", session.id, news.data.get("outcome") or news.data["reason"])

        terms = self._terms(session.config.liveness)
        if terms.challenge == "off":
            return None
        can_blink = bool(getattr(session.vision, "sees_eyes", False))  # challenge.blink.EyeSight
        return Course(terms, tell=tell, clock=self._clock.monotonic_s, can_blink=can_blink)

    def count_frame(self, assessment: Assessment) -> None:
        """One more screened frame."""
        if self.first_frame_after_s is None:
            self.first_frame_after_s = self._clock.monotonic_s() - self._began_s
        self._tally.frame(assessment)

    # -- conclude -------------------------------------------------------------------------------------------------

    async def _conclude(
        self, session: _Session, record: VerificationRecord, outcome: Outcome, closing: asyncio.Task[None]
    ) -> None:
        """Commit what filming found. A cancellation that came first wins (compare-and-set in the store).

        None other begins before the camera is closed.
        """
        try:
            await self._commit(record, outcome)
        except StateConflict as exc:
            log.info("the outcome of %s is not used: %s", record.id, exc.message)
        except Exception as exc:  # whatever it is, nobody may wait for this session any longer
            report(log, exc, f"cannot store the outcome of {record.id}")
            code, detail = (
                (exc.code, exc.message) if isinstance(exc, AgentError) else (AgentError.code, type(exc).__name__)
            )
            with contextlib.suppress(AgentError):
                await self._keeper.run(Store.fail, record.id, code, detail)
        else:
            if isinstance(outcome, Captured):
                session.forwarder.hold()
                self._tasks.spawn(self._hand_over(record, session.forwarder, closing), f"hand over {record.id}")
        finally:
            await asyncio.wait({closing})
            self._ended(session)

    async def _commit(self, record: VerificationRecord, outcome: Outcome) -> None:
        match outcome:
            case Captured(best=best, jpeg=jpeg, challenge=challenge):
                live = min(s.score or 0.0 for s in best.liveness)
                await self._keeper.run(
                    Store.commit_capture,
                    record.id,
                    jpeg,
                    quality_score=best.assessment.quality_score,
                    liveness_score=live,
                    facts={"liveness": {s.model: s.score for s in best.liveness}, "votes": best.votes},
                    challenge=challenge.value if challenge else None,
                )
            case Rejected(
                challenge=ChallengeCode() as code, why=why
            ):  # alone: nobody is locked out for failing to turn
                await self._keeper.run(Store.reject, record.id, [code.value], facts={"challenge": why})
            case Rejected(reasons=reasons):
                await self._keeper.run(Store.reject, record.id, [reason.value for reason in reasons])
            case Lost(code=code, detail=detail):
                await self._keeper.run(Store.fail, record.id, code, detail)

    def _ended(self, session: _Session) -> None:
        if self._session is session:
            self._session = None
            session.forwarder.let_go()

    async def _hand_over(self, record: VerificationRecord, forwarder: Forwarder, closing: asyncio.Task[None]) -> None:
        """Forward the live capture; when no verdict came in time it is pending."""
        self._handing_over += 1
        try:
            await asyncio.gather(self._submit(record, forwarder, closing), asyncio.sleep(record.verdict_timeout_s))
        finally:
            self._handing_over -= 1
        await self._keeper.run(Store.pend, record.id)

    async def _submit(self, record: VerificationRecord, forwarder: Forwarder, closing: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait({closing}, timeout=CLOSING_S)
            await forwarder.submit(record.id)
        except Exception as exc:  # whatever it is, the deadline must come
            report(log, exc, f"cannot hand {record.id} over: it waits in the queue")
            forwarder.wake()
        finally:
            forwarder.let_go()

    # -- end before its time --------------------------------------------------------------------------------------

    async def cancel(self, verification_id: str) -> VerificationRecord:
        """Cancel while searching. Raises StateConflict after the capture.

        A start waits until this is over, and this until a start is: whoever learns of the cancellation can start anew.
        """
        async with self.starts:
            record = await self._keeper.run(Store.cancel, verification_id)
            session = self._session
            if session is not None and session.id == verification_id:
                await self._stop_filming(session)
            return record

    async def withdraw(self, verification_id: str, *, actor: str) -> VerificationRecord:
        """Consent withdrawn: everything personal of it is destroyed; what was not over is ``deleted``.

        One that is searching ends, and the camera is closed when this returns. One that is being forwarded takes no
        further step; what has left the terminal cannot be called back, and its answer is not taken. Raises InputError
        ``not_found``.
        """
        async with self.starts:
            record = await self._keeper.run(Store.withdraw, verification_id, actor=actor)
            await self._parts.services.abandon(lambda r: r.id == verification_id)
            await self._stop_if_erased()
            return record

    async def delete_user(self, user_id: str, *, actor: str) -> tuple[Destruction, bool]:
        """Destroy everything local about a user; limits and lock-outs stay. With it, whether filming was ended."""
        async with self.starts:
            why = InputError("cannot enrol: the user was deleted meanwhile", code="state_conflict")
            enrolling = await self._enroller.end(why, user_id=user_id)
            done = await self._keeper.run(Store.delete_user, user_id, actor=actor)
            await self._parts.services.abandon(lambda r: r.user_hmac == done.user_hmac)
            return done, await self._stop_if_erased() or enrolling

    async def _stop_if_erased(self) -> bool:
        """End the filming of what was erased; True when there was some. The store has refused its capture already."""
        session = self._session
        if session is None or not (await self._keeper.run(Store.get, session.id)).erased:
            return False
        await self._stop_filming(session)
        return True

    async def interrupt(self, code: str, detail: str) -> None:
        """End the one that is being filmed as failed, with this code."""
        async with self.starts:  # a request that is just starting ends here first
            session = self._session
        if session is None:
            return
        await self._stop_filming(session)
        with contextlib.suppress(AgentError):
            await self._keeper.run(Store.fail, session.id, code, detail)

    async def _stop_filming(self, session: _Session) -> None:
        if session.task is not None:
            session.task.cancel()
            await asyncio.gather(session.task, return_exceptions=True)
        await self._camera.release(session.camera)
        self._ended(session)

    # -- look -----------------------------------------------------------------------------------------------------

    def hint_of(self, verification_id: str) -> ShownHint | None:
        """The hint that the customer is shown now, while searching; None before the first."""
        session = self._session
        return session.hint if session is not None and session.id == verification_id else None

    # -- the challenge --------------------------------------------------------------------------------------------

    def challenge_of(self, verification_id: str) -> Course | None:
        """The challenge of the one that is being filmed, where one is asked for."""
        session = self._session
        return session.challenge if session is not None and session.id == verification_id else None

    def answer_challenge(self, verification_id: str, step: int | None) -> None:
        """The POS shows the prompt of ``step``; None: the customer cannot turn the head.

        Raises InputError (challenge_not_running, challenge_wrong_step).
        """
        course = self.challenge_of(verification_id)
        if course is None:
            raise not_running()
        if step is None:
            course.say_cannot_turn()
        else:
            course.acknowledge(step)
