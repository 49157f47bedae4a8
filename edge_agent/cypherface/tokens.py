"""The access token: kept in memory only, fetched once for everybody who waits, renewed before it ends.

Its life is ``exp - iat`` counted from receipt on a clock that no one can set, because the wall clock of a terminal may
be years off. The signature is not checked: the client has no key, and only the service judges the token.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from edge_agent.errors import CypherFaceError, Unauthenticated

RENEW_AT = 0.9
"""Share of its life after which a token is renewed (2 days: 4.8 hours early)."""

RETRY_RENEWAL_S = 60.0
"""After a failed early renewal the old token is used on for this long before the next try."""

_TOO_MANY_REQUESTS = 429
_log = logging.getLogger(__name__)


def boottime_s() -> float:
    """Seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class TokenIssuer(Protocol):
    """The two calls that give a token. Both raise CypherFaceError."""

    async def issue(self) -> str:
        """A new token for the API key."""

    async def refresh(self, token: str) -> str:
        """A new token for an expired or expiring one."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token as received."""

    value: str = field(repr=False)
    received_at_s: float
    life_s: float | None
    """exp - iat; None when the token cannot be read: it is used until the service refuses it."""
    issued: bool
    """True when it came from the API key, false when from a refresh."""

    def due(self, now_s: float) -> bool:
        """True when it should be renewed."""
        return self.life_s is not None and now_s - self.received_at_s >= RENEW_AT * self.life_s

    def expired(self, now_s: float) -> bool:
        """True when the service no longer takes it."""
        return self.life_s is not None and now_s - self.received_at_s >= self.life_s


def life_s(token: str) -> float | None:
    """The seconds from iat to exp of a JWT or None when they make no sense. The signature is not checked."""
    import jwt  # not at the start: a terminal that is offline needs none

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    begin, end = claims.get("iat"), claims.get("exp")
    if not (_is_time(begin) and _is_time(end)):
        return None
    life = float(end) - float(begin)
    return life if life > 0 else None


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 and math.isfinite(value)


class TokenSource:
    """Hands out the current token; whoever waits while one is being fetched gets that one (single flight)."""

    def __init__(self, issuer: TokenIssuer, *, clock: Callable[[], float] = boottime_s) -> None:
        self._issuer = issuer
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: Token | None = None
        self._next_renewal_s = -math.inf

    async def current(self) -> Token:
        """A token that should be accepted: the one at hand, a renewed one near its end, else a new one.

        Raises CypherFaceError only when there is none at all: while the old token lives, a failed renewal is logged.
        """
        token = self._token
        if token is not None and not self._needs_renewal(token):
            return token
        async with self._lock:
            token = self._token
            if token is None:
                return await self._issue()
            if not self._needs_renewal(token):
                return token
            return await self._renew_early(token)

    async def renew(self, rejected: Token) -> Token:
        """After the service refused ``rejected``: by refresh-token, else by access-token."""
        return await self._replace(rejected, lambda: self._refresh(rejected))

    async def reissue(self, rejected: Token) -> Token:
        """After the service refused ``rejected``: by access-token alone."""
        return await self._replace(rejected, self._issue)

    def invalidate(self, token: Token) -> None:
        """Forget ``token``, unless it has been replaced already."""
        if self._token is token:
            self._token = None

    async def _replace(self, rejected: Token, fetch: Callable[[], Awaitable[Token]]) -> Token:
        async with self._lock:
            if self._token is not None and self._token is not rejected:
                return self._token  # somebody else renewed it meanwhile
            try:
                return await fetch()
            except Unauthenticated:
                self._token = None  # refused by the service, and nothing came in its place
                raise

    def _needs_renewal(self, token: Token) -> bool:
        now_s = self._clock()
        return token.expired(now_s) or (token.due(now_s) and now_s >= self._next_renewal_s)

    async def _renew_early(self, token: Token) -> Token:
        try:
            return await self._refresh(token)
        except CypherFaceError as exc:
            now_s = self._clock()
            if token.expired(now_s):
                raise
            self._next_renewal_s = now_s + RETRY_RENEWAL_S
            _log.warning("token not renewed early (%s); the old one is used on", exc.code)
            return token

    async def _refresh(self, token: Token) -> Token:
        """By refresh-token; any answer of the service that is not a new token leads to access-token."""
        try:
            value = await self._issuer.refresh(token.value)
        except CypherFaceError as exc:
            if exc.status is None or exc.status == _TOO_MANY_REQUESTS:
                raise  # the network, or a plea to wait: a second call would not fare better
            _log.info("token refresh refused (status %s); asking for a new token", exc.status)
            return await self._issue()
        return self._keep(value, issued=False)

    async def _issue(self) -> Token:
        return self._keep(await self._issuer.issue(), issued=True)

    def _keep(self, value: str, *, issued: bool) -> Token:
        self._token = Token(value, self._clock(), life_s(value), issued)
        self._next_renewal_s = -math.inf
        return self._token
