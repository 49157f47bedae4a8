"""The forwarder: takes captures out of the outbox and asks CypherFace, one critical section per user.

One sequence is: lease, token, generate-url, mark the upload, PUT, match, commit by compare-and-set on the lease. There
are no retries inside a sequence: an error becomes a decision (retry.py) and the whole sequence is run again later.
Live captures have a way of their own, so that a slow backlog never makes a customer wait for a free slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.availability import Availability, ForwarderStatus, Network, unreachable
from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadTarget
from edge_agent.cypherface.wire import new_image_name
from edge_agent.errors import AgentError, CypherFaceError, SequenceConflict, StorageError, Transient, report
from edge_agent.moments import told
from edge_agent.offline.provisional import Provisional
from edge_agent.outbox.records import Environment, Leased, LeaseLost, StateConflict, Verdict, VerificationRecord
from edge_agent.outbox.store import Store
from edge_agent.retry import Decision, Park, Retry, Stop, decide
from edge_agent.storekeeper import Storekeeper

log = logging.getLogger(__name__)

CONTENT_TYPE = "image/jpeg"
BACKLOG_SLOTS = 3
"""Sequences of the backlog that run at once (of different users)."""
LEASE_MARGIN_S = 60.0
"""What a lease lasts beyond the time limits of the sequence: the store's own time."""
IDLE_S = 30.0
"""The queue is looked at this often, even when nothing woke the forwarder."""
ERROR_PAUSE_S = 5.0
"""After an error of the store the queue is looked at again after this."""
BLOCKED_S = 0.5
"""Captures whose user is leased, quarantined or before the camera are looked at this often: no event tells the end."""

Failure = Literal["transient", "conflict", "other"]

Outcome = Literal["verdict", "retried", "parked", "stopped", "discarded", "interrupted", "storage", "failed"]
"""Of an attempt. discarded: its lease was lost; storage, failed: an error of the outbox, or one that nobody foresaw."""
OUTCOMES: dict[type[Decision], Outcome] = {Retry: "retried", Park: "parked", Stop: "stopped"}


@dataclass(slots=True)
class _Attempt:
    """One run of the sequence."""

    leased: Leased
    uploaded: bool = False
    """The picture is there, and what is waited for is the service's work on it."""
    upload_settled: bool = True
    """False while a PUT may still land late: its user's other captures then wait (``upload_quarantine_s``)."""
    answers: int = 0
    """HTTP answers that the client had received when this began."""
    picture: bytes | None = None
    upload_begun: bool = False
    """Part of the picture may have left the terminal."""


def _kind_of(error: CypherFaceError) -> Failure:
    """What the outbox counts this failure as."""
    if isinstance(error, Transient):
        return "transient"
    return "conflict" if isinstance(error, SequenceConflict) else "other"


class Forwarder:
    """Runs until cancelled. Used from the event loop's thread only."""

    def __init__(
        self,
        keeper: Storekeeper,
        client: CypherFaceClient,
        settings: CypherFaceSection,
        *,
        deny_offline: bool = False,
        provisional: Provisional | None = None,
        on_network: Callable[[ForwarderStatus], None] = lambda _: None,
        on_attempt: Callable[[str, str], None] = lambda _outcome, _code: None,
        beat: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: monotonic seconds, for the pauses of forwarding as a whole. ``beat``: called at each turn.

        ``on_attempt``: told how each attempt ended (an ``Outcome``), and the code of its error or "".
        """
        self._keeper = keeper
        self._client = client
        self._settings = settings
        self._deny_offline = deny_offline
        self._provisional = provisional
        self._on_network = on_network
        self._attempted: Callable[[Outcome, str], None] = on_attempt
        self._beat = beat
        self._rng = rng or random.SystemRandom()
        self._environment = Environment(settings.base_url, settings.merchant_id)
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequences: dict[asyncio.Task[None], VerificationRecord] = {}
        """Those under way, and whose."""
        self._backlog = 0
        self._retired = False
        self._holders = 0
        self._availability = Availability(on_change=self._network_changed, rng=self._rng, clock=clock)

    @property
    def status(self) -> ForwarderStatus:
        """Of this moment; it goes on changing."""
        return self._availability.status

    @property
    def environment(self) -> Environment:
        """The service that captures of this forwarder are for."""
        return self._environment

    @property
    def lease_s(self) -> float:
        """Longer than the longest sequence."""
        return self._client.sequence_limit_s + LEASE_MARGIN_S

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def resume(self) -> None:
        """Try again at once, also when forwarding had stopped (reload, ``outbox retry``)."""
        self._availability.try_now()
        self.wake()

    def hold(self) -> None:
        """A session began with this forwarder and may submit its capture: it lives on until ``let_go``."""
        self._holders += 1

    def let_go(self) -> None:
        self._holders -= 1
        self.wake()

    def retire(self) -> None:
        """Another one takes over: take nothing more from the queue, say nothing more.

        ``run`` returns once the sequences under way are over and nobody holds it.
        """
        self._retired = True
        self.wake()

    async def check(self) -> None:
        """Where nothing was tried yet, ask for a token, so that ``status`` says how the service is."""
        if self.status.network == "unknown":
            await self._probe()

    def network_came_up(self) -> None:
        """Look whether the outage is over."""
        self._availability.network_came_up()
        self.wake()

    async def submit(self, verification_id: str) -> None:
        """Forward a live capture now; when its user's lane is taken, the queue brings it later."""
        if self.status.network == "stopped":
            return
        leased = await self._keeper.run(Store.lease_one, verification_id, lease_s=self.lease_s)
        if leased is None:
            self.wake()
        else:
            self._start(leased, backlog=False)

    async def abandon(self, erased: Callable[[VerificationRecord], bool]) -> None:
        """Cut the sequences short whose capture was ``erased`` in the store: no further step is taken for them.

        What has left the terminal cannot be called back; its answer is not taken, because the lease is gone.
        """
        cut = [task for task, record in self._sequences.items() if erased(record)]
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    async def run(self) -> None:
        """Forward until cancelled, or retired and done. On cancellation the sequences under way are given back."""
        try:
            while not self._over:
                if not self._retired:
                    self._beat()
                self._wake.clear()
                pause_s = await self._turn()
                with contextlib.suppress(TimeoutError):  # not wait_for: in 3.11 it may swallow a cancellation
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _over(self) -> bool:
        return self._retired and not self._tasks and not self._holders

    async def _turn(self) -> float:
        """As ``_fill_slots``; its errors must not end the loop, which would cancel the sequences under way."""
        try:
            return await self._fill_slots()
        except StorageError:
            return ERROR_PAUSE_S  # the keeper says what is wrong, and mends it
        except Exception as exc:
            if not self._is_of_the_keeper(exc):
                report(log, exc, "cannot look at the queue")
            return ERROR_PAUSE_S

    def _is_of_the_keeper(self, error: Exception) -> bool:
        """Why there is no store (a key that cannot be read is no StorageError): the keeper has said so, once."""
        fault = self._keeper.fault
        # by the code: the keeper may have met the same again meanwhile
        return fault is not None and isinstance(error, AgentError) and error.code == fault.code

    async def _fill_slots(self) -> float:
        """Start what may be started. Returns how long to wait unless woken, in seconds."""
        while self._backlog < self._allowed_slots():
            wait_s = self._availability.begin_in_s
            if wait_s > 0:
                return min(IDLE_S, wait_s)
            leased = await self._keeper.run(Store.lease_next, self._environment, lease_s=self.lease_s)
            if leased is None:
                return await self._nothing_to_lease()
            self._start(leased, backlog=True)
        return IDLE_S

    async def _nothing_to_lease(self) -> float:
        """What to do while no capture can be tried; returns as ``_fill_slots``."""
        ready_s = await self._keeper.run(Store.next_ready_in_s, self._environment)
        # a stop is tested by the captures it is about, as long as there are any
        if self.status.network == "offline" or (self._availability.down and ready_s is None):
            self._spawn(self._probe(), "probe the service", backlog=True)
            return IDLE_S
        return IDLE_S if ready_s is None else min(IDLE_S, ready_s or BLOCKED_S)

    def _allowed_slots(self) -> int:
        """One capture at a time is the probe while the service cannot be used."""
        if self._retired:
            return 0
        return 1 if self._availability.down else BACKLOG_SLOTS

    def _start(self, leased: Leased, *, backlog: bool) -> None:
        task = self._spawn(self._forward(leased), f"forward {leased.record.id}", backlog=backlog)
        self._sequences[task] = leased.record
        task.add_done_callback(self._sequences.pop)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str, *, backlog: bool) -> asyncio.Task[None]:
        self._backlog += backlog
        self.status.active += 1
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            self._backlog -= backlog
            self.status.active -= 1
            self.wake()
            error = None if done.cancelled() else done.exception()
            if error is not None:
                report(log, error, f"cannot {name}")

        task.add_done_callback(ended)
        return task

    async def _forward(self, leased: Leased) -> None:
        """One attempt; whatever happens, the lease is not kept."""
        attempt = _Attempt(leased, answers=self._client.answers)
        try:
            await self._try(attempt)
        except LeaseLost as exc:
            self._attempted("discarded", exc.code)
            log.warning("the result of %s is thrown away: %s", leased.record.id, exc.message)
        except asyncio.CancelledError:
            self._attempted("interrupted", "")
            await self._give_back(attempt, "interrupted", "the agent stopped")
            raise
        except StorageError as exc:
            await self._settle_storage(attempt, exc)
        except Exception as exc:
            report(log, exc, f"cannot forward {leased.record.id}")
            code = exc.code if isinstance(exc, AgentError) else AgentError.code
            self._attempted("failed", code)
            await self._give_back(attempt, code, type(exc).__name__, delay_s=IDLE_S)

    async def _settle_storage(self, attempt: _Attempt, error: StorageError) -> None:
        """A picture that does not authenticate is set aside at once: it will not mend by itself."""
        self._attempted("parked" if error.code == "tampered" else "storage", error.code)
        log.error("cannot forward %s: %s", attempt.leased.record.id, error.message, extra={"code": error.code})
        if error.code == "tampered":
            await self._park(attempt, error.code, error.message, None)
        else:
            await self._give_back(attempt, error.code, error.message, delay_s=IDLE_S)

    async def _try(self, attempt: _Attempt) -> None:
        record, lease = attempt.leased.record, attempt.leased.lease
        try:
            verdict = await self._sequence(attempt)
        except CypherFaceError as exc:
            await self._settle(attempt, exc)
        else:
            settled = await self._keeper.run(Store.commit_verdict, record.id, lease, verdict)
            self._attempted("verdict", "")
            self._availability.succeeded()
            if self._provisional is not None and attempt.picture is not None:
                await self._provisional.settled(record, settled, attempt.picture)

    async def _sequence(self, attempt: _Attempt) -> Verdict:
        """generate-url, PUT, match for one capture. Raises CypherFaceError for everything but a verdict."""
        record = attempt.leased.record
        if record.user_id is None:
            raise LeaseLost("cannot forward: the user was erased", record)
        picture = attempt.picture = await self._keeper.run(Store.payload, record.id)
        name = new_image_name()
        target = await self._client.generate_url(record.user_id, name, CONTENT_TYPE, "match")
        await self._keeper.run(Store.record_upload, record.id, attempt.leased.lease, name)
        await self._put(attempt, target, picture)
        if self._settings.match_settle_s > 0:
            await asyncio.sleep(self._settings.match_settle_s)
        answer = await self._client.match(record.user_id)
        return Verdict(
            positive=answer.positive,
            http_status=answer.status,
            image_name=name,
            image_sha256=hashlib.sha256(picture).hexdigest(),
            matched_field=answer.evidence,
            similarity=answer.similarity,
        )

    async def _put(self, attempt: _Attempt, target: UploadTarget, picture: bytes) -> None:
        attempt.upload_settled, attempt.upload_begun = False, True
        try:
            await self._client.put(target, picture, CONTENT_TYPE)
        except CypherFaceError as exc:
            attempt.upload_settled = not exc.outcome_unknown
            raise
        attempt.upload_settled = attempt.uploaded = True

    async def _settle(self, attempt: _Attempt, error: CypherFaceError) -> None:
        """Turn an error into what happens to the capture and to forwarding as a whole."""
        leased = attempt.leased
        self.status.last_error = f"{error.code}: {error.message}"
        moment = told("forward_failed", verification=leased.record.id, code=error.code, status=error.status)
        log.warning("cannot forward %s: %s", leased.record.id, error.message, extra=moment)
        cut_off = unreachable(error, uploaded=attempt.uploaded)
        await self._answer_provisionally(attempt, error)
        decision = self._decide(leased, error)
        if isinstance(decision, Park) and await self._is_our_fault(leased, decision.code):
            decision = Stop(decision.code)
        self._attempted(OUTCOMES[type(decision)], error.code)
        if isinstance(decision, Stop):
            await self._stop(decision.code)
        if isinstance(decision, Park):
            await self._park(attempt, error.code, error.server_message or error.message, error.status)
        else:
            delay_s = decision.after_s if isinstance(decision, Retry) else 0.0
            if isinstance(error, Transient) and error.retry_after_s is not None and not cut_off:
                self._availability.hold(delay_s)
            await self._give_back(
                attempt,
                error.code,
                error.server_message or error.message,
                status=error.status,
                delay_s=delay_s,
                failure=_kind_of(error),
            )
        if cut_off:
            await self._network_trouble(leased, error)
        elif not isinstance(decision, Stop):
            self._availability.answered()

    async def _answer_provisionally(self, attempt: _Attempt, error: CypherFaceError) -> None:
        """Only where this attempt got no connection at all: then nobody has seen, taken or judged anything of it.

        Never after an answer of any kind, a TLS failure, a portal in between, or anything that may have been acted
        upon; nor while our credentials or settings are in doubt.
        """
        no_connection = isinstance(error, Transient) and error.connect_failed and error.code == "connect"
        nothing_heard = error.status is None and self._client.answers == attempt.answers
        nothing_left = not (error.outcome_unknown or attempt.upload_begun or attempt.uploaded)
        if self._provisional is None or attempt.picture is None or self.status.network == "stopped":
            return
        if no_connection and nothing_heard and nothing_left:
            await self._provisional.answer(attempt.leased, attempt.picture)

    def _decide(self, leased: Leased, error: CypherFaceError) -> Decision:
        if self.status.network == "stopped" and error.code == self.status.stopped_code:
            return Stop(error.code)  # a probe, or a sequence under way: what stopped us is still there
        before = leased.record.transients if isinstance(error, Transient) else leased.record.conflicts
        return decide(error, before + 1, rng=self._rng)

    async def _park(self, attempt: _Attempt, code: str, detail: str, status: int | None) -> None:
        with contextlib.suppress(StateConflict):
            await self._keeper.run(
                Store.park,
                attempt.leased.record.id,
                attempt.leased.lease,
                code=code,
                detail=detail,
                status=status,
                upload_settled=attempt.upload_settled,
            )

    async def _network_trouble(self, leased: Leased, error: CypherFaceError) -> None:
        """Nothing usable answered: from now on one capture at a time is the probe, with a back-off of its own."""
        await self._unreachable(error)
        if self._deny_offline:
            with contextlib.suppress(StateConflict):
                await self._keeper.run(Store.destroy, leased.record.id, "offline", error.message)

    async def _unreachable(self, error: CypherFaceError) -> None:
        self._availability.unreachable(error)
        if self._availability.wants_fresh_client:
            await self._client.rebuild()

    async def _probe(self) -> None:
        """Ask for a token: there is no capture that could show whether the service is back."""
        try:
            await self._client.issue()
        except CypherFaceError as exc:
            self.status.last_error = f"{exc.code}: {exc.message}"
            if unreachable(exc, uploaded=False):
                await self._unreachable(exc)
            elif isinstance(exc, Transient):
                self._availability.answered()
            else:
                await self._stop(exc.code)
        else:
            self._availability.set("online")

    async def _is_our_fault(self, leased: Leased, code: str) -> bool:
        """True when this is the third user with the same permanent error; the others' captures are then taken back."""
        suspects = self._availability.suspect(leased.record.user_hmac, leased.record.id, code)
        if suspects is None:
            return False
        await self._stop(code)  # before anything is queued again
        for id_ in suspects - {leased.record.id}:
            with contextlib.suppress(AgentError):
                await self._keeper.run(Store.reopen, id_, actor="forwarder")
        return True

    async def _stop(self, code: str) -> None:
        """Stop forwarding: everything stays queued, one capture is tried every 15 minutes."""
        if self._availability.stop(code):
            moment = told("forwarding_stopped", code=code)
            log.error("forwarding stopped: %s; every capture stays queued", code, extra=moment)
            # where it cannot be noted the keeper says what is wrong; until a restart we know it ourselves
            with contextlib.suppress(StorageError):
                await self._keeper.run(Store.note_refused)

    def _network_changed(self, before: Network, now: Network) -> None:
        if self._retired:
            return
        level = logging.WARNING if now == "offline" else logging.INFO
        moment = told("network_changed", state=now, code=self.status.stopped_code)
        log.log(level, "CypherFace: %s (was %s)", now, before, extra=moment)
        self._on_network(self.status)
        if now == "online" and before in {"offline", "stopped"}:
            self._spawn_retry_now()

    def _spawn_retry_now(self) -> None:
        """Back online: nobody waits for the back-off of the time before."""
        task = asyncio.create_task(self._retry_now(), name="retry the queue now")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _retry_now(self) -> None:
        try:
            await self._keeper.run(Store.retry_now, self._environment)
        except AgentError as exc:
            log.warning("the queue waits for its back-off: %s", exc.message)
        self.wake()

    async def _give_back(
        self,
        attempt: _Attempt,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        delay_s: float = 0.0,
        failure: Failure = "other",
    ) -> None:
        with contextlib.suppress(StateConflict):
            await self._keeper.run(
                Store.release,
                attempt.leased.record.id,
                attempt.leased.lease,
                next_attempt_in_s=delay_s,
                code=code,
                detail=detail,
                status=status,
                upload_settled=attempt.upload_settled,
                failure=failure,
            )
