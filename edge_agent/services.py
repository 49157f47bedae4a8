"""The CypherFace service that the terminal forwards to, and those it is leaving: one client and forwarder each.

A configuration may name another service, or the same one in another way. The new one takes the queue over at once; the
old one ends what it had begun, the capture of the session that is being filmed included, and is closed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge_agent.availability import ForwarderStatus
from edge_agent.config import Config, CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.forwarder import Forwarder
from edge_agent.offline.provisional import Provisional
from edge_agent.outbox.records import VerificationRecord
from edge_agent.storekeeper import Storekeeper


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """One way to one service."""

    client: CypherFaceClient
    forwarder: Forwarder


class Services:
    """Used from the event loop's thread only."""

    def __init__(
        self,
        keeper: Storekeeper,
        *,
        on_network: Callable[[ForwarderStatus], None],
        on_attempt: Callable[[str, str], None],
        expect: Callable[[], Callable[[], None]],
        loop: Callable[[str, Callable[[], Awaitable[None]]], None],
        client_factory: Callable[[CypherFaceSection], CypherFaceClient] = CypherFaceClient,
        provisional: Provisional | None = None,
    ) -> None:
        """``expect`` is called when there is a forwarder to beat; ``loop`` runs a body, again after an error.

        ``on_network``, ``on_attempt``: see Forwarder.
        """
        self._keeper = keeper
        self._on_network, self._on_attempt = on_network, on_attempt
        self._expect = expect
        self._beat: Callable[[], None] | None = None
        self._loop = loop
        self._client_factory = client_factory
        self._provisional = provisional
        self._open: set[Service] = set()
        self.current: Service | None = None

    async def prepare(self, config: Config) -> Service:
        """A service that does not forward yet. Raises ConfigurationError."""
        # in a thread: reading the certificate authorities takes 40 ms
        client = await asyncio.to_thread(self._client_factory, config.cypherface)
        forwarder = Forwarder(
            self._keeper,
            client,
            config.cypherface,
            deny_offline=config.offline.policy == "deny",
            provisional=self._provisional,
            on_network=self._on_network,
            on_attempt=self._on_attempt,
            beat=self._pulse,
        )
        return Service(client, forwarder)

    def change_to(self, service: Service | None) -> None:
        """Forward with ``service`` from now on; None: with none."""
        old, self.current = self.current, service
        if old is not None:
            old.forwarder.retire()
        if service is None:
            return
        self._open.add(service)
        self._beat = self._expect()

        async def serve() -> None:
            await service.forwarder.run()
            self._open.discard(service)
            await service.client.aclose()

        self._loop("forwarder", serve)

    def _pulse(self) -> None:
        if self._beat is not None:
            self._beat()

    async def abandon(self, erased: Callable[[VerificationRecord], bool]) -> None:
        """Cut the sequences of what was erased short; see ``Forwarder.abandon``."""
        for service in tuple(self._open):
            await service.forwarder.abandon(erased)

    async def look_again(self) -> None:
        """After a reload: fresh connections and certificate authorities, and no more waiting, also after a stop."""
        if self.current is not None:
            await self.current.client.rebuild()
            self.current.forwarder.resume()

    async def aclose(self) -> None:
        """Close every client; the forwarders have ended."""
        for service in self._open:
            await service.client.aclose()
