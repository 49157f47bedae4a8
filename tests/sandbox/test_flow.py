"""The calls as documented: tokens, upload URLs, enrolment, matching, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import jwt
import pytest

from tests.sandbox.conftest import Caller


def test_a_person_is_enrolled_uploaded_and_matched(caller: Caller):
    assert caller.upload(b"source", type_="upload").status_code == 200
    assert caller.upload(b"target").status_code == 200
    answer = caller.match()
    assert (answer.status_code, answer.json()) == (200, {"match": True, "similarity": 99.5})
    (judged,) = caller.server.judged
    assert judged.target_sha256 == hashlib.sha256(b"target").hexdigest()
    assert judged.source_sha256 == hashlib.sha256(b"source").hexdigest()
    assert (judged.user_id, judged.outcome, judged.target_image_name) == ("alice", "match", "a.jpg")


def test_the_token_holds_the_documented_claims(caller: Caller):
    claims = jwt.decode(caller.token, options={"verify_signature": False})
    assert jwt.get_unverified_header(caller.token)["alg"] == "HS256"
    assert claims["merchantId"] == caller.server.credentials.merchant_id
    assert claims["xApiKey"] == caller.server.credentials.api_key
    assert claims["exp"] - claims["iat"] == 172_800


@pytest.mark.parametrize(
    "headers", [{"merchantId": "0" * 24}, {"x-api-key": "wrong"}, {"merchantId": ""}, {"x-api-key": ""}]
)
def test_a_wrong_merchant_or_key_gets_no_token(caller: Caller, headers: dict[str, str]):
    answer = caller.access_token(**headers)
    assert answer.status_code == 401
    assert "message" in answer.json()


def test_an_expired_token_is_refused_and_can_be_refreshed(enrolled: Caller):
    enrolled.server.advance(172_801)
    assert enrolled.generate_url().status_code == 403
    assert enrolled.match().json() == {"message": "Invalid Auth Token"}
    enrolled.token = enrolled.refresh().json()["accessToken"]
    assert enrolled.generate_url().status_code == 200


@pytest.mark.parametrize("step", ["refresh", "generate_url", "match"])
@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", jwt.encode({"iat": 1, "exp": 2**31}, "k" * 32)])
def test_a_token_that_is_not_ours_is_refused(enrolled: Caller, step: str, token: str):
    enrolled.token = token
    answer = getattr(enrolled, step)()
    assert (answer.status_code, answer.json()) == (403, {"message": "Invalid Auth Token"})


def test_a_revoked_key_is_refused_everywhere_until_it_is_restored(enrolled: Caller):
    url = enrolled.generate_url().json()["url"]
    enrolled.server.vary(api_key_revoked=True)
    assert [enrolled.access_token().status_code, enrolled.refresh().status_code] == [401, 403]
    assert [enrolled.generate_url().status_code, enrolled.match().status_code] == [403, 403]
    assert enrolled.put(url).status_code == 200, "a pre-signed URL needs no key"
    enrolled.server.vary(api_key_revoked=False)
    assert enrolled.match().status_code == 200


@pytest.mark.parametrize(
    ("user_id", "status", "message"),
    [("nobody", 404, "User not found"), ("alice", 422, "No target image was uploaded")],
)
def test_matching_out_of_order_is_refused(enrolled: Caller, user_id: str, status: int, message: str):
    answer = enrolled.match(user_id)
    assert (answer.status_code, answer.json()) == (status, {"message": message})


def test_a_user_with_only_a_target_is_unknown(caller: Caller):
    caller.upload(user_id="carol")
    assert caller.match("carol").status_code == 404


def test_a_user_whose_source_could_not_be_used_has_no_source(caller: Caller):
    caller.upload(b"", "carol", "upload")  # the rule matcher takes anything but nothing
    caller.upload(b"target", "carol")
    assert caller.match("carol").json() == {"message": "No source image for this user"}
    assert caller.generate_url("carol", "upload").status_code == 200, "and may try again"


def test_the_rule_matcher_follows_the_user_id(enrolled: Caller):
    enrolled.server.enrol("noface-dan", b"dan")
    for user_id in ("no-bob", "noface-dan"):
        enrolled.upload(user_id=user_id)
    assert enrolled.match("no-bob").json() == {"match": False, "similarity": 12.5}
    assert enrolled.match("noface-dan").status_code == 422
    assert [j.outcome for j in enrolled.server.judged] == ["mismatch", "no_face"]


def test_the_last_target_is_judged(enrolled: Caller):
    for content in (b"first", b"second"):
        enrolled.upload(content)
    enrolled.match()
    enrolled.match()
    wanted = hashlib.sha256(b"second").hexdigest()
    assert [j.target_sha256 for j in enrolled.server.judged] == [wanted, wanted]


def test_users_do_not_share_targets(enrolled: Caller):
    enrolled.upload(b"alice's target")
    assert enrolled.match("no-bob").status_code == 422


def test_an_enrolled_source_cannot_be_overwritten(enrolled: Caller):
    assert enrolled.generate_url("alice", "upload").status_code == 409


def test_repeating_the_put_of_an_enrolment_before_expiry_overwrites_it(caller: Caller):
    url = caller.generate_url("alice", "upload").json()["url"]
    for content in (b"first", b"second"):
        caller.put(url, content)
    caller.upload(b"target")
    caller.match()
    assert caller.server.judged[-1].source_sha256 == hashlib.sha256(b"second").hexdigest()


def test_of_two_enrolments_under_way_the_first_to_land_wins(caller: Caller):
    first, second = (caller.generate_url("alice", "upload").json()["url"] for _ in range(2))
    caller.put(second, b"second")
    caller.put(first, b"first")
    source = caller.server.state.source("alice", caller.server.sandbox.clock.now_s())
    assert source is not None
    assert source.sha256 == hashlib.sha256(b"second").hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"userId": None},
        {"userId": ""},
        {"userId": 7},
        {"userId": "x" * 257},
        {"imageName": None},
        {"imageName": "../../etc/passwd"},
        {"imageName": "a\nb"},
        {"imageName": ".hidden"},
        {"contentType": "image/gif"},
        {"type": "enrol"},
    ],
)
def test_a_wrong_parameter_is_a_400_that_names_it(caller: Caller, changes: dict[str, Any]):
    answer = caller.generate_url(**changes)
    assert answer.status_code == 400
    assert next(iter(changes)) in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"userId": "\\ud800"}', "application/json"),
        (b"[" * 60_000, "application/json"),
        (b'{"userId": "' + b"x" * 70_000 + b'"}', "application/json"),
        (b'{"userId": "alice"}', "text/plain"),
        (b'{"userId": "alice"}', ""),
    ],
)
def test_a_body_that_is_not_the_documented_json_is_a_400(enrolled: Caller, content: bytes, content_type: str):
    headers = {"authorization": enrolled.token, "content-type": content_type}
    answer = enrolled.http.post("/api/face/match/", headers=headers, content=content)
    assert answer.status_code == 400
    assert "message" in answer.json()


@pytest.mark.parametrize("path", ["/api/face/match", "/api/access-token", "/api/nothing/", "/api/face/compare/"])
def test_an_unknown_path_answers_404_without_json(caller: Caller, path: str):
    answer = caller.http.post(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


def test_a_wrong_method_answers_405(caller: Caller):
    assert caller.http.get("/api/face/match/").status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("[::1]:1", 200), ("portal.example", 421), ("127.0.0.1.portal.example", 421), ("[", 421)],
)
def test_only_loopback_host_names_are_served(caller: Caller, host: str, status: int):
    assert caller.http.get("/_sandbox/state", headers={"host": host}).status_code == status


def test_urls_carry_the_host_name_the_client_used(caller: Caller):
    base_url = caller.server.base_url.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=base_url, trust_env=False) as http:
        body = {"userId": "alice", "imageName": "a.jpg", "contentType": "image/jpeg", "type": "match"}
        url = http.post("/api/upload/generate-url/", headers={"authorization": caller.token}, json=body).json()["url"]
    assert url.startswith(f"{base_url}storage/")
