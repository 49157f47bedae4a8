"""One token for everybody, renewed in time, by whichever way works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import jwt
import pytest

from edge_agent.cypherface.tokens import RETRY_RENEWAL_S, Token, TokenSource, life_s
from edge_agent.errors import CypherFaceError, Transient, Unauthenticated

from .service import TWO_DAYS_S, Clock, token

Step = str | CypherFaceError


class Issuer:
    """Gives tokens or errors from a script; ``gate`` holds every call until it is set."""

    def __init__(self, *, issue: list[Step] | None = None, refresh: list[Step] | None = None) -> None:
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None
        self._issue: list[Step] = issue or [token("issued")]
        self._refresh: list[Step] = refresh or [token("refreshed")]

    async def issue(self) -> str:
        return await self._next("issue", self._issue)

    async def refresh(self, token: str) -> str:
        assert token
        return await self._next("refresh", self._refresh)

    async def _next(self, name: str, steps: list[Step]) -> str:
        self.calls.append(name)
        if self.gate is not None:
            await self.gate.wait()
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, CypherFaceError):
            raise step
        return step


def refused(status: int = 401) -> CypherFaceError:
    return Unauthenticated("cannot", status=status)


def run(issuer: Issuer, work: Callable[[TokenSource, Clock], Awaitable[None]]) -> None:
    clock = Clock()
    asyncio.run(_run(TokenSource(issuer, clock=clock), clock, work))


async def _run(source: TokenSource, clock: Clock, work: Callable[[TokenSource, Clock], Awaitable[None]]) -> None:
    await work(source, clock)


def test_a_token_is_fetched_once_and_kept() -> None:
    issuer = Issuer()

    async def work(source: TokenSource, clock: Clock) -> None:
        first = await source.current()
        clock.now_s += 0.89 * TWO_DAYS_S
        assert await source.current() is first

    run(issuer, work)
    assert issuer.calls == ["issue"]


def test_many_at_once_wait_for_one_fetch() -> None:
    issuer = Issuer()

    async def work(source: TokenSource, _clock: Clock) -> None:
        issuer.gate = asyncio.Event()
        waiting = [asyncio.create_task(source.current()) for _ in range(20)]
        await asyncio.sleep(0)
        issuer.gate.set()
        assert len(set(map(id, await asyncio.gather(*waiting)))) == 1

    run(issuer, work)
    assert issuer.calls == ["issue"]


def test_a_cancelled_fetch_leaves_the_way_free_for_the_next() -> None:
    issuer = Issuer()

    async def work(source: TokenSource, _clock: Clock) -> None:
        issuer.gate = asyncio.Event()
        first, second = (asyncio.create_task(source.current()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        issuer.gate.set()
        assert (await second).issued

    run(issuer, work)
    assert issuer.calls == ["issue", "issue"]


def test_near_its_end_a_token_is_refreshed() -> None:
    issuer = Issuer()

    async def work(source: TokenSource, clock: Clock) -> None:
        await source.current()
        clock.now_s += 0.9 * TWO_DAYS_S
        fresh = await source.current()
        assert not fresh.issued
        assert fresh.received_at_s == clock.now_s
        assert await source.current() is fresh

    run(issuer, work)
    assert issuer.calls == ["issue", "refresh"]


@pytest.mark.parametrize("error", [refused(400), refused(401), refused(404), Transient("cannot", status=500)])
def test_a_refused_refresh_falls_back_to_the_api_key(error: CypherFaceError) -> None:
    issuer = Issuer(refresh=[error])

    async def work(source: TokenSource, clock: Clock) -> None:
        await source.current()
        clock.now_s += 2 * TWO_DAYS_S
        assert (await source.current()).issued

    run(issuer, work)
    assert issuer.calls == ["issue", "refresh", "issue"]


def test_a_failed_early_renewal_uses_the_old_token_on_and_tries_again_later() -> None:
    issuer = Issuer(refresh=[Transient("cannot"), token("later")])

    async def work(source: TokenSource, clock: Clock) -> None:
        first = await source.current()
        clock.now_s += 0.95 * TWO_DAYS_S
        assert await source.current() is first
        assert await source.current() is first
        assert issuer.calls == ["issue", "refresh"]
        clock.now_s += RETRY_RENEWAL_S
        assert await source.current() is not first

    run(issuer, work)
    assert issuer.calls == ["issue", "refresh", "refresh"]


@pytest.mark.parametrize("error", [Transient("cannot"), Transient("cannot", status=429, retry_after_s=9)])
def test_an_expired_token_is_not_used_when_the_renewal_fails(error: CypherFaceError) -> None:
    issuer = Issuer(refresh=[error])

    async def work(source: TokenSource, clock: Clock) -> None:
        await source.current()
        clock.now_s += TWO_DAYS_S
        with pytest.raises(Transient):
            await source.current()

    run(issuer, work)
    assert issuer.calls == ["issue", "refresh"]


def test_a_rejected_token_is_renewed_once_for_all_who_used_it() -> None:
    issuer = Issuer()

    async def work(source: TokenSource, _clock: Clock) -> None:
        rejected = await source.current()
        fresh = await asyncio.gather(*(source.renew(rejected) for _ in range(5)))
        assert len(set(map(id, fresh))) == 1
        assert await source.reissue(rejected) is fresh[0]

    run(issuer, work)
    assert issuer.calls == ["issue", "refresh"]


def test_a_token_that_was_rejected_and_not_replaced_is_forgotten() -> None:
    issuer = Issuer(issue=[token("a"), refused(), token("b")], refresh=[refused()])

    async def work(source: TokenSource, _clock: Clock) -> None:
        rejected = await source.current()
        with pytest.raises(Unauthenticated):
            await source.renew(rejected)
        assert (await source.current()).value == token("b")

    run(issuer, work)


def test_invalidate_forgets_only_the_token_that_is_meant() -> None:
    issuer = Issuer(issue=[token("a"), token("b")])

    async def work(source: TokenSource, clock: Clock) -> None:
        first = await source.current()
        source.invalidate(Token("other", clock.now_s, None, issued=True))
        assert await source.current() is first
        source.invalidate(first)
        assert (await source.current()).value == token("b")

    run(issuer, work)


def _jwt(**claims: object) -> str:
    return jwt.encode(claims, "k" * 32, algorithm="HS256")


@pytest.mark.parametrize(
    ("value", "life"),
    [
        (token("x"), float(TWO_DAYS_S)),
        (token("x", iat=0), float(TWO_DAYS_S)),
        (_jwt(iat=100, exp=160.5), 60.5),
        (_jwt(iat=100, exp=100), None),
        (_jwt(iat=100, exp=50), None),
        (_jwt(exp=50), None),
        (_jwt(iat=50), None),
        (_jwt(iat="100", exp=200), None),
        (_jwt(iat=True, exp=200), None),
        (_jwt(iat=100, exp=10**400), None),
        (_jwt(iat=100, exp=None), None),
        ("opaque", None),
        ("a.b.c", None),
        ("", None),
        ("eyJhbGciOiJub25lIn0.W10.", None),
    ],
)
def test_the_life_of_a_token_is_read_without_trusting_the_wall_clock(value: str, life: float | None) -> None:
    assert life_s(value) == life


def test_an_unreadable_token_is_used_until_it_is_refused() -> None:
    issuer = Issuer(issue=["opaque"])

    async def work(source: TokenSource, clock: Clock) -> None:
        first = await source.current()
        clock.now_s += 1e9
        assert await source.current() is first

    run(issuer, work)


def test_a_token_does_not_show_its_value() -> None:
    assert "secret" not in repr(Token("secret", 0.0, None, issued=True))
