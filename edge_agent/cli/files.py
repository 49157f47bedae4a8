"""The outbox on its files, while no agent runs: the same operations, under the same lock as the daemon's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edge_agent.api import custody
from edge_agent.api.wire import UserDestroyedBody
from edge_agent.api.wire_outbox import (
    AdoptionBody,
    AuditCheck,
    OutboxCheck,
    OutboxEntry,
    OutboxList,
    PrivacyBody,
    PurgeBody,
    RetryBody,
    RotationBody,
)
from edge_agent.config import Config
from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import Clock, SystemClock
from edge_agent.outbox.configured import open_outbox
from edge_agent.outbox.holdings import Holdings
from edge_agent.outbox.records import AuditHead, Environment, Limits
from edge_agent.outbox.structure import Structure, require_outbox
from edge_agent.outbox.sweep import Swept


class FilesAccess:
    """Opens the store for each operation and lets it go again. Raises what ``Store.open`` raises."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock: Clock = clock or SystemClock()
        self._actor = f"uid:{os.geteuid()} via files"

    def outbox_list(self, *, limit: int = 100, before: int | None = None, parked: bool | None = None) -> OutboxList:
        with self._store() as store:
            return custody.waiting(store, limit=limit, before=before, parked=parked)

    def outbox_show(self, verification_id: str) -> OutboxEntry:
        with self._store() as store:
            return custody.entry(store, verification_id)

    def outbox_verify(self) -> OutboxCheck:
        with self._store() as store, Structure(self._config.state_dir, self._clock) as structure:
            return custody.check_body(structure.check(), store.verify(), custody.AUTHENTICATED)

    def outbox_retry(self, verification_id: str) -> RetryBody:
        with self._store() as store:
            return custody.retry(store, verification_id, actor=self._actor, forwarding=False)

    def outbox_retry_all(self, *, parked: bool = False) -> RetryBody:
        service = self._config.cypherface
        environment = Environment(service.base_url, service.merchant_id)
        with self._store() as store:
            return custody.retry_all(store, environment, actor=self._actor, parked=parked, forwarding=False)

    def outbox_export(self, verification_id: str) -> bytes:
        with self._store() as store:
            return custody.export(store, verification_id, actor=self._actor)

    def outbox_purge(self, verification_id: str) -> PurgeBody:
        with self._store() as store:
            return custody.purge(store, verification_id, actor=self._actor)

    def outbox_purge_all(self, *, parked_only: bool) -> PurgeBody:
        with self._store() as store:
            return custody.purge_all(store, actor=self._actor, parked_only=parked_only)

    def audit_verify(self, expect_head: str | None = None) -> AuditCheck:
        head = None if expect_head is None else AuditHead.parse(expect_head)
        with self._store() as store:
            return custody.audit_body(store.verify_audit(head), custody.AUTHENTICATED)

    def key_rotate(self) -> RotationBody:
        with self._store() as store:
            return custody.rotate(store, actor=self._actor)

    def privacy(self) -> PrivacyBody:
        with Holdings(self._config.state_dir, self._clock) as holdings:
            found = holdings.holdings(Limits.of(self._config))
        return custody.privacy_body(self._clock.wall(), self._config.terminal_id, found)

    def delete_user(self, user_id: str) -> UserDestroyedBody:
        with self._store() as store:
            return custody.destroyed_body(store.delete_user(user_id, actor=self._actor), filming_ended=False)

    def sweep(self) -> Swept:
        """Keep the retention periods; the agent does that by itself while it runs."""
        with self._store() as store:
            return store.sweep()

    def adopt(self) -> AdoptionBody:
        if not self._is_moved():
            raise custody.not_moved()
        with self._store(adopt=True) as store:
            store.adopted_by(self._actor)
        return AdoptionBody()

    def _is_moved(self) -> bool:
        try:
            with self._store():
                return False
        except StorageError as exc:
            if exc.code != "state_moved":
                raise
            return True

    @contextmanager
    def _store(self, *, adopt: bool = False) -> Iterator[Store]:
        config = self._config
        require_outbox(config.state_dir)
        with open_outbox(config, clock=self._clock, adopt=adopt) as store:
            yield store
