"""The process under test: the real outbox, forwarder and CypherFace client; no camera, no models.

    python -m tests.faults.worker STATE_DIR BASE_URL [--do both|enqueue|forward] [--seed N] ...

It recovers, enqueues captures of several users (some live, some straight into the backlog), forwards everything and
ends with 0 once nothing waits. What it tells on stdout, one JSON object a line, each written after the commit that it
is about:

    {"event": "started", "head": "SEQ:MAC", ...}      opened and recovered
    {"event": "creating", "picture": NAME, "bytes", "user": U}
    {"event": "ack", "id", "sha256", "user", "seq", "picture", "bytes", "live"}     the acknowledgement
    {"event": "refused", "code", "picture"}           storage_full: not acknowledged, and it goes on
    {"event": "url" | "put" | "match" | "answered" | "gave_up", "user": U}    where the client is in a sequence
    {"event": "state", "id", "state", "user", "error", "parked"}  every change of a capture
    {"event": "final", "id", "state", "user"}         as ``state``, for final ones
    {"event": "network", "network"}
    {"event": "drained", "head"}, {"event": "closed"}
    {"event": "error", "code", "message"}             the store failed: ends with 4, nothing more is acknowledged

With FAULTS_LOG set in the environment the product's log goes to stderr. SIGTERM stops it in order. SIGUSR1: the fault is over, ``--hurry`` from now on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edge_agent.availability import ForwarderStatus
from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadKind, UploadTarget
from edge_agent.cypherface.verdict import Verdict
from edge_agent.errors import AgentError, StorageError
from edge_agent.forwarder import Forwarder
from edge_agent.outbox import Store
from edge_agent.outbox.records import Environment, Limits, NewVerification, VerificationRecord
from edge_agent.sandbox.runtime import DEFAULT_API_KEY, DEFAULT_MERCHANT_ID
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import State
from tests.faults.clock import FileClock

T = TypeVar("T")

KEY = bytes(range(1, 33))
MACHINE = "the machine of the fault matrix"
TURN_S = 0.02
"""How often the forwarder looks at the queue: the clock may have been moved."""
HURRY_S = 60.0
"""What the clock jumps when nothing but time is missing."""


def user_name(number: int) -> str:
    """Every third one never matches; long enough to be found in a file by chance never."""
    return f"{'no-' if number % 3 == 2 else ''}customer-{number:04d}-of-the-fault-matrix"


def picture(name: str, size: int) -> bytes:
    """Bytes without repetition, the same for the same name."""
    return random.Random(name).randbytes(size)


@dataclass(frozen=True, slots=True)
class Capture:
    """One capture to come."""

    name: str
    user: str
    size: int
    live: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line."""

    state_dir: Path
    base_url: str
    do: str
    seed: str
    captures: int
    users: int
    sizes: tuple[int, int]
    live_share: float
    gap_s: float
    timeouts_s: tuple[float, float, float]
    quarantine_s: float
    settle_s: float
    reserve_bytes: int
    clock: Path | None
    hurry: bool
    reopen: bool
    delete: str | None
    resolver_down: Path | None
    synchronous: str
    key: bytes
    machine: str

    def load(self) -> Iterator[Capture]:
        """What is to be captured; the seed decides."""
        chance = random.Random(self.seed)
        for number in range(self.captures):
            user = user_name(chance.randrange(self.users))
            live = chance.random() < self.live_share
            yield Capture(f"{self.seed}/{number}", user, chance.randint(*self.sizes), live)


class Teller:
    """Writes the lines, each with one system call, from any thread."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._known: dict[str, tuple[object, ...]] = {}

    def say(self, event: str, **facts: Any) -> None:
        with self._lock:
            os.write(self._descriptor, json.dumps({"event": event, **facts}).encode() + b"\n")

    def changed(self, record: VerificationRecord) -> None:
        """The store's listener: called after the commit."""
        seen = (record.state, record.error_code, record.parked)
        if self._known.get(record.id) == seen or record.state is State.SEARCHING:
            return
        self._known[record.id] = seen
        facts = {"id": record.id, "state": record.state.value, "user": record.user_id, "seq": record.seq}
        facts |= {"error": record.error_code, "parked": record.parked}
        self.say("final" if record.final else "state", **facts)

    def network(self, status: ForwarderStatus) -> None:
        self.say("network", network=status.network, code=status.stopped_code)


class TellingClient(CypherFaceClient):
    """The real client, which tells where in a sequence it is: a kill can then be told from another."""

    def __init__(self, settings: CypherFaceSection, teller: Teller) -> None:
        super().__init__(settings)
        self._teller = teller
        self._user_of: dict[str, str] = {}

    async def generate_url(self, user_id: str, image_name: str, content_type: str, kind: UploadKind) -> UploadTarget:
        self._user_of[image_name] = user_id
        return await self._told("url", user_id, super().generate_url(user_id, image_name, content_type, kind))

    async def put(self, target: UploadTarget, data: bytes, content_type: str) -> None:
        user_id = self._user_of.pop(target.image_name)
        await self._told("put", user_id, super().put(target, data, content_type))

    async def match(self, user_id: str) -> Verdict:
        verdict = await self._told("match", user_id, super().match(user_id))
        self._teller.say("answered", user=user_id)
        return verdict

    async def _told(self, step: str, user_id: str, call: Awaitable[T]) -> T:
        self._teller.say(step, user=user_id)
        try:
            return await call
        except BaseException:
            self._teller.say("gave_up", user=user_id)
            raise


def build_forwarder(
    keeper: Storekeeper, client: CypherFaceClient, settings: CypherFaceSection, plan: Plan, teller: Teller
) -> Forwarder:
    """The one place that knows the forwarder's constructor."""
    clock = FileClock(plan.clock)
    chance = random.Random(plan.seed)
    return Forwarder(keeper, client, settings, on_network=teller.network, rng=chance, clock=clock.monotonic_s)


def open_store(plan: Plan, teller: Teller, *, adopt: bool) -> Store:
    limits = Limits(upload_quarantine_s=plan.quarantine_s, reserve_bytes=plan.reserve_bytes, max_failures=0)
    clock = FileClock(plan.clock)
    return Store.open(
        plan.state_dir, plan.key, clock=clock, limits=limits, listener=teller.changed, machine=plan.machine, adopt=adopt
    )


def tell_start(store: Store, /, teller: Teller) -> None:
    store.tick()
    teller.say("started", head=str(store.audit_head()), pid=os.getpid())


def settings_of(plan: Plan) -> CypherFaceSection:
    connect_s, request_s, match_s = plan.timeouts_s
    os.environ.setdefault("FAULTS_API_KEY", DEFAULT_API_KEY)
    return CypherFaceSection.model_validate(
        {
            "base_url": plan.base_url,
            "merchant_id": DEFAULT_MERCHANT_ID,
            "api_key": {"env": "FAULTS_API_KEY"},
            "upload_hosts": [urlsplit(plan.base_url).netloc],
            "upload_quarantine_s": plan.quarantine_s,
            "match_settle_s": plan.settle_s,
            "timeouts": {"connect_s": connect_s, "request_s": request_s, "match_s": match_s},
        }
    )


def enqueue(store: Store, /, capture: Capture, environment: Environment, teller: Teller) -> VerificationRecord:
    """Store one capture and acknowledge it; in one go, so that a backlog capture is never seen as a live one."""
    jpeg = picture(capture.name, capture.size)
    teller.say("creating", picture=capture.name, bytes=len(jpeg), user=capture.user)
    new = NewVerification(
        user_id=capture.user,
        caller="faults",
        idempotency_key=capture.name,
        body=capture.name.encode(),
        environment=environment,
        search_timeout_s=20.0,
        verdict_timeout_s=15.0,
    )
    record, _ = store.create(new)
    try:
        record = store.commit_capture(record.id, jpeg, quality_score=0.9, liveness_score=0.9)
    except StorageError as exc:
        if exc.code == "storage_full":  # as the agent does: who is not filmed any more must not hold up their backlog
            store.fail(record.id, exc.code, exc.message)
        raise
    teller.say(
        "ack",
        id=record.id,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        user=capture.user,
        seq=record.seq,
        picture=capture.name,
        bytes=len(jpeg),
        live=capture.live,
    )
    return record if capture.live else store.pend(record.id)


class Run:
    """One life of the process."""

    def __init__(self, plan: Plan, teller: Teller) -> None:
        self.plan, self.teller = plan, teller
        self.clock = FileClock(plan.clock)
        self.keeper = Storekeeper(partial(open_store, plan, teller), clock=self.clock.monotonic_s)
        """Not watched: an error of the store ends this process, so that nothing more is acknowledged."""
        self.hurry = plan.hurry
        self.stop = asyncio.Event()
        self.enqueued = plan.do == "forward"

    async def live(self) -> None:
        await self.keeper.bring_up()
        await self.keeper.run(tell_start, self.teller)
        settings = settings_of(self.plan)
        async with TellingClient(settings, self.teller) as client:
            self.forwarder = build_forwarder(self.keeper, client, settings, self.plan, self.teller)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, self.stop.set)
            loop.add_signal_handler(signal.SIGUSR1, self._fault_is_over)
            await self._prepare()
            await self._work()
        await self.keeper.close()
        self.teller.say("closed")

    def _fault_is_over(self) -> None:
        self.hurry = True
        self.forwarder.wake()

    async def _prepare(self) -> None:
        if self.plan.delete is not None:
            done = await self.keeper.run(Store.delete_user, self.plan.delete)
            self.teller.say("deleted", user=self.plan.delete, captures=done.captures, traces_left=done.traces_left)
        if self.plan.reopen:
            for record in await self.keeper.run(Store.list, state=State.FAILED, limit=10_000):
                if record.parked:
                    await self.keeper.run(Store.reopen, record.id, actor="the fault matrix")

    async def _work(self) -> None:
        """Until nothing waits, or SIGTERM. An error of the enqueuer ends the process: it must not acknowledge more."""
        environment = Environment(self.plan.base_url, DEFAULT_MERCHANT_ID)
        loops = [] if self.plan.do == "enqueue" else [asyncio.create_task(self.forwarder.run())]
        enqueuing = asyncio.create_task(self._enqueue(environment))
        try:
            while not self.stop.is_set() and not await self._is_drained(enqueuing):
                await asyncio.sleep(TURN_S)
                self.forwarder.wake()
        finally:
            for task in (*loops, enqueuing):
                task.cancel()
            await asyncio.gather(*loops, enqueuing, return_exceptions=True)
        if not self.stop.is_set():
            self.teller.say("drained", head=str(await self.keeper.run(Store.audit_head)))

    async def _enqueue(self, environment: Environment) -> None:
        if self.plan.do == "forward":
            return
        for capture in self.plan.load():
            record = await self._store_or_refuse(capture, environment)
            if record is not None and capture.live and self.plan.do == "both":
                await self.forwarder.submit(record.id)
            await asyncio.sleep(self.plan.gap_s)

    async def _store_or_refuse(self, capture: Capture, environment: Environment) -> VerificationRecord | None:
        try:
            return await self.keeper.run(enqueue, capture, environment, self.teller)
        except StorageError as exc:
            if exc.code != "storage_full":
                raise
            self.teller.say("refused", code=exc.code, picture=capture.name)
            return None

    async def _is_drained(self, enqueuing: asyncio.Task[None]) -> bool:
        if enqueuing.done():
            enqueuing.result()
        depth = (await self.keeper.run(Store.queue)).depth
        if depth and self.hurry and self.forwarder.status.active == 0:
            self._jump()
        return enqueuing.done() and (depth == 0 or self.plan.do == "enqueue")

    def _jump(self) -> None:
        """Nothing is under way: what waits waits for a back-off, a quarantine or a probe."""
        if self.plan.clock is not None:
            shift = self.clock.shift
            replace(shift, ahead_s=shift.ahead_s + HURRY_S, wall_ahead_s=shift.wall_ahead_s + HURRY_S).write(
                self.plan.clock
            )
            self.forwarder.wake()


def parse(arguments: Sequence[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="tests.faults.worker", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("base_url")
    parser.add_argument("--do", choices=("both", "enqueue", "forward"), default="both")
    parser.add_argument("--seed", default="1", help="decides users, sizes and order; names the pictures")
    parser.add_argument("--captures", type=int, default=12)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 60_000), metavar=("MIN", "MAX"), help="bytes")
    parser.add_argument("--live-share", type=float, default=0.3)
    parser.add_argument("--gap-s", type=float, default=0.0, help="pause between two captures")
    parser.add_argument(
        "--timeouts-s", type=float, nargs=3, default=(2.0, 5.0, 5.0), metavar=("CONNECT", "REQUEST", "MATCH")
    )
    parser.add_argument("--quarantine-s", type=float, default=0.5)
    parser.add_argument("--settle-s", type=float, default=0.0, help="pause between PUT and match")
    parser.add_argument("--reserve-bytes", type=int, default=1 << 20)
    parser.add_argument("--clock", type=Path, help="file that shifts the clock")
    parser.add_argument("--hurry", action="store_true", help="let the clock jump whenever only time is missing")
    parser.add_argument("--reopen", action="store_true", help="queue parked captures again")
    parser.add_argument("--delete", metavar="USER", help="destroy this user first")
    parser.add_argument("--resolver-down", type=Path, help="while this file exists no name can be resolved")
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL", "OFF"), default="FULL", help="OFF: the control run")
    parser.add_argument("--key", type=bytes.fromhex, default=KEY, help="the device key, 64 hex digits")
    parser.add_argument("--machine", default=MACHINE, help="the machine's identity")
    values = vars(parser.parse_args(arguments))
    return Plan(**{**values, "sizes": tuple(values["sizes"]), "timeouts_s": tuple(values["timeouts_s"])})


def break_resolver(flag: Path) -> None:
    """As when the DNS server is not reached: EAI_AGAIN."""
    import socket

    real = socket.getaddrinfo

    def resolve(*args: Any, **kwargs: Any) -> Any:
        if flag.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*args, **kwargs)

    socket.getaddrinfo = resolve


def weaken(synchronous: str) -> None:
    """A control run without the sync before the acknowledgement: whatever looks for it must then go red."""
    from edge_agent.outbox import database

    number = {"OFF": 0, "NORMAL": 1, "FULL": 2}[synchronous]
    changed = {"synchronous": ("synchronous", synchronous, number)}
    database._PRAGMAS = tuple(changed.get(pragma[0], pragma) for pragma in database._PRAGMAS)


def warm_up() -> None:
    """Do once what every life would do at its start (for the zygote): make a client, which reads the authorities."""
    plan = parse(["/nonexistent", "http://127.0.0.1:9/"])

    async def make_client() -> None:
        async with CypherFaceClient(settings_of(plan)):
            pass

    asyncio.run(make_client())


def main(arguments: Sequence[str], descriptor: int = 1) -> int:
    """Runs in a fresh process or in a child of the zygote. Returns the exit status."""
    plan = parse(arguments)
    with quiet("FAULTS_LOG" not in os.environ):
        return _main(plan, Teller(descriptor))


@contextlib.contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """What fails is meant to fail; but whoever runs this in a process of his own wants to read his logs afterwards."""
    log = logging.getLogger("edge_agent")
    before = log.level
    if wanted:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _main(plan: Plan, teller: Teller) -> int:
    if plan.synchronous != "FULL":
        weaken(plan.synchronous)
    if plan.resolver_down is not None:
        break_resolver(plan.resolver_down)
    try:
        asyncio.run(Run(plan, teller).live())
    except AgentError as exc:
        with contextlib.suppress(OSError):
            teller.say("error", code=exc.code, message=exc.message)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
