"""A forwarder on the bench: the real outbox and client, the real sandbox, and a clock under the test's control.

Only the clock of the terminal is made up: leases, back-off and quarantine pass when the test says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from edge_agent.availability import ForwarderStatus
from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.tokens import boottime_s
from edge_agent.cypherface.upload import UploadKind, UploadTarget
from edge_agent.cypherface.verdict import Verdict
from edge_agent.forwarder import Forwarder
from edge_agent.outbox import Store
from edge_agent.outbox.records import Environment, Limits, VerificationRecord
from edge_agent.sandbox.server import SandboxServer
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import State
from tests.keepers import intercept
from tests.outbox import fakes

PATIENCE_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class Span:
    """One run of the sequence as the client saw it, on the loop's clock."""

    user_id: str
    began_s: float
    ended_s: float | None = None


class RecordingClient(CypherFaceClient):
    """The real client, which notes who was served when. A sequence ends when its last call ends."""

    def __init__(self, settings: CypherFaceSection, clock: Callable[[], float] = boottime_s) -> None:
        super().__init__(settings, clock=clock)
        self.spans: list[Span] = []
        self._of_name: dict[str, Span] = {}

    async def generate_url(self, user_id: str, image_name: str, content_type: str, kind: UploadKind) -> UploadTarget:
        span = Span(user_id, asyncio.get_running_loop().time())
        self.spans.append(span)
        self._of_name[image_name] = span
        return await self._noted(span, super().generate_url(user_id, image_name, content_type, kind))

    async def put(self, target: UploadTarget, data: bytes, content_type: str) -> None:
        await self._noted(self._of_name[target.image_name], super().put(target, data, content_type))

    async def match(self, user_id: str) -> Verdict:
        span = [s for s in self.spans if s.user_id == user_id][-1]
        return await self._noted(span, super().match(user_id))

    @staticmethod
    async def _noted(span: Span, call: Awaitable[T]) -> T:
        span.ended_s = None
        try:
            return await call
        finally:
            span.ended_s = asyncio.get_running_loop().time()


class Bench:
    """An async context manager; ``start`` lets the forwarder run."""

    def __init__(
        self,
        folder: Path,
        sandbox: SandboxServer,
        *,
        deny_offline: bool = False,
        clock: fakes.FakeClock | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or fakes.FakeClock()
        self.sandbox = sandbox
        self.folder = folder
        self.settings = section(folder, sandbox, **settings)
        self.environment = Environment(self.settings.base_url, self.settings.merchant_id)
        self.networks: list[str] = []
        self.attempts: list[tuple[str, str]] = []
        """How each ended: outcome and the code of its error."""
        self.changes: list[tuple[str, State]] = []
        self.looks = 0
        """How often the queue was asked for work."""
        self._deny_offline = deny_offline
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.keeper = Storekeeper(self._open)
        await self.keeper.bring_up()
        assert self.keeper.fault is None
        intercept(self.keeper, Store.lease_next, self._look)
        self.client = RecordingClient(self.settings, self.clock.boottime_s)
        self.forwarder = Forwarder(
            self.keeper,
            self.client,
            self.settings,
            deny_offline=self._deny_offline,
            on_network=self._note_network,
            on_attempt=lambda outcome, code: self.attempts.append((outcome, code)),
            rng=random.Random(1),
            clock=self.clock.monotonic_s,
        )
        return self

    def _open(self, *, adopt: bool) -> Store:
        limits = Limits(upload_quarantine_s=self.settings.upload_quarantine_s)
        return fakes.open_store(
            self.folder / "state", self.clock, limits=limits, listener=self._note_change, adopt=adopt
        )

    def _look(self, store: Store, *args: Any, **kwargs: Any) -> Any:
        self.looks += 1
        return store.lease_next(*args, **kwargs)

    def _note_network(self, status: ForwarderStatus) -> None:
        self.networks.append(status.network)

    def _note_change(self, record: VerificationRecord) -> None:
        if (record.id, record.state) not in self.changes[-1:]:
            self.changes.append((record.id, record.state))

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self.client.aclose()
        await self.keeper.close()

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self.forwarder.run())
        return self._task

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # -- what a test does

    async def pending(self, user: str) -> VerificationRecord:
        """A capture of ``user`` in the backlog."""
        return await self.keeper.run(fakes.pending, user, environment=self.environment)

    async def captured(self, user: str) -> VerificationRecord:
        """A live capture."""
        return await self.keeper.run(fakes.capture, user, environment=self.environment)

    async def get(self, record: VerificationRecord) -> VerificationRecord:
        return await self.keeper.run(Store.get, record.id)

    async def state(self, record: VerificationRecord) -> State:
        return (await self.get(record)).state

    async def states(self, *records: VerificationRecord) -> list[State]:
        return [await self.state(record) for record in records]

    async def reaches(self, record: VerificationRecord, state: State) -> VerificationRecord:
        """Wait until ``record`` is in ``state``, and return it."""

        async def there() -> bool:
            return await self.state(record) is state

        await self.until(there, f"{record.id} is not {state.value}")
        return await self.get(record)

    async def until(self, true: Callable[[], Awaitable[bool] | bool], what: str = "it did not happen") -> None:
        """Poll ``true`` (a plain or an async predicate)."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PATIENCE_S
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            assert loop.time() < deadline_s, f"{what}; {self.forwarder.status}"
            await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        """Wait until the forwarder has looked at the queue and found nothing that it may do now."""
        while True:
            await self.until(lambda: self.forwarder.status.active == 0, "sequences do not end")
            sequences = len(self.client.spans)
            self.forwarder.wake()
            for _ in range(8):
                await self.keeper.run(
                    Store.audit_head
                )  # behind the forwarder's own questions: the store answers in order
            if self.forwarder.status.active == 0 and len(self.client.spans) == sequences:
                return

    def advance(self, seconds: float) -> None:
        """Let time pass on the terminal, and let the forwarder notice."""
        self.clock.advance(seconds)
        self.forwarder.wake()

    # -- what a test looks at

    @property
    def judged(self) -> list[str]:
        """SHA-256 of the target pictures in the order in which the service judged them."""
        return [judgement.target_sha256 for judgement in self.sandbox.judged]

    def steps(self) -> list[str]:
        """The steps the service saw, without tokens."""
        return [seen.step for seen in self.sandbox.requests if seen.step not in {"token", "refresh"}]


def sha256_of(record: VerificationRecord) -> str:
    """Of the picture that ``fakes.capture`` stored."""
    return hashlib.sha256(fakes.picture(record.id)).hexdigest()


def section(folder: Path, sandbox: SandboxServer, **changes: Any) -> CypherFaceSection:
    """Settings for ``sandbox``."""
    key = folder / "api.key"
    key.touch(0o600)
    key.write_text(sandbox.credentials.api_key)
    return CypherFaceSection.model_validate(
        {
            "base_url": sandbox.base_url,
            "merchant_id": sandbox.credentials.merchant_id,
            "api_key": {"file": key},
            "upload_hosts": [sandbox.host],
            "timeouts": {"connect_s": 5.0, "request_s": 5.0, "match_s": 5.0},
            **changes,
        }
    )


def play(folder: Path, sandbox: SandboxServer, scenario: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    """Run one scenario on a fresh bench."""

    async def run() -> None:
        async with Bench(folder, sandbox, **options) as bench:
            await scenario(bench)

    asyncio.run(run())
