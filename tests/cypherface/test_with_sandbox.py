"""The client against the sandbox: every documented variant of the service over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import CypherFaceSection
from edge_agent.cypherface.client import CypherFaceClient, new_image_name
from edge_agent.cypherface.verdict import VerdictKind
from edge_agent.errors import CaptureRefused, CypherFaceError, SequenceConflict, Unauthenticated
from edge_agent.sandbox.server import SandboxServer
from edge_agent.sandbox.variants import Variants

from .conftest import Settings

PICTURE = b"\xff\xd8 a picture"


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as running:
        yield running


@pytest.fixture
def sandbox(server: SandboxServer) -> SandboxServer:
    server.reset()
    server.enrol("jane", PICTURE)
    server.enrol("no-one", PICTURE)
    return server


async def sequence(client: CypherFaceClient, user_id: str) -> VerdictKind:
    target = await client.generate_url(user_id, new_image_name(), "image/jpeg", "match")
    await client.put(target, PICTURE, "image/jpeg")
    return (await client.match(user_id)).kind


def section(sandbox: SandboxServer, settings: Settings, key: Path, **changes: Any) -> CypherFaceSection:
    key.touch(0o600)
    key.write_text(sandbox.credentials.api_key)
    return settings(
        base_url=sandbox.base_url,
        merchant_id=sandbox.credentials.merchant_id,
        api_key={"file": key},
        upload_hosts=[sandbox.host],
        **changes,
    )


def ask(sandbox: SandboxServer, settings: Settings, tmp_path: Path, *users: str, **changes: Any) -> list[VerdictKind]:
    async def session() -> list[VerdictKind]:
        async with CypherFaceClient(section(sandbox, settings, tmp_path / "sandbox-key", **changes)) as client:
            return [await sequence(client, user) for user in users]

    return asyncio.run(session())


def choices(name: str) -> list[Any]:
    return list(Variants.model_fields[name].annotation.__args__)  # type: ignore[union-attr]


ONE_BY_ONE = [
    {name: value}
    for name in ("token_field", "id_claim", "url_field", "match_path", "mismatch_style", "refresh", "error_style")
    for value in choices(name)
] + [
    {"token_under_data": True},
    {"url_under_data": True},
    {"session_cookie": True},
    {"url_valid_s": 60},
    {"url_valid_s": 4800},
    {"match_style": "face_match_message"},
    {"match_style": "matched"},
    {"clock_skew_s": -1e8},
    {"clock_skew_s": 1e8},
    *({"mismatch_style": "false_4xx", "mismatch_status": status} for status in choices("mismatch_status")),
]


@pytest.mark.parametrize("variant", ONE_BY_ONE, ids=str)
def test_both_outcomes_are_right_in_every_variant(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, variant: dict[str, Any]
) -> None:
    sandbox.vary(**variant)
    path = {"match_path": variant["match_path"]} if variant.get("match_path", "both") != "both" else {}
    found = ask(sandbox, settings, tmp_path, "jane", "no-one", **path)
    assert found == [VerdictKind.POSITIVE, VerdictKind.NEGATIVE]


@pytest.mark.parametrize(("service", "client"), list(itertools.product(["raw", "bearer", "both"], ["raw", "bearer"])))
def test_the_authorization_scheme_must_fit(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, service: str, client: str
) -> None:
    sandbox.vary(auth_scheme=service)
    if service in {client, "both"}:
        assert ask(sandbox, settings, tmp_path, "jane", auth_scheme=client) == [VerdictKind.POSITIVE]
    else:
        with pytest.raises(CypherFaceError):
            ask(sandbox, settings, tmp_path, "jane", auth_scheme=client)


@pytest.mark.parametrize("style", ["empty", "bare"])
def test_a_200_without_a_verdict_is_one_only_with_the_setting(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, style: str
) -> None:
    sandbox.vary(match_style=style)
    with pytest.raises(SequenceConflict):
        ask(sandbox, settings, tmp_path, "jane")
    found = ask(sandbox, settings, tmp_path, "jane", "no-one", accept_bare_200=True)
    assert found == [VerdictKind.POSITIVE, VerdictKind.NEGATIVE]


def test_a_user_without_a_source_image_is_unknown(sandbox: SandboxServer, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CaptureRefused) as caught:
        ask(sandbox, settings, tmp_path, "stranger")
    assert caught.value.code == "unknown_user"


@pytest.mark.parametrize("status", [401, 403])
def test_a_revoked_key_is_unauthenticated(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, status: int
) -> None:
    sandbox.vary(api_key_revoked=True, bad_key_status=status)
    with pytest.raises(Unauthenticated):
        ask(sandbox, settings, tmp_path, "jane")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("refresh", "calls"),
    [("ok", ["refresh", "generate_url"]), ("refused", ["refresh", "token", "generate_url"])],
)
def test_a_token_that_ended_early_is_replaced(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, status: int, refresh: str, calls: list[str]
) -> None:
    """The service's clock runs ahead, so the client cannot know that its token ended."""
    sandbox.vary(bad_token_status=status, refresh=refresh)
    key = tmp_path / "sandbox-key"

    async def session() -> VerdictKind:
        async with CypherFaceClient(section(sandbox, settings, key)) as client:
            await sequence(client, "jane")
            sandbox.advance(200_000)
            return await sequence(client, "jane")

    assert asyncio.run(session()) is VerdictKind.POSITIVE
    assert [seen.step for seen in sandbox.requests][4:] == ["generate_url", *calls, "put", "match"]


def test_a_sequence_searches_the_path_for_no_module(
    sandbox: SandboxServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python does not remember a module that it did not find, and the HTTP library asks for one again and again."""
    searched: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            del path, target
            searched.append(name)

    ask(sandbox, settings, tmp_path, "jane")  # what is imported at the first use is here now
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    ask(sandbox, settings, tmp_path, "jane")
    assert searched == []
