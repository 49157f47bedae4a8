"""The offline policy ``provisional``, as the forwarder sees it: learn from a confirmation, answer when nothing answers.

Nothing here makes a verdict: ``verified`` is CypherFace's word alone. Whatever goes wrong, the capture stays queued and
the answer is the one of the policy ``queue``.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable

from edge_agent.config import Config
from edge_agent.errors import AgentError, StorageError, report
from edge_agent.offline.faces import Faces, likeness, stored
from edge_agent.offline.threshold import Yardstick
from edge_agent.outbox.provisional_records import TEMPLATE_SCOPE, NewTemplate, Withheld
from edge_agent.outbox.records import Leased, StateConflict, VerificationRecord
from edge_agent.outbox.store import Store
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import State

log = logging.getLogger(__name__)


class Provisional:
    """Used from the event loop's thread only."""

    def __init__(self, keeper: Storekeeper, faces: Faces, config: Callable[[], Config]) -> None:
        """``config``: the present one."""
        self._keeper = keeper
        self._faces = faces
        self._config = config
        self.counts: Counter[str] = Counter()
        """Since the start: answered, confirmed, contradicted, templates, and withheld by its reason."""

    @property
    def fault(self) -> AgentError | None:
        """Why the policy is configured and cannot be followed; without models their own fault says it."""
        if self._config().offline.policy != "provisional":
            return None
        try:
            self._faces.yardstick()
        except AgentError as exc:
            return exc
        return None

    def yardstick(self) -> Yardstick | None:
        """What is compared by; None where the policy is another one or cannot be followed."""
        if self._config().offline.policy != "provisional":
            return None
        try:
            return self._faces.yardstick()
        except AgentError:
            return None

    async def settled(self, before: VerificationRecord, record: VerificationRecord, picture: bytes) -> None:
        """CypherFace has said its word about a capture: count it, and learn from it. Raises no AgentError."""
        if before.state is State.PROVISIONALLY_VERIFIED or record.contradicted:
            self.counts["contradicted" if record.contradicted else "confirmed"] += 1
        if record.contradicted:
            log.error("a provisional answer is contradicted: %s", record.id, extra={"code": "contradicted"})
        by = self.yardstick()
        if by is None or not _may_learn(record):
            return
        try:
            seen = await self._faces.look(picture)
            template = NewTemplate(stored(seen.embedding), seen.model, seen.quality)
            self.counts["templates"] += await self._keeper.run(Store.keep_template, record.id, template)
        except Exception as exc:  # the verdict stands, whatever becomes of the template
            report(log, exc, f"cannot keep a template of {record.id}")

    async def answer(self, leased: Leased, picture: bytes) -> None:
        """No connection came about in this attempt: say what can be said. Raises LeaseLost, no other AgentError."""
        if self._config().offline.policy != "provisional":
            return
        try:
            await self._keeper.run(Store.begin_outage)
            if leased.record.state is State.MATCHING:  # the backlog has had its answer
                await self._answer(leased, picture)
        except StateConflict:
            raise
        except Exception as exc:  # the capture is queued, and that is the answer
            report(log, exc, f"cannot answer {leased.record.id} provisionally")
            with contextlib.suppress(StorageError):  # it was told of already
                await self._unavailable(leased)

    async def _unavailable(self, leased: Leased) -> None:
        self.counts[Withheld.UNAVAILABLE] += 1
        await self._keeper.run(Store.withhold, leased.record.id, leased.lease, Withheld.UNAVAILABLE)

    async def _answer(self, leased: Leased, picture: bytes) -> None:
        id_, lease, by = leased.record.id, leased.lease, self.yardstick()
        if by is None:
            await self._unavailable(leased)
            return
        considered = await self._keeper.run(Store.consider, id_, lease, by.model)
        if considered.withheld is not None:
            self.counts[considered.withheld] += 1
            return
        alike = likeness(await self._faces.look(picture), considered.templates, by)
        record = await self._keeper.run(Store.answer, id_, lease, alike)
        answered = record.state is State.PROVISIONALLY_VERIFIED
        # the deadline may have passed during the comparison: then the record keeps what it has
        self.counts["answered" if answered else " ".join(record.reasons) or Withheld.NOT_LIVE] += 1


def _may_learn(record: VerificationRecord) -> bool:
    """Before anything is computed: without consent no embedding comes into being. The store looks again."""
    verdict, consent = record.verdict, record.consent
    confirmed = record.state is State.VERIFIED and verdict is not None and verdict.similarity is not None
    return confirmed and consent is not None and TEMPLATE_SCOPE in consent.scopes
