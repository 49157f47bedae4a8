"""When a capture is answered without CypherFace: only where its own attempt got no connection at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.config import Config
from edge_agent.errors import (
    CaptureRefused,
    CypherFaceError,
    SequenceConflict,
    ServiceMisconfigured,
    Transient,
    Unauthenticated,
)
from edge_agent.offline.faces import Faces, stored
from edge_agent.offline.provisional import Provisional
from edge_agent.outbox import Store
from edge_agent.outbox.provisional_records import NewTemplate, Withheld
from edge_agent.outbox.records import Consent, Limits, VerificationRecord
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from edge_agent.workers import Worker
from tests.bench import Bench
from tests.faces import measurement
from tests.faults.cases import ANSWERS, NETWORK, SERVICE, Case, Stage
from tests.faults.proxy import PASS, FaultProxy, Mode
from tests.offline.people import FaceEyes, image_of, jpeg_of
from tests.outbox import fakes

FAST = {"connect_s": 0.25, "request_s": 0.25, "match_s": 0.25}
CONSENT = Consent("consent-1", ("match", "template"))
_numbers = itertools.count(1)
REFUSED = Mode("refuse")

OFFLINE = {
    "policy": "provisional",
    "face_threshold": {"cosine": 0.6, "not_evidence": True},
    "max_amounts": {"EUR": 50},
    "max_answers": 1000,
}


class OfflineBench(Bench):
    """A bench whose forwarder follows the policy ``provisional``."""

    def __init__(self, folder: Path, sandbox: Any, **settings: Any) -> None:
        super().__init__(folder, sandbox, **settings)
        service = {"base_url": self.settings.base_url, "merchant_id": self.settings.merchant_id,
                   "api_key": {"file": folder / "api.key"}, "upload_hosts": ["127.0.0.1"]}  # fmt: skip
        self.config = Config.model_validate({"offline": OFFLINE, "cypherface": service})
        self.eyes: FaceEyes | None = FaceEyes()
        self.worker = Worker("inference")

    async def __aenter__(self) -> OfflineBench:
        await super().__aenter__()
        faces = Faces(self.worker, lambda: self.config, lambda: self.eyes)
        self.provisional = Provisional(self.keeper, faces, lambda: self.config)
        self.forwarder._provisional = self.provisional
        await self.keeper.run(lambda store: setattr(store, "limits", Limits.of(self.config)))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.worker.close()

    async def confirmed(self, person: int = 1) -> str:
        """A user whose template was kept of an earlier verdict."""
        user = f"user-{next(_numbers)}"
        self.sandbox.enrol(user, b"source picture")

        def confirm(store: Store) -> None:
            record = self._captured(store, user, person)
            leased = store.lease_one(record.id, lease_s=60.0)
            assert leased is not None
            fakes.finish(store, leased)
            assert self.eyes is not None
            vector = self.eyes.embed(SimpleNamespace(image=image_of(person)), None)  # type: ignore[arg-type]
            by = self.provisional.yardstick()
            assert by is not None
            assert store.keep_template(record.id, NewTemplate(stored(vector), by.model, 0.8))

        await self.keeper.run(confirm)
        return user

    def _captured(self, store: Store, user: str, person: int, **values: Any) -> VerificationRecord:
        defaults = {"consent": CONSENT, "amount": Decimal(10), "currency": "EUR", "environment": self.environment}
        return fakes.capture(store, user, jpeg_of(person, next(_numbers)), **(defaults | values))

    async def presents(self, user: str, person: int = 1, **values: Any) -> VerificationRecord:
        """A live capture, forwarded once; the record after it."""
        record = await self.keeper.run(lambda store: self._captured(store, user, person, **values))
        await self.forwarder.submit(record.id)
        await self.until(lambda: self.forwarder.status.active == 0, "the sequence does not end")
        return await self.get(record)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@asynccontextmanager
async def bench(folder: Path, sandbox: Any, **settings: Any) -> AsyncIterator[OfflineBench]:
    async with OfflineBench(folder, sandbox, timeouts=FAST, **settings) as opened:
        yield opened


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await work()

    asyncio.run(run())


# -- on the wire


def behind(proxy: FaultProxy, sandbox: SandboxServer) -> Any:
    """The sandbox as it is seen through the proxy."""
    host = proxy.base_url.removeprefix("http://").rstrip("/")
    known = {"base_url": proxy.base_url, "host": host, "credentials": sandbox.credentials, "enrol": sandbox.enrol}
    return SimpleNamespace(**known)


CONNECTED = [case for case in (*NETWORK, *SERVICE, *ANSWERS[::4]) if case.error != "connect"]
"""Of the plain answers a few: that there was one is what counts."""


@pytest.mark.parametrize("case", CONNECTED, ids=[case.name for case in CONNECTED])
def test_nothing_is_answered_after_anything_but_a_failure_to_connect(
    tmp_path: Path, sandbox: SandboxServer, case: Case
) -> None:
    async def work() -> None:
        async with bench(tmp_path, behind(proxy, sandbox)) as b:
            user = await b.confirmed()
            case.begin(stage)
            record = await b.presents(user)
            assert (record.attempts, record.error_code) == (1, case.error), "the fault was not met"
            assert record.state is not State.PROVISIONALLY_VERIFIED
            history = (await b.keeper.run(Store.describe, record.id)).history
            assert not {"answer", "withhold"} & {entry.event for entry in history}
            assert b.provisional.counts == {}

    sandbox.reset()
    with FaultProxy(int(sandbox.base_url.rstrip("/").rsplit(":", 1)[1])) as proxy:
        stage = Stage(SimpleNamespace(folder=tmp_path, server=sandbox), proxy)  # type: ignore[arg-type]
        play(work)


def test_a_refused_connection_is_answered_and_confirmed_when_the_line_is_back(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    async def work() -> None:
        async with bench(tmp_path, behind(proxy, sandbox)) as b:
            user = await b.confirmed()
            proxy.set(REFUSED)
            record = await b.presents(user)
            assert (record.state, record.reasons, record.error_code) == (State.PROVISIONALLY_VERIFIED, (), "connect")
            stranger = await b.presents(user, person=2)
            assert (stranger.state, stranger.reasons) == (State.PENDING, (Withheld.FACE_DIFFERS,))
            assert b.provisional.counts == {"answered": 1, Withheld.FACE_DIFFERS: 1}
            proxy.set(PASS)
            b.clock.advance(60)
            b.start()
            b.forwarder.resume()
            done = await b.reaches(record, State.VERIFIED)
            assert (done.late, done.contradicted) == (True, False)
            await b.reaches(stranger, State.VERIFIED)  # this sandbox says yes to every picture
            await b.until(lambda: b.provisional.counts["confirmed"] == 1, "the confirmation is not counted")
            await b.quiet()

    sandbox.reset()
    with FaultProxy(int(sandbox.base_url.rstrip("/").rsplit(":", 1)[1])) as proxy:
        play(work)


# -- in the forwarder, for what a proxy cannot play


def no_connection(**values: Any) -> Transient:
    return Transient("cannot: no connection", **{"code": "connect", "connect_failed": True, **values})


ERRORS: list[tuple[str, str, CypherFaceError]] = [
    ("TLS", "generate_url", Transient("cannot: TLS", code="tls")),
    ("TLS, wrongly marked", "generate_url", no_connection(code="tls")),
    ("a portal", "generate_url", Transient("cannot: a portal", code="captive_portal", status=200)),
    ("a portal, wrongly marked", "generate_url", no_connection(code="captive_portal")),
    ("an answer", "generate_url", no_connection(status=503)),
    ("a time-out", "generate_url", Transient("cannot: slow", code="timeout")),
    ("a reset", "generate_url", Transient("cannot: reset", code="network", outcome_unknown=True)),
    ("an unknown outcome", "generate_url", no_connection(outcome_unknown=True)),
    ("a connection that was there", "generate_url", no_connection(connect_failed=False)),
    ("a conflict", "generate_url", SequenceConflict("cannot: conflict", connect_failed=True)),
    ("a conflict, wrongly marked", "generate_url",
     SequenceConflict("cannot: conflict", code="connect", connect_failed=True)),
    ("a refusal", "generate_url", CaptureRefused("cannot: refused", connect_failed=True)),
    ("a revoked key", "generate_url", Unauthenticated("cannot: revoked", connect_failed=True)),
    ("a wrong path", "generate_url", ServiceMisconfigured("cannot: wrong path", connect_failed=True)),
    ("a line that breaks before the PUT", "put", no_connection()),
    ("a line that breaks before the match", "match", no_connection()),
]  # fmt: skip


@pytest.mark.parametrize(("step", "error"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_an_error_that_is_no_failure_of_the_first_connection_answers_nothing(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, step: str, error: CypherFaceError
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            user = await b.confirmed()
            monkeypatch.setattr(b.client, step, fail)
            record = await b.presents(user)
            assert record.state is not State.PROVISIONALLY_VERIFIED
            assert b.provisional.counts == {}

    sandbox.reset()
    play(work)


Setting = Callable[[OfflineBench], object]


def _without_models(b: OfflineBench) -> None:
    b.eyes = None


def _without_embedder(b: OfflineBench) -> None:
    b.eyes = SimpleNamespace(measure=None)  # type: ignore[assignment]


def _other_pack(b: OfflineBench) -> None:
    b.eyes = FaceEyes("scrfd-minifas")


def _policy(**changes: Any) -> Setting:
    def change(b: OfflineBench) -> None:
        section = type(b.config.offline).model_validate({**OFFLINE, **changes})
        b.config = b.config.model_copy(update={"offline": section})

    return change


def _stopped(b: OfflineBench) -> None:
    async def stop(*_: object, **__: object) -> None:
        await b.forwarder._stop("unauthenticated")  # by another capture, while this one is tried
        raise no_connection()

    b.client.generate_url = stop  # type: ignore[method-assign, assignment]


def _answer_meanwhile(b: OfflineBench) -> None:
    async def heard(*_: object, **__: object) -> None:
        b.client._line.answers += 1
        raise no_connection()

    b.client.generate_url = heard  # type: ignore[method-assign, assignment]


def _no_face_again(b: OfflineBench) -> None:
    assert b.eyes is not None
    b.eyes.sees = measurement(())


SETTINGS: list[tuple[str, Setting, tuple[str, ...]]] = [
    ("there are no models", _without_models, (Withheld.UNAVAILABLE,)),
    ("the models have no embedder", _without_embedder, (Withheld.UNAVAILABLE,)),
    ("the embedder is another one", _other_pack, (Withheld.NO_TEMPLATE,)),
    ("nobody measured a threshold", _policy(face_threshold=None), (Withheld.UNAVAILABLE,)),
    ("the policy is another one", _policy(policy="queue"), ()),
    ("forwarding had stopped", _stopped, ()),
    ("a server was heard meanwhile", _answer_meanwhile, ()),
    ("no face is found again", _no_face_again, (Withheld.UNAVAILABLE,)),
]


@pytest.mark.parametrize(("setting", "reasons"), [s[1:] for s in SETTINGS], ids=[s[0] for s in SETTINGS])
def test_without_a_connection_nothing_is_answered_either_where(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, setting: Setting, reasons: tuple[str, ...]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise no_connection()

    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            user = await b.confirmed()
            monkeypatch.setattr(b.client, "generate_url", fail)
            setting(b)
            record = await b.presents(user)
            assert record.state is not State.PROVISIONALLY_VERIFIED
            assert record.reasons == reasons

    sandbox.reset()
    play(work)


def test_a_capture_whose_deadline_passes_during_the_comparison_is_counted_by_its_reason(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Store.answer

    def late(store: Store, id_: str, *rest: Any) -> VerificationRecord:
        store.pend(id_)
        return answer(store, id_, *rest)

    async def fail(*_: object, **__: object) -> None:
        raise no_connection()

    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            user = await b.confirmed()
            monkeypatch.setattr(b.client, "generate_url", fail)
            monkeypatch.setattr(Store, "answer", late)
            record = await b.presents(user)
            assert (record.state, record.reasons) == (State.PENDING, ())
            assert b.provisional.counts == {Withheld.NOT_LIVE: 1}

    sandbox.reset()
    play(work)


def test_a_stop_outlives_a_restart_as_far_as_answers_go(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[CypherFaceError] = [Unauthenticated("cannot: revoked"), no_connection(), no_connection()]

    async def fail(*_: object, **__: object) -> None:
        raise errors.pop(0)

    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            users = [await b.confirmed() for _ in range(3)]
            monkeypatch.setattr(b.client, "generate_url", fail)
            assert (await b.presents(users[0])).error_code == "unauthenticated"
            b.forwarder.status.network = "unknown"  # as a new process has it
            refused = await b.presents(users[1])
            assert (refused.state, refused.reasons) == (State.CAPTURED, (Withheld.UNAVAILABLE,))
            await b.confirmed()  # CypherFace is heard again
            b.forwarder.status.network = "unknown"
            assert (await b.presents(users[2])).state is State.PROVISIONALLY_VERIFIED

    sandbox.reset()
    play(work)


def test_a_capture_of_the_backlog_is_not_even_compared(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise no_connection()

    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            user = await b.confirmed()
            assert b.eyes is not None
            b.eyes.embedded = 0
            monkeypatch.setattr(b.client, "generate_url", fail)
            waiting = await b.keeper.run(lambda store: store.pend(b._captured(store, user, 1).id))
            await b.forwarder.submit(waiting.id)
            await b.until(lambda: b.forwarder.status.active == 0)
            record = await b.get(waiting)
            assert (record.state, record.attempts, record.reasons) == (State.PENDING, 1, ())
            assert (b.eyes.embedded, b.provisional.counts) == (0, {})
            assert (await b.keeper.run(Store.provisional_summary)).offline_s == 0.0  # but the outage begins

    sandbox.reset()
    play(work)


def test_a_capture_without_consent_is_never_embedded(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with bench(tmp_path, sandbox) as b:
            user = await b.confirmed()
            assert b.eyes is not None
            b.eyes.embedded = 0
            for consent in (None, Consent("c", ("match",))):
                online = await b.presents(user, consent=consent)
                assert online.state is State.VERIFIED
            assert b.eyes.embedded == 0
            online = await b.presents(user)
            assert (online.state, b.eyes.embedded, b.provisional.counts) == (State.VERIFIED, 1, {"templates": 1})

    sandbox.reset()
    play(work)
