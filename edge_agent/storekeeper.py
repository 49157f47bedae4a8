"""The agent's hold on the outbox: its thread, its opening, and its return after the storage failed.

The store may be missing for a while (no key yet, another machine's state, a disk that came up late) and may break at
any moment (an fsync that failed, a torn page). Whoever asks then gets the error and no acknowledgement; ``watch`` closes
what is broken, opens it anew, and what was under way is void: the new store is another instance, so old leases are not
taken. A corrupt file is salvaged row by row first. Nobody has to restart the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from edge_agent.errors import AgentError, EnvironmentFault, StorageError
from edge_agent.moments import told
from edge_agent.outbox.records import SalvageReport
from edge_agent.outbox.store import Store
from edge_agent.workers import Worker

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""A store that cannot be opened is tried again this often."""
TICK_S = 60.0
"""The store counts running time, expires and cleans up this often."""
HEAD_S = 3600.0
"""The audit head goes to the journal this often, where a cut-off end can be told from."""

P = ParamSpec("P")
T = TypeVar("T")


class OpenStore(Protocol):
    """How to open it; called in the store's thread, each time anew. Raises AgentError."""

    def __call__(self, *, adopt: bool) -> Store: ...


def starting() -> EnvironmentFault:
    """What a part says that has not been brought up yet."""
    return EnvironmentFault("cannot answer yet: starting", code="starting", retryable=True)


Salvage = Callable[[], SalvageReport]
"""How to rebuild a corrupt outbox while it is closed; called in the store's thread. Raises AgentError."""


class Storekeeper:
    """One per agent. ``bring_up`` once, ``watch`` as a loop, ``close`` at the end; ``run`` in between."""

    def __init__(
        self,
        open_store: OpenStore,
        salvage: Salvage | None = None,
        *,
        on_change: Callable[[AgentError | None], None] = lambda _: None,
        beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_change`` hears in the event loop of a store that is missing now (the fault), or is back (None).

        ``beat`` is called at each turn of ``watch``.
        """
        self._open_store = open_store
        self._salvage = salvage
        self._on_change = on_change
        self._beat = beat
        self._clock = clock
        self._worker = Worker("store")
        self._store: Store | None = None
        self._fault: AgentError | None = starting()
        self._wake = asyncio.Event()
        self._next_head_s = 0.0
        self._doubtful = False
        self.reopened = 0
        """How often a broken store was replaced."""
        self.salvaged: SalvageReport | None = None
        """The last salvage of this process."""

    @property
    def fault(self) -> AgentError | None:
        """Why the store cannot be used, or None."""
        return self._fault

    def require(self) -> None:
        """Raise the fault that keeps the store away, if there is one."""
        if self._fault is not None:
            raise self._fault.with_traceback(None)

    async def run(self, operation: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a method of the store in its thread: ``await keeper.run(Store.get, id)``.

        Raises what the method raises, or the fault that keeps the store away: at once, also while a salvage that
        takes minutes has the thread.
        """
        self.require()
        try:
            return await self._worker.run(lambda: operation(self._need(), *args, **kwargs))
        except StorageError as exc:
            self._note_breakage(exc)
            raise

    async def bring_up(self, *, adopt: bool = False) -> None:
        """Open the store, replacing a broken one. Never raises AgentError: ``fault`` says what is missing."""
        try:
            await self._worker.run(self._replace, adopt=adopt)
        except AgentError as exc:
            self._settle(exc)
        else:
            self._settle(None)

    async def adopt(self) -> None:
        """Accept a state directory that was made on another machine. Raises the fault that remains."""
        await self.bring_up(adopt=True)
        self.require()

    async def watch(self) -> None:
        """Housekeeping for ever: tick a healthy store, replace a broken one, look for a missing one."""
        while True:
            self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S if self._fault is None else RETRY_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._fault is None:
                await self._tick()
            else:
                await self.bring_up()

    async def close(self) -> None:
        """Close the store in order, then its thread."""
        await self._worker.run(self._let_go)
        self._worker.close()

    # -- in the event loop

    def _note_breakage(self, error: StorageError) -> None:
        store = self._store
        if store is not None and store.broken and self._fault is None:
            self._settle(error)
            self._wake.set()

    def _settle(self, fault: AgentError | None) -> None:
        before, self._fault = self._fault, fault
        if fault is not None and (before is None or before.code != fault.code):
            log.error("the outbox cannot be used: %s", fault.message, extra=told("storage_missing", code=fault.code))
        if (before is None) != (fault is None) or (before and fault and before.code != fault.code):
            self._on_change(fault)

    async def _tick(self) -> None:
        try:
            await self.run(Store.tick)
            if self._clock() >= self._next_head_s:
                self._next_head_s = self._clock() + HEAD_S
                head = str(await self.run(Store.audit_head))
                log.info("audit head %s", head, extra=told("audit_head", head=head))
        except StorageError as exc:
            log.warning("cannot tidy the outbox up: %s", exc.message, extra={"code": exc.code})

    # -- in the store's thread

    def _need(self) -> Store:
        if self._store is None:
            # the fault lives on: its traceback must not grow by every refusal
            raise (self._fault or starting()).with_traceback(None)
        return self._store

    def _let_go(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            self._doubtful |= store.broken
            store.close()

    def _replace(self, *, adopt: bool) -> None:
        self._let_go()
        try:
            self._store = self._opened(adopt=adopt)
        except StorageError as exc:
            if exc.code != "storage_corrupt" or self._salvage is None:
                raise
            log.error("the outbox is salvaged: %s", exc.message, extra={"code": exc.code})  # noqa: TRY400
            self._rebuild(self._salvage)
            self._store = self._opened(adopt=adopt)

    def _rebuild(self, salvage: Salvage) -> None:
        report = self.salvaged = salvage()
        lost = {name: table.lost for name, table in report.tables.items() if table.lost}
        log.error(
            "the outbox was salvaged: %d captures kept, %d lost; rows lost: %s; the damaged files are in %s",
            report.captures_kept,
            len(report.captures_lost),
            lost or "none",
            report.aside,
            extra=told("storage_salvaged", kept=report.captures_kept, lost=len(report.captures_lost)),
        )

    def _opened(self, *, adopt: bool) -> Store:
        store = self._open_store(adopt=adopt)
        try:
            recovery = store.recover()
            if self._doubtful:
                self._prove(store)
        except BaseException:
            store.close()
            raise
        interrupted, resumed, head = len(recovery.interrupted), len(recovery.resumed), str(store.audit_head())
        log.info(
            "outbox opened: %d interrupted, %d go on as pending; audit head %s",
            interrupted,
            resumed,
            head,
            extra=told("storage_opened", interrupted=interrupted, resumed=resumed, audit_head=head),
        )
        return store

    def _prove(self, store: Store) -> None:
        """After a failure nothing is believed unread."""
        self.reopened += 1
        report = store.verify()
        for where, problem in report.problems.items():
            log.error("%s was damaged: %s", where, problem, extra={"code": "tampered"})
        store.note("reopened", verifications=report.verifications, damaged=len(report.problems))
        self._doubtful = False
