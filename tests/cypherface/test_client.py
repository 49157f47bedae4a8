"""The three steps against a scripted service: what is sent, and what each answer becomes."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.cypherface.client import CypherFaceClient
from edge_agent.cypherface.upload import UploadKind, UploadTarget
from edge_agent.cypherface.verdict import VerdictKind
from edge_agent.errors import (
    CaptureRefused,
    ConfigurationError,
    CypherFaceError,
    SequenceConflict,
    ServiceMisconfigured,
    Transient,
    Unauthenticated,
)

from .conftest import Settings
from .service import API_KEY, MERCHANT, SIGNED_URL, TWO_DAYS_S, Clock, Reply, Service, answer, token

USER = "jane@shop.example"
FIRST, REFRESHED, NEW = token("first"), token("refreshed"), token("new")
HTML = httpx.Response(200, html="<html>Log in to the Wi-Fi</html>")

Work = Callable[[CypherFaceClient], Awaitable[Any]]


def call(service: Service, settings: Any, work: Work, clock: Clock | None = None) -> Any:
    async def session() -> Any:
        async with service.client(settings, clock) as client:
            return await work(client)

    return asyncio.run(session())


def failure(service: Service, settings: Any, work: Work, clock: Clock | None = None) -> CypherFaceError:
    with pytest.raises(CypherFaceError) as caught:
        call(service, settings, work, clock)
    return caught.value


async def match(client: CypherFaceClient) -> Any:
    return await client.match(USER)


async def source_url(client: CypherFaceClient) -> UploadTarget:
    return await client.generate_url(USER, "a.jpg", "image/jpeg", "upload")


async def target_url(client: CypherFaceClient) -> UploadTarget:
    return await client.generate_url(USER, "a.jpg", "image/jpeg", "match")


async def sequence(client: CypherFaceClient) -> Any:
    await client.put(await target_url(client), b"jpeg", "image/jpeg")
    return await client.match(USER)


async def put(client: CypherFaceClient) -> None:
    await client.put(target(), b"jpeg", "image/jpeg")


def target(url: str = SIGNED_URL, received_at_s: float = 1000.0) -> UploadTarget:
    return UploadTarget(url, "bucket.example", "a.jpg", "image/jpeg", "match", received_at_s, 60.0)


# --- what is sent --------------------------------------------------------------------------------------------------


def test_a_whole_sequence_sends_what_the_documentation_asks_for(settings: Settings) -> None:
    service = Service()
    verdict = call(service, settings(), sequence)
    assert (verdict.kind, verdict.similarity) == (VerdictKind.POSITIVE, 99.5)
    issue, generate, upload, judge = service.requests
    assert (issue.method, str(issue.url)) == ("POST", "https://api.example/api/access-token/")
    assert (issue.headers["merchantid"], issue.headers["x-api-key"]) == (MERCHANT, API_KEY)
    assert issue.content == b""
    assert "authorization" not in issue.headers
    assert str(generate.url) == "https://api.example/api/upload/generate-url/"
    assert json.loads(generate.content) == {
        "userId": USER,
        "imageName": "a.jpg",
        "contentType": "image/jpeg",
        "type": "match",
    }
    assert generate.headers["authorization"] == FIRST
    assert (upload.method, str(upload.url), upload.content) == ("PUT", SIGNED_URL, b"jpeg")
    assert upload.headers["content-type"] == "image/jpeg"
    assert str(judge.url) == "https://api.example/api/face/match/"
    assert json.loads(judge.content) == {"userId": USER}


def test_nothing_of_ours_goes_to_the_storage_host(settings: Settings) -> None:
    service = Service(generate_url=answer(body={"url": SIGNED_URL}, set_cookie="connect.sid=s; Path=/"))
    call(service, settings(), sequence)
    storage = service.requests[2].headers
    assert {"authorization", "merchantid", "x-api-key", "cookie"}.isdisjoint(storage)
    assert all(secret not in str(storage) for secret in (FIRST, API_KEY, MERCHANT))


def test_cookies_are_not_kept(settings: Settings) -> None:
    service = Service(
        access_token=answer(body={"token": FIRST}, set_cookie="connect.sid=s; Path=/; Domain=api.example")
    )
    call(service, settings(), sequence)
    assert not any("cookie" in request.headers for request in service.requests)


def test_scheme_path_and_prefix_follow_the_settings(settings: Settings) -> None:
    service = Service()
    changed = settings(auth_scheme="bearer", match_path="/api/face-match/", base_url="https://api.example/gate/v2/")
    call(service, changed, sequence)
    assert service.requests[1].headers["authorization"] == f"Bearer {FIRST}"
    assert str(service.requests[3].url) == "https://api.example/gate/v2/api/face-match/"


def test_a_source_image_is_announced_as_upload(settings: Settings) -> None:
    service = Service()
    found = call(service, settings(), source_url)
    assert json.loads(service.requests[1].content)["type"] == "upload"
    assert (found.kind, found.host, found.expires_after_s, found.url) == ("upload", "bucket.example", 60.0, SIGNED_URL)


@pytest.mark.parametrize("name", ["url", "uploadUrl", "uploadURL", "signedUrl", "presignedUrl", "generatedUrl"])
@pytest.mark.parametrize("field", ["accessToken", "access_token", "token"])
def test_every_documented_field_name_works(settings: Settings, name: str, field: str) -> None:
    service = Service(
        access_token=answer(body={"data": {field: FIRST}}), generate_url=answer(body={"data": {name: SIGNED_URL}})
    )
    assert call(service, settings(), sequence).positive


# --- tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_refreshed_once(settings: Settings, status: int) -> None:
    service = Service(match=[answer(status, {"message": "Invalid Auth Token"}), answer(body={"match": True})])
    assert call(service, settings(), match).positive
    assert service.calls == ["access_token", "match", "refresh_token", "match"]
    assert service.tokens_sent == [FIRST, FIRST, REFRESHED]


def test_then_a_new_token_is_asked_for_once(settings: Settings) -> None:
    service = Service(
        access_token=[answer(body={"token": FIRST}), answer(body={"token": NEW})],
        match=[answer(401), answer(401), answer(body={"match": True})],
    )
    assert call(service, settings(), match).positive
    assert service.calls == ["access_token", "match", "refresh_token", "match", "access_token", "match"]
    assert service.tokens_sent[-1] == NEW


def test_a_refused_refresh_leads_to_one_new_token_only(settings: Settings) -> None:
    service = Service(refresh_token=answer(401), match=answer(401))
    error = failure(service, settings(), match)
    assert isinstance(error, Unauthenticated)
    assert service.calls == ["access_token", "match", "refresh_token", "access_token", "match"]


def test_401_with_every_token_is_unauthenticated_and_the_next_call_starts_afresh(settings: Settings) -> None:
    service = Service(match=answer(401, {"message": "nobody"}))

    async def twice(client: CypherFaceClient) -> None:
        for _ in range(2):
            with pytest.raises(Unauthenticated) as caught:
                await client.match(USER)
            assert (caught.value.status, caught.value.server_message) == (401, "nobody")

    call(service, settings(), twice)
    once = ["match", "refresh_token", "match", "access_token", "match"]
    assert service.calls == ["access_token", *once, "access_token", *once]


def test_403_with_every_token_refuses_this_capture_only(settings: Settings) -> None:
    error = failure(Service(match=answer(403, {"message": "no right"})), settings(), match)
    assert isinstance(error, CaptureRefused)
    assert (error.code, error.status, error.server_message) == ("forbidden", 403, "no right")


@pytest.mark.parametrize("status", [401, 403])
def test_a_mismatch_is_a_verdict_even_where_the_status_would_renew_the_token(settings: Settings, status: int) -> None:
    service = Service(match=answer(status, {"match": False, "similarity": 3}))
    assert call(service, settings(), match).kind is VerdictKind.NEGATIVE
    assert service.calls == ["access_token", "match"]


def test_a_token_is_refreshed_before_it_ends(settings: Settings) -> None:
    clock = Clock()
    service = Service()

    async def later(client: CypherFaceClient) -> None:
        await client.match(USER)
        clock.now_s += 0.95 * TWO_DAYS_S
        await client.match(USER)

    call(service, settings(), later, clock)
    assert service.calls == ["access_token", "match", "refresh_token", "match"]


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (answer(400), Unauthenticated, "unauthenticated"),
        (answer(401, {"message": "bad key"}), Unauthenticated, "unauthenticated"),
        (answer(403), Unauthenticated, "unauthenticated"),
        (answer(200, {"success": False, "message": "bad key"}), Unauthenticated, "unauthenticated"),
        (answer(402), Transient, "upstream_error"),
        (answer(404, {"message": "Not Found"}), ServiceMisconfigured, "service_misconfigured"),
        (answer(404), ServiceMisconfigured, "service_misconfigured"),
        (answer(405), ServiceMisconfigured, "service_misconfigured"),
        (answer(409), ServiceMisconfigured, "service_misconfigured"),
        (answer(422), ServiceMisconfigured, "service_misconfigured"),
        (answer(429), Transient, "rate_limited"),
        (answer(500), Transient, "server_error"),
        (answer(302, location="https://portal.example/"), Transient, "captive_portal"),
        (HTML, Transient, "captive_portal"),
        (httpx.Response(403, html="<html>blocked"), Transient, "captive_portal"),
        (answer(200), Transient, "bad_answer"),
        (httpx.Response(200, text="token"), Transient, "bad_answer"),
        (answer(200, {"jwt": FIRST}), ServiceMisconfigured, "no_token"),
        (answer(200, {"token": "bad\r\nx: y"}), ServiceMisconfigured, "no_token"),
        (httpx.ConnectError("x"), Transient, "connect"),
    ],
)
def test_without_a_token_no_capture_is_ever_blamed(
    settings: Settings, reply: Reply, kind: type[CypherFaceError], code: str
) -> None:
    error = failure(Service(access_token=reply), settings(), match)
    assert (type(error), error.code) == (kind, code)


def test_a_key_can_be_given_instead_of_read(settings: Settings, tmp_path: Path) -> None:
    service = Service()

    async def session() -> None:
        section = settings(api_key={"file": tmp_path / "absent"})
        async with CypherFaceClient(section, api_key="given", transport=httpx.MockTransport(service)) as client:
            await client.match(USER)

    asyncio.run(session())
    assert service.requests[0].headers["x-api-key"] == "given"


def test_an_exchanged_key_file_is_used_for_the_next_token(settings: Settings, tmp_path: Path) -> None:
    def exchange(_request: httpx.Request) -> httpx.Response:
        (tmp_path / "api-key").write_text("newer")
        return answer(401)

    service = Service(match=[answer(401), answer(body={"match": True})], refresh_token=exchange)
    assert call(service, settings(), match).positive
    assert [r.headers["x-api-key"] for r in service.requests if "x-api-key" in r.headers] == [API_KEY, "newer"]


def test_a_missing_token_names_the_keys_that_were_there(settings: Settings) -> None:
    error = failure(Service(access_token=answer(200, {"jwt": FIRST, "data": {"x": 1}})), settings(), match)
    assert "jwt, data, data.x" in error.message
    assert FIRST not in error.message


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [(b"", 0o600, "secret_missing"), (b"k\n", 0o644, "secret_exposed"), (b"k\xff", 0o600, "secret_invalid"),
     (b"two words", 0o600, "secret_invalid")],
)  # fmt: skip
def test_an_unusable_api_key_stops_forwarding_and_is_not_shown(
    settings: Settings, tmp_path: Path, content: bytes, mode: int, code: str
) -> None:
    key = tmp_path / "other-key"
    key.write_bytes(content)
    key.chmod(mode)
    error = failure(Service(), settings(api_key={"file": key}), match)
    assert (type(error), error.code) == (Unauthenticated, code)
    assert "two words" not in error.message


# --- answers of the API --------------------------------------------------------------------------------------------

JSON_404 = answer(404, {"message": "user not found"})
API_TABLE: list[tuple[Reply, type[CypherFaceError], str]] = [
    (answer(400, {"message": "cannot parse"}), CaptureRefused, "bad_request"),
    (httpx.Response(400, text="cannot parse"), CaptureRefused, "bad_request"),
    (answer(402), Transient, "upstream_error"),
    (JSON_404, CaptureRefused, "unknown_user"),
    (httpx.Response(404, text="Cannot POST /api/x"), ServiceMisconfigured, "service_misconfigured"),
    (httpx.Response(404, html="<!DOCTYPE html>"), ServiceMisconfigured, "service_misconfigured"),
    (answer(404), ServiceMisconfigured, "service_misconfigured"),
    (answer(405), ServiceMisconfigured, "service_misconfigured"),
    (answer(406), ServiceMisconfigured, "service_misconfigured"),
    (answer(408), Transient, "timeout"),
    (answer(410), SequenceConflict, "unexpected_status"),
    (answer(418), SequenceConflict, "unexpected_status"),
    (answer(425), Transient, "server_error"),
    (answer(429), Transient, "rate_limited"),
    (answer(500, {"message": "boom"}), Transient, "server_error"),
    (answer(502), Transient, "server_error"),
    (answer(503), Transient, "server_error"),
    (answer(504), Transient, "server_error"),
    (answer(511), Transient, "server_error"),
    (answer(301, location="https://portal.example/"), Transient, "captive_portal"),
    (answer(302, location="https://api.example/other/"), Transient, "captive_portal"),
    (answer(307), Transient, "captive_portal"),
    (answer(304), Transient, "captive_portal"),
    (HTML, Transient, "captive_portal"),
    (httpx.Response(200, content=b"<html>", headers={"content-type": "application/json"}), Transient, "captive_portal"),
    (httpx.Response(400, html="<html>"), Transient, "captive_portal"),
    (httpx.Response(403, html="<html>"), Transient, "captive_portal"),
    (httpx.Response(422, html="<html>"), Transient, "captive_portal"),
    (httpx.Response(200, json={"match": True}, headers={"content-encoding": "br"}), Transient, "bad_answer"),
    (httpx.Response(200, content=b"x" * ((1 << 20) + 1)), Transient, "bad_answer"),
]


@pytest.mark.parametrize(("reply", "kind", "code"), API_TABLE)
@pytest.mark.parametrize("step", ["match", "target"])
def test_an_answer_becomes_the_error_of_its_row(
    settings: Settings, reply: Reply, kind: type[CypherFaceError], code: str, step: str
) -> None:
    service = Service(match=reply, generate_url=reply)
    error = failure(service, settings(), match if step == "match" else target_url)
    assert (type(error), error.code) == (kind, code)
    assert error.retryable == (kind in {Transient, SequenceConflict})
    assert error.message.startswith("cannot ")
    assert not error.connect_failed


@pytest.mark.parametrize(
    ("status", "kind", "code", "step"),
    [
        (409, SequenceConflict, "conflict", match),
        (422, SequenceConflict, "out_of_order", match),
        (409, SequenceConflict, "conflict", target_url),
        (422, SequenceConflict, "out_of_order", target_url),
        (409, CaptureRefused, "source_exists", source_url),
        (422, CaptureRefused, "source_exists", source_url),
    ],
)
def test_a_conflict_depends_on_the_step(
    settings: Settings, status: int, kind: type[CypherFaceError], code: str, step: Work
) -> None:
    reply = answer(status, {"message": "state"})
    error = failure(Service(match=reply, generate_url=reply), settings(), step)
    assert (type(error), error.code, error.server_message) == (kind, code, "state")


def test_retry_after_reaches_the_caller(settings: Settings) -> None:
    assert failure(Service(match=answer(429, retry_after="17")), settings(), match).retry_after_s == 17.0
    assert failure(Service(match=answer(503, retry_after="99999")), settings(), match).retry_after_s == 3600.0


@pytest.mark.parametrize(
    "reply",
    [
        answer(200),
        answer(204),
        answer(200, {}),
        answer(200, {"success": True}),
        answer(200, {"match": "true"}),
        answer(200, [True]),
        httpx.Response(200, text="OK"),
        httpx.Response(200, content=b'{"match": tr', headers={"content-type": "application/json"}),
        httpx.Response(200, content=b"\x00\x01", headers={"content-type": "application/json"}),
    ],
)
def test_a_success_that_decides_nothing_is_indeterminate(settings: Settings, reply: httpx.Response) -> None:
    error = failure(Service(match=reply), settings(), match)
    assert (type(error), error.code) == (SequenceConflict, "indeterminate")
    assert "no verdict" in error.message


def test_a_bare_200_counts_only_with_the_setting_and_only_when_its_end_is_known(settings: Settings) -> None:
    bare = settings(accept_bare_200=True)
    assert call(Service(match=answer(200)), bare, match).positive
    cut = failure(Service(match=httpx.Response(200)), bare, match)  # no Content-Length: it may have been cut off
    assert (type(cut), cut.code) == (Transient, "incomplete_answer")
    assert failure(Service(match=HTML), bare, match).code == "captive_portal"


def test_the_minimum_similarity_is_applied(settings: Settings) -> None:
    service = Service(match=answer(200, {"match": True, "similarity": 80}))
    assert failure(service, settings(min_similarity=90), match).code == "indeterminate"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({}, ServiceMisconfigured, "no_upload_url"),
        ({"link": SIGNED_URL}, ServiceMisconfigured, "no_upload_url"),
        ({"url": 5}, ServiceMisconfigured, "no_upload_url"),
        ({"success": False, "message": "later"}, SequenceConflict, "indeterminate"),
        ({"url": "https://evil.example/x"}, ServiceMisconfigured, "upload_host_refused"),
        ({"url": "http://bucket.example/x"}, ServiceMisconfigured, "upload_url_insecure"),
        ({"url": "not a url"}, ServiceMisconfigured, "bad_upload_url"),
        (["https://bucket.example"], Transient, "bad_answer"),
    ],
)
def test_an_answer_without_a_usable_url_is_a_clear_error(
    settings: Settings, body: Any, kind: type[CypherFaceError], code: str
) -> None:
    error = failure(Service(generate_url=answer(200, body)), settings(), target_url)
    assert (type(error), error.code) == (kind, code)
    assert "deadbeef" not in error.message


# --- the upload ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "code", "unknown"),
    [
        (answer(401), SequenceConflict, "upload_url_stale", False),
        (answer(403), SequenceConflict, "upload_url_stale", False),
        (answer(400), SequenceConflict, "upload_refused", False),
        (answer(409), SequenceConflict, "upload_refused", False),
        (answer(404), ServiceMisconfigured, "service_misconfigured", False),
        (answer(405), ServiceMisconfigured, "service_misconfigured", False),
        (answer(413), CaptureRefused, "too_large", False),
        (answer(429), Transient, "rate_limited", False),
        (answer(301, location="https://elsewhere.example/"), Transient, "captive_portal", False),
        (answer(307, location="https://elsewhere.example/"), Transient, "captive_portal", False),
        (answer(408), Transient, "timeout", True),
        (answer(500), Transient, "server_error", True),
        (answer(503), Transient, "server_error", True),
        (answer(504), Transient, "server_error", True),
        (HTML, Transient, "captive_portal", True),
        (httpx.Response(200, content=b"x" * ((1 << 20) + 1)), Transient, "bad_answer", True),
        (httpx.ReadTimeout("x"), Transient, "timeout", True),
        (httpx.WriteError("x"), Transient, "network", True),
        (httpx.RemoteProtocolError("x"), Transient, "network", True),
        (httpx.ConnectError("x"), Transient, "connect", False),
        (httpx.ConnectTimeout("x"), Transient, "connect", False),
    ],
)
def test_an_upload_that_fails_says_whether_the_picture_may_have_landed(
    settings: Settings, reply: Reply, kind: type[CypherFaceError], code: str, unknown: bool
) -> None:
    service = Service(put=reply)
    error = failure(service, settings(), put)
    assert (type(error), error.code, error.outcome_unknown) == (kind, code, unknown)
    assert service.calls == ["put"], "an upload is never repeated"


def test_the_storages_own_code_is_kept_for_the_technician(settings: Settings) -> None:
    xml = f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{FIRST}</StringToSign></Error>"
    error = failure(Service(put=httpx.Response(403, text=xml)), settings(), put)
    assert error.server_message == "SignatureDoesNotMatch"


@pytest.mark.parametrize("status", [200, 201, 204])
def test_an_upload_succeeds(settings: Settings, status: int) -> None:
    call(Service(put=httpx.Response(status)), settings(), put)


def test_a_stale_url_is_not_used(settings: Settings) -> None:
    service = Service()
    error = failure(service, settings(), put, Clock(1060.0))
    assert (type(error), error.code) == (SequenceConflict, "upload_url_stale")
    assert service.calls == []


def test_another_content_type_than_the_announced_one_is_a_mistake(settings: Settings) -> None:
    async def wrong(client: CypherFaceClient) -> None:
        await client.put(target(), b"png", "image/png")

    with pytest.raises(ValueError, match="announced"):
        call(Service(), settings(), wrong)


def test_the_life_of_a_url_counts_from_its_receipt(settings: Settings) -> None:
    clock = Clock()

    def slow(_request: httpx.Request) -> httpx.Response:
        clock.now_s += 45
        return answer(body={"url": SIGNED_URL})

    found = call(Service(generate_url=slow), settings(), target_url, clock)
    assert not found.stale(clock.now_s + 59)
    assert found.stale(clock.now_s + 60)


def test_a_hand_made_target_cannot_get_round_the_allow_list(settings: Settings) -> None:
    service = Service()

    async def elsewhere(client: CypherFaceClient) -> None:
        await client.put(target("https://evil.example/x"), b"jpeg", "image/jpeg")

    assert failure(service, settings(), elsewhere).code == "upload_host_refused"
    assert service.calls == []


# --- no connection, secrets ----------------------------------------------------------------------------------------


def test_only_a_line_that_never_answered_counts_as_not_connected(settings: Settings) -> None:
    down = httpx.ConnectError("x")
    assert failure(Service(access_token=down), settings(), match).connect_failed
    error = failure(Service(match=down), settings(), match)  # the token call was answered
    assert (error.code, error.connect_failed) == ("connect", False)
    error = failure(Service(match=answer(401), refresh_token=down), settings(), match)
    assert (error.code, error.connect_failed) == ("connect", False)


def test_the_count_of_answers_tells_whether_a_server_was_reached(settings: Settings) -> None:
    async def count(client: CypherFaceClient) -> int:
        await sequence(client)
        return client.answers

    assert call(Service(), settings(), count) == 4


def test_the_longest_sequence_is_the_sum_of_its_deadlines(settings: Settings) -> None:
    async def limit(client: CypherFaceClient) -> float:
        return client.sequence_limit_s

    changed = settings(match_settle_s=3, timeouts={"request_s": 10, "match_s": 100})
    assert call(Service(), changed, limit) == 123.0


SECRETS = (API_KEY, MERCHANT, FIRST, REFRESHED, "deadbeefcafe", USER)
LEAKY: list[Reply] = [
    answer(400, {"message": f"no {USER} {FIRST} {API_KEY} {SIGNED_URL} {MERCHANT}"}),
    answer(401, {"message": FIRST}),
    answer(404, {"message": f"user {USER} unknown"}),
    httpx.Response(422, text=f"{USER}: {REFRESHED}"),
    answer(200, {"message": f"{USER} {FIRST}", FIRST: FIRST, "match": FIRST}),
    httpx.LocalProtocolError(f"Illegal header value b'{FIRST}'"),
    httpx.InvalidURL(SIGNED_URL),
    httpx.ConnectError(f"{SIGNED_URL} {FIRST}"),
    OSError(5, f"broken {FIRST}"),
]


@pytest.mark.parametrize("reply", LEAKY)
@pytest.mark.parametrize("step", [match, target_url, put, source_url])
def test_no_error_holds_a_secret(settings: Settings, reply: Reply, step: Work) -> None:
    if step is put and isinstance(reply, httpx.Response) and reply.is_success:
        reply = answer(400, {"message": USER})  # to an upload this success would be one
    service = Service(match=reply, generate_url=reply, put=reply)
    with pytest.raises(CypherFaceError) as caught:
        call(service, settings(), step)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(vars(error)) + repr(error.args)
    assert not [secret for secret in SECRETS if secret in shown]
    assert error.__cause__ is None
    assert not isinstance(error.__context__, httpx.HTTPError)


def test_the_librarys_loggers_stay_silent(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    call(Service(refresh_token=answer(401), match=[answer(401), answer(body={"match": True})]), settings(), sequence)
    assert "refused" in caplog.text  # our own line
    assert not [secret for secret in SECRETS if secret in caplog.text]
    assert "HTTP Request" not in caplog.text


def test_a_bundle_that_cannot_be_read_is_a_configuration_error(settings: Settings, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    for path in (tmp_path / "absent.pem", empty):
        with pytest.raises(ConfigurationError, match="ca_bundle"):
            CypherFaceClient(settings(ca_bundle=path))


def test_kinds_of_upload_are_the_two_of_the_wire() -> None:
    kinds: tuple[UploadKind, UploadKind] = ("upload", "match")
    assert kinds == ("upload", "match")
