"""Reading answers: fields by any of their names, messages without secrets, Retry-After by any clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent.cypherface import wire
from edge_agent.cypherface.wire import Answer

from .service import API_KEY, JSON, MERCHANT, SIGNED_URL, token


@pytest.mark.parametrize("name", ["accessToken", "access_token", "token"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_token_is_found_under_each_of_its_names(name: str, nested: bool) -> None:
    body: dict[str, Any] = {name: "abc.def.ghi"}
    assert wire.find_token({"data": body, "success": True} if nested else body) == "abc.def.ghi"


@pytest.mark.parametrize("name", ["url", "uploadUrl", "uploadURL", "signedUrl", "presignedUrl", "generatedUrl"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_url_is_found_under_each_of_its_names(name: str, nested: bool) -> None:
    body: dict[str, Any] = {name: SIGNED_URL}
    assert wire.find_url({"data": body} if nested else body) == SIGNED_URL


def test_the_signed_url_goes_before_the_plain_one() -> None:
    assert wire.find_url({"url": "https://public.example/a.jpg", "signedUrl": SIGNED_URL}) == SIGNED_URL


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": ""},
        {"token": None},
        {"token": 5},
        {"token": ["a"]},
        {"token": "with space"},
        {"token": "line\r\nx-evil: 1"},
        {"token": "tök"},
        {"token": "a" * 9000},
        {"jwt": "abc"},
        {"data": "abc"},
        {"data": [{"token": "abc"}]},
        {"data": {"data": {"token": "abc"}}},
    ],
)
def test_what_is_no_token_for_a_header_is_none(body: dict[str, Any]) -> None:
    assert wire.find_token(body) is None


def test_the_keys_that_were_seen_are_named_without_values() -> None:
    body = {"link": "v", "data": {"href": "v"}, token("x"): "v"}
    assert wire.seen_keys(body) == "link, data, <other>, data.href"
    assert wire.seen_keys({}) == "an empty object"
    assert wire.seen_keys(None) == "no JSON object"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(400, "application/json", b'{"message": "no face found"}'), "no face found"),
        (Answer(400, "application/json", b'{"success": false, "message": "bad"}'), "bad"),
        (Answer(400, "application/json", b'{"error": {"message": "deep"}}'), "deep"),
        (Answer(400, "application/json", b'{"error": "E", "message": ""}'), "E"),
        (Answer(400, "application/json", b'{"detail": "d"}'), "d"),
        (Answer(400, "application/json", b'{"message": 5}'), None),
        (Answer(400, "application/json", b"{}"), None),
        (Answer(400, "text/plain", b"Invalid\r\n Auth\tToken"), "Invalid Auth Token"),
        (Answer(400, "text/plain", b"\xff\xfe"), "\ufffd\ufffd"),
        (Answer(400, "text/html", b"<p>x"), None),
        (Answer(400, "text/plain", b"<html>x"), None),
        (Answer(403, "application/xml", b"<Error/>"), None),
        (Answer(400, None, b""), None),
    ],
)
def test_the_services_own_words_are_kept(answer: Answer, message: str | None) -> None:
    assert wire.server_message(answer) == message


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"bad token {token('x')}!", "bad token <removed>!"),
        (f"key {API_KEY} unknown", "key <removed> unknown"),
        (f"merchant={MERCHANT}", "<removed>"),
        (f"see {SIGNED_URL} now", "see <removed> now"),
        ("see http://x/?a=b now", "see <removed> now"),
        ("user jane@shop.example not found", "user <private> not found"),
        ("\x1b[31mred\x00\u202e\u200b\n\ttext", "[31mred text"),
        ("a\u2028b", "a b"),
        ("eyJhbGciOi\x00JIUzI1NiIsInR5", "<removed>"),
        ("word " * 100, ("word " * 40).strip()),
    ],
)
def test_foreign_text_is_cleaned(text: str, cleaned: str) -> None:
    assert wire.clean(text, ("jane@shop.example", "")).rstrip() == cleaned


def test_a_short_user_id_is_removed_as_a_word_only() -> None:
    assert wire.clean("user 12 has 120 images", ("12",)) == "user <private> has 120 images"


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "date", "wait_s"),
    [
        (None, None, None),
        ("", None, None),
        ("0", None, 0.0),
        (" 120 ", None, 120.0),
        ("1.5", None, 1.5),
        ("999999", None, 3600.0),
        ("99999999999999999999", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("nan", None, None),
        ("Thu, 01 Jan 2026 00:01:00 GMT", None, 60.0),
        ("Thu, 01 Jan 2026 00:01:00 -0000", None, 60.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", None, 0.0),
        ("Fri, 01 Jan 2027 00:00:00 GMT", None, 3600.0),
        # the terminal's clock is years off: the server's own Date counts
        ("Tue, 01 Jan 2030 00:00:30 GMT", "Tue, 01 Jan 2030 00:00:00 GMT", 30.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", "garbage", 60.0),
    ],
)
def test_retry_after_is_read(value: str | None, date: str | None, wait_s: float | None) -> None:
    answer = Answer(429, None, b"", retry_after=value, date=date)
    assert wire.retry_after_s(answer, NOW) == wait_s


@pytest.mark.parametrize(
    ("content_type", "body", "html"),
    [
        ("text/html; charset=utf-8", b"", True),
        ("application/xhtml+xml", b"", True),
        (JSON["content-type"], b"\n <!DOCTYPE html>", True),
        (None, b"<HTML>", True),
        ("application/json", b"{}", False),
        ("application/xml", b"<Error/>", False),
    ],
)
def test_a_page_is_known_by_its_type_or_its_first_characters(content_type: str | None, body: bytes, html: bool) -> None:
    assert Answer(200, content_type, body).is_html is html


def test_image_names_are_fresh_and_say_nothing() -> None:
    names = {wire.new_image_name() for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) == 36 and name.endswith(".jpg") for name in names)
    assert wire.new_image_name("image/png").endswith(".png")


def test_an_answer_does_not_show_its_body() -> None:
    assert "secret" not in repr(Answer(200, None, b"secret"))
