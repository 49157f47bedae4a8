"""Every documented contradiction, seen on the wire."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import jwt
import pytest

from tests.sandbox.conftest import Caller

URL_FIELDS = ["url", "uploadUrl", "uploadURL", "signedUrl", "presignedUrl", "generatedUrl"]


@pytest.mark.parametrize("call", ["access_token", "refresh"])
@pytest.mark.parametrize("under_data", [False, True])
@pytest.mark.parametrize("field", ["accessToken", "access_token", "token"])
def test_the_token_comes_under_every_name(caller: Caller, field: str, under_data: bool, call: str):
    caller.server.vary(token_field=field, token_under_data=under_data)
    answer = getattr(caller, call)().json()
    assert (answer["data"] if under_data else answer)[field].count(".") == 2
    assert (field in answer) is not under_data


@pytest.mark.parametrize("under_data", [False, True])
@pytest.mark.parametrize("field", URL_FIELDS)
def test_the_url_comes_under_every_name(caller: Caller, field: str, under_data: bool):
    caller.server.vary(url_field=field, url_under_data=under_data)
    answer = caller.generate_url().json()
    assert (answer["data"] if under_data else answer)[field].startswith(caller.server.base_url)
    assert (field in answer) is not under_data


@pytest.mark.parametrize(("scheme", "bare", "bearer"), [("raw", 200, 403), ("bearer", 403, 200), ("both", 200, 200)])
def test_the_authorization_header_is_bare_or_bearer(caller: Caller, scheme: str, bare: int, bearer: int):
    caller.server.vary(auth_scheme=scheme)
    assert caller.refresh(caller.token).status_code == bare
    assert caller.refresh(f"Bearer {caller.token}").status_code == bearer


@pytest.mark.parametrize("valid_s", [60, 4800])
def test_a_url_is_valid_for_a_minute_or_eighty(caller: Caller, valid_s: int):
    caller.server.vary(url_valid_s=valid_s)
    url = caller.generate_url().json()["url"]
    assert f"X-Amz-Expires={valid_s}" in url
    caller.server.advance(valid_s - 2)
    assert caller.put(url).status_code == 200
    caller.server.advance(2)
    late = caller.put(url)
    assert late.status_code == 403
    assert "<Code>AccessDenied</Code><Message>Request has expired" in late.text


MATCH_BODIES: dict[str, Any] = {
    "match_similarity": {"match": True, "similarity": 99.5},
    "face_match_message": {"faceMatch": True, "message": "Face matched successfully. Similarity is 99.5%."},
    "matched": {"matched": True},
    "bare": {"success": True},
}


@pytest.mark.parametrize("style", MATCH_BODIES)
def test_a_match_comes_in_every_style(enrolled: Caller, style: str):
    enrolled.server.vary(match_style=style)
    enrolled.upload()
    answer = enrolled.match()
    assert (answer.status_code, answer.json()) == (200, MATCH_BODIES[style])


def test_a_match_may_have_no_body(enrolled: Caller):
    enrolled.server.vary(match_style="empty")
    enrolled.upload()
    answer = enrolled.match()
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("match_style", "body"),
    [
        ("match_similarity", {"match": False, "similarity": 12.5}),
        ("face_match_message", {"faceMatch": False, "message": "Face did not match. Similarity is 12.5%."}),
        ("matched", {"matched": False}),
        ("empty", {"match": False, "similarity": 12.5}),
        ("bare", {"match": False, "similarity": 12.5}),
    ],
)
def test_a_mismatch_as_200_says_false_in_the_style_of_a_match(enrolled: Caller, match_style: str, body: Any):
    enrolled.server.vary(match_style=match_style)
    enrolled.upload(user_id="no-bob")
    answer = enrolled.match("no-bob")
    assert (answer.status_code, answer.json()) == (200, body)


def test_a_mismatch_may_say_success_false(enrolled: Caller):
    enrolled.server.vary(mismatch_style="success_false_200")
    enrolled.upload(user_id="no-bob")
    answer = enrolled.match("no-bob")
    assert (answer.status_code, answer.json()["success"]) == (200, False)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_mismatch_may_be_a_4xx(enrolled: Caller, status: int):
    enrolled.server.vary(mismatch_style="false_4xx", mismatch_status=status)
    enrolled.upload(user_id="no-bob")
    answer = enrolled.match("no-bob")
    assert (answer.status_code, answer.json()["faceMatch"]) == (status, False)


@pytest.mark.parametrize(
    ("style", "body"),
    [
        ("message", '{"message":"User not found"}'),
        ("success_message", '{"success":false,"message":"User not found"}'),
        ("text", "User not found"),
    ],
)
def test_errors_come_in_three_styles(caller: Caller, style: str, body: str):
    caller.server.vary(error_style=style)
    answer = caller.match("nobody")
    assert (answer.status_code, answer.text) == (404, body)
    assert answer.headers["content-type"].startswith("text/plain" if style == "text" else "application/json")


@pytest.mark.parametrize("status", [409, 422])
def test_the_refusal_to_overwrite_has_two_codes(enrolled: Caller, status: int):
    enrolled.server.vary(overwrite_status=status)
    assert enrolled.generate_url("alice", "upload").status_code == status


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [("both", 200, 200), ("/api/face/match/", 200, 404), ("/api/face-match/", 404, 200)],
)
def test_the_match_path_has_two_spellings(enrolled: Caller, setting: str, first: int, second: int):
    enrolled.server.vary(match_path=setting)
    enrolled.upload()
    answers = [enrolled.match(path="/api/face/match/"), enrolled.match(path="/api/face-match/")]
    assert [a.status_code for a in answers] == [first, second]
    assert all(a.headers["content-type"].startswith("text/html") for a in answers if a.status_code == 404)


def test_refreshing_may_be_refused(caller: Caller):
    caller.server.vary(refresh="refused", bad_token_status=401)
    assert caller.refresh().status_code == 401
    assert caller.access_token().status_code == 200


@pytest.mark.parametrize("status", [401, 403])
def test_bad_credentials_have_two_codes(caller: Caller, status: int):
    caller.server.vary(bad_key_status=status, bad_token_status=status)
    assert caller.access_token(merchantId="").status_code == status
    assert caller.refresh("nonsense").status_code == status


def test_an_unknown_user_may_be_refused_before_the_upload(caller: Caller):
    caller.server.vary(unknown_user_at="generate_url")
    assert caller.generate_url("nobody").status_code == 404
    assert caller.generate_url("nobody", "upload").status_code == 200


@pytest.mark.parametrize("status", [400, 402, 422])
def test_a_target_without_a_face_has_three_codes(caller: Caller, status: int):
    caller.server.vary(no_face_status=status)
    caller.server.enrol("noface-dan", b"dan")
    caller.upload(user_id="noface-dan")
    assert caller.match("noface-dan").status_code == status


def test_the_merchant_claim_has_two_names(caller: Caller):
    caller.server.vary(id_claim="cypherFaceId", token_life_s=5)
    claims = jwt.decode(caller.access_token().json()["accessToken"], options={"verify_signature": False})
    assert claims["cypherFaceId"] == caller.server.credentials.merchant_id
    assert claims["exp"] - claims["iat"] == 5


def test_a_session_cookie_may_come_along(caller: Caller):
    assert "set-cookie" not in caller.access_token().headers
    caller.server.vary(session_cookie=True)
    assert caller.access_token().headers["set-cookie"].startswith("connect.sid=")


def test_the_reported_similarity_can_be_chosen(enrolled: Caller):
    enrolled.server.vary(reported_similarity=61.5)
    enrolled.upload()
    assert enrolled.match().json() == {"match": True, "similarity": 61.5}


def test_a_picture_can_be_told_to_mismatch(enrolled: Caller):
    enrolled.upload(b"impostor")
    sha256 = "a" * 64
    enrolled.server.vary(mismatch_sha256=[sha256])
    assert enrolled.match().json()["match"] is True
    enrolled.match()
    enrolled.server.vary(mismatch_sha256=[sha256, enrolled.server.judged[-1].target_sha256])
    assert enrolled.match().json()["match"] is False


def test_urls_can_point_to_another_host(caller: Caller):
    caller.server.vary(url_host="bucket.elsewhere.example")
    assert caller.generate_url().json()["url"].startswith("http://bucket.elsewhere.example/storage/")


@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0])
def test_a_skewed_clock_shows_in_tokens_urls_and_dates(caller: Caller, skew_s: float):
    caller.server.vary(clock_skew_s=skew_s)
    before_s = caller.server.sandbox.clock.now_s() + skew_s
    answer = caller.access_token()
    claims = jwt.decode(answer.json()["accessToken"], options={"verify_signature": False, "verify_exp": False})
    assert abs(claims["iat"] - before_s) < 30
    caller.token = answer.json()["accessToken"]
    assert caller.put(caller.generate_url().json()["url"]).status_code == 200, "the server agrees with itself"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - before_s) < 30
