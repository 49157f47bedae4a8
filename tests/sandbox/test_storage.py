"""Pre-signed URLs: what the storage insists on, and the pure signing rules."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from edge_agent.sandbox import presign
from edge_agent.sandbox.presign import StorageRefused
from tests.sandbox.conftest import Caller


@pytest.fixture
def url(enrolled: Caller) -> str:
    return str(enrolled.generate_url().json()["url"])


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/xml"
    return answer.status_code, answer.text.split("<Code>")[1].split("</Code>")[0]


def test_the_url_looks_like_s3(url: str):
    query = dict(parse_qsl(urlsplit(url).query))
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query["X-Amz-SignedHeaders"] == "content-type;host"
    assert query["X-Amz-Expires"] == "4800"
    assert len(query["X-Amz-Signature"]) == 64
    assert urlsplit(url).path.endswith("/a.jpg")


def test_a_put_answers_with_an_etag_and_no_body(enrolled: Caller, url: str):
    answer = enrolled.put(url, b"hello")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == '"5d41402abc4b2a76b9719d911017c592"'


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "image/jpeg; charset=x", ""])
def test_another_content_type_does_not_match_the_signature(enrolled: Caller, url: str, content_type: str):
    answer = enrolled.http.put(url, content=b"x", headers={"content-type": content_type} if content_type else {})
    assert refusal(answer) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("/a.jpg", "/b.jpg", "SignatureDoesNotMatch"),
        ("X-Amz-Expires=4800", "X-Amz-Expires=9999", "SignatureDoesNotMatch"),
        ("X-Amz-Signature=", "X-Amz-Signature=0", "SignatureDoesNotMatch"),
        ("X-Amz-Signature=", "X-Amz-Signature=%C3%A9", "SignatureDoesNotMatch"),
        ("X-Amz-Date=2", "X-Amz-Date=3", "SignatureDoesNotMatch"),
        ("?", "?extra=1&", "SignatureDoesNotMatch"),
        ("X-Amz-Signature=", "Nothing=", "AccessDenied"),
        ("AWS4-HMAC-SHA256", "none", "AccessDenied"),
    ],
)
def test_an_altered_url_is_refused(enrolled: Caller, url: str, old: str, new: str, code: str):
    assert old in url
    assert refusal(enrolled.put(url.replace(old, new))) == (403, code)
    assert enrolled.match().status_code == 422, "nothing was stored"


def test_an_authorization_header_is_refused(enrolled: Caller, url: str):
    assert refusal(enrolled.put(url, authorization=enrolled.token)) == (403, "AccessDenied")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_url_is_good_for_put_only(enrolled: Caller, url: str, method: str):
    answer = enrolled.http.request(method, url, headers={"content-type": "image/jpeg"})
    assert refusal(answer) == (403, "SignatureDoesNotMatch")


def test_an_upload_without_an_announced_length_is_refused(enrolled: Caller, url: str):
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    answer = enrolled.http.put(url, content=pieces(), headers={"content-type": "image/jpeg"})
    assert refusal(answer) == (411, "MissingContentLength")


def test_a_huge_upload_is_refused(enrolled: Caller, url: str):
    assert refusal(enrolled.put(url, b"x" * (10 * 1024 * 1024 + 1))) == (400, "EntityTooLarge")


def test_repeating_the_put_before_expiry_overwrites_the_object(enrolled: Caller, url: str):
    enrolled.put(url, b"first")
    enrolled.put(url, b"second")
    enrolled.match()
    assert enrolled.server.judged[-1].target_sha256.startswith("16367aacb67a4a017c8da8ab95682ccb")


def test_a_url_forgotten_by_the_sandbox_is_refused(enrolled: Caller, url: str):
    enrolled.server.reset()
    assert refusal(enrolled.put(url)) == (403, "AccessDenied")


def test_an_image_name_with_odd_characters_survives(enrolled: Caller):
    url = enrolled.generate_url(imageName="été 1%+&.jpg").json()["url"]
    assert enrolled.put(url).status_code == 200
    enrolled.match()
    assert enrolled.server.judged[-1].target_image_name == "été 1%+&.jpg"


SIGNED = {"host": "127.0.0.1:1", "path": "/storage/b/k", "content_type": "image/jpeg"}
AT_S = 1_700_000_000.0


def test_a_signature_holds_until_the_second_it_expires():
    query = presign.presign("secret", **SIGNED, now_s=AT_S, valid_s=60)
    presign.check("secret", method="PUT", query_string=query, now_s=AT_S + 59, **SIGNED)
    with pytest.raises(StorageRefused, match="expired"):
        presign.check("secret", method="PUT", query_string=query, now_s=AT_S + 60, **SIGNED)


@pytest.mark.parametrize(
    "change",
    [{"host": "localhost:1"}, {"path": "/storage/b/other"}, {"content_type": "image/png"}, {"method": "GET"}],
)
def test_every_part_of_the_request_is_signed(change: dict[str, str]):
    query = presign.presign("secret", **SIGNED, now_s=AT_S, valid_s=60)
    with pytest.raises(StorageRefused, match="SignatureDoesNotMatch"):
        presign.check("secret", query_string=query, now_s=AT_S, **{"method": "PUT", **SIGNED, **change})


def test_another_secret_does_not_verify():
    query = presign.presign("secret", **SIGNED, now_s=AT_S, valid_s=60)
    with pytest.raises(StorageRefused):
        presign.check("other", method="PUT", query_string=query, now_s=AT_S, **SIGNED)
