"""What an answer to a match means: fail-closed, by a table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cypherface.verdict import Verdict, VerdictKind, judge

JSON = "application/json"
YES, NO, OPEN = VerdictKind.POSITIVE, VerdictKind.NEGATIVE, VerdictKind.INDETERMINATE


@dataclass(frozen=True)
class Rules:
    min_similarity: float | None = None
    accept_bare_200: bool = False


def verdict(status: int, body: Any, content_type: str | None = JSON, **rules: Any) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(status, content_type, raw, Rules(**rules))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # the bodies of the documentation
        (200, {"match": True, "similarity": 99.99}, YES),
        (200, {"faceMatch": True, "message": "Face matched successfully. Similarity is 97.45%."}, YES),
        (200, {"success": True, "faceMatch": False, "message": "no"}, NO),
        (200, {"match": False, "similarity": 12.5}, NO),
        (200, {"matched": True}, YES),
        (201, {"match": True}, YES),
        (200, {"success": True, "match": True}, YES),
        # one false outweighs any true
        (200, {"match": True, "faceMatch": False}, NO),
        (200, {"match": True, "success": False}, NO),
        (200, {"success": False}, NO),
        (200, {"success": False, "message": "Internal error"}, NO),
        # mismatch as 4xx
        (400, {"match": False}, NO),
        (401, {"faceMatch": False}, NO),
        (404, {"matched": False}, NO),
        (422, {"faceMatch": False, "success": True}, NO),
        (400, {"success": False, "message": "bad request"}, OPEN),
        (400, {"match": True}, OPEN),
        (400, {"match": True, "faceMatch": False}, NO),
        # neither 3xx nor 5xx decides
        (500, {"match": False}, OPEN),
        (503, {"match": True}, OPEN),
        (302, {"match": True}, OPEN),
        (302, {"match": False}, OPEN),
        (100, {"match": True}, OPEN),
        # only JSON booleans are booleans
        (200, {"match": "true"}, OPEN),
        (200, {"match": 1}, OPEN),
        (200, {"match": 0}, OPEN),
        (200, {"match": None}, OPEN),
        (200, {"match": [True]}, OPEN),
        (200, {"match": {"value": True}}, OPEN),
        (200, {"match": True, "faceMatch": "false"}, OPEN),
        (200, {"match": True, "faceMatch": 0}, OPEN),
        (200, {"match": True, "success": None}, OPEN),
        (200, {"match": True, "success": "no"}, OPEN),
        (200, {"match": "yes", "faceMatch": False}, NO),
        (400, {"match": 0}, OPEN),
        # names are exact
        (200, {"Match": True}, OPEN),
        (200, {"is_match": True}, OPEN),
        (200, {"success": True}, OPEN),
        (200, {"similarity": 100}, OPEN),
        (200, {}, OPEN),
        # under data, and both levels
        (200, {"data": {"match": True, "similarity": 98}}, YES),
        (200, {"success": True, "data": {"match": True}}, YES),
        (200, {"success": True, "data": {"faceMatch": False}}, NO),
        (200, {"match": True, "data": {"match": True}}, YES),
        (200, {"match": False, "data": {"match": False}}, NO),
        (200, {"match": True, "data": {"match": False}}, OPEN),
        (200, {"match": False, "data": {"match": True}}, OPEN),
        (200, {"success": False, "data": {"match": True}}, OPEN),
        (200, {"match": True, "data": {"success": False}}, OPEN),
        (200, {"match": True, "data": {"match": "true"}}, OPEN),
        (400, {"match": False, "data": {"match": True}}, OPEN),
        (200, {"data": [{"match": True}]}, OPEN),
        (200, {"data": {"data": {"match": True}}}, OPEN),
        (200, {"response": {"match": True}}, OPEN),
        (200, {"match": True, "data": None}, YES),
        # not an object, not JSON, not readable
        (200, b"", OPEN),
        (200, b"true", OPEN),
        (200, b'"match"', OPEN),
        (200, b'[{"match": true}]', OPEN),
        (200, b'{"match": true', OPEN),
        (200, b'{"match": true}}', OPEN),
        (200, b"{'match': True}", OPEN),
        (200, b'{"match": true} trailing', OPEN),
        (200, b'{"match": false, "match": true}', OPEN),
        (200, b'{"match": true, "match": true}', OPEN),
        (200, b'{"match": true, "data": {"a": 1, "a": 2}}', OPEN),
        (200, b'{"match": true, "similarity": NaN}', OPEN),
        (200, b'{"match": true, "similarity": Infinity}', OPEN),
        (200, b'{"match": true, "x": ' + b"9" * 5000 + b"}", OPEN),
        (200, b'{"match": true, "x": "\xff"}', OPEN),
        (200, '{"match": true}'.encode("utf-16"), OPEN),
        (200, b"\xef\xbb\xbf" + b'{"match": true}', YES),
        (200, b"[" * 100_000, OPEN),
        (200, b'{"match": true, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", OPEN),
        (200, b"\x00" * 10, OPEN),
    ],
)
def test_an_answer_means(status: int, body: Any, kind: VerdictKind) -> None:
    assert verdict(status, body).kind is kind


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", YES),
        ("application/json; charset=utf-8", YES),
        ("Application/JSON", YES),
        ("application/problem+json", YES),
        ("text/json", YES),
        (None, YES),
        ("", YES),
        ("text/html", OPEN),
        ("text/html; x=application/json", OPEN),
        ("text/plain", OPEN),
        ("application/json, text/html", OPEN),
        ("application/octet-stream", OPEN),
        ("multipart/form-data", OPEN),
        ("x+json", OPEN),
    ],
)
def test_only_json_types_are_judged(content_type: str | None, kind: VerdictKind) -> None:
    assert verdict(200, {"match": True}, content_type).kind is kind


@pytest.mark.parametrize(
    ("body", "kind", "similarity"),
    [
        ({"match": True, "similarity": 90}, YES, 90.0),
        ({"match": True, "similarity": 90.0}, YES, 90.0),
        ({"match": True, "similarity": 100}, YES, 100.0),
        ({"match": True, "data": {"similarity": 95}}, YES, 95.0),
        ({"match": True, "similarity": 95, "data": {"similarity": 95.0}}, YES, 95.0),
        ({"match": True, "similarity": 95, "data": {"similarity": 99}}, OPEN, None),
        ({"match": True, "similarity": 89.999}, OPEN, 89.999),
        ({"match": True}, OPEN, None),
        ({"match": True, "similarity": "95"}, OPEN, None),
        ({"match": True, "similarity": True}, OPEN, None),
        ({"match": True, "similarity": None}, OPEN, None),
        ({"match": True, "similarity": [95]}, OPEN, None),
        ({"match": True, "similarity": 101}, OPEN, None),
        ({"match": True, "similarity": -1}, OPEN, None),
        ({"match": True, "similarity": 10**400}, OPEN, None),
        (b'{"match": true, "similarity": 1e999}', OPEN, None),
        ({"match": True, "message": "Similarity is 97.45%."}, OPEN, None),
        ({"match": False, "similarity": 99}, NO, 99.0),
    ],
)
def test_a_minimum_similarity_must_be_reported_and_reached(
    body: Any, kind: VerdictKind, similarity: float | None
) -> None:
    found = verdict(200, body, min_similarity=90)
    assert (found.kind, found.similarity) == (kind, similarity)


def test_without_a_minimum_an_unusable_similarity_is_only_left_out() -> None:
    found = verdict(200, {"match": True, "similarity": "high"})
    assert (found.kind, found.similarity) == (YES, None)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "kind"),
    [
        (200, JSON, b"", YES),
        (200, None, b" \r\n", YES),
        (200, JSON, b"{}", YES),
        (200, JSON, b'{"success": true}', YES),
        (200, JSON, b'{"message": "Face matched successfully."}', YES),
        (200, JSON, b'{"message": "ok", "status": "success", "statusCode": 200}', YES),
        (200, JSON, b'{"similarity": 97.5, "data": {}}', YES),
        # a verdict in the body still rules
        (200, JSON, b'{"match": true}', YES),
        (200, JSON, b'{"match": false}', NO),
        (200, JSON, b'{"success": false}', NO),
        (200, JSON, b'{"match": "false"}', OPEN),
        (200, JSON, b'{"data": {"success": 0}}', OPEN),
        # pages, garbage, other types
        (200, "text/html", b"<html>Log in to the Wi-Fi</html>", OPEN),
        (200, "text/html", b"", OPEN),
        (200, JSON, b"<html>Log in</html>", OPEN),
        (200, None, b"<html>Log in</html>", OPEN),
        (200, "text/plain", b"OK", OPEN),
        (200, "text/plain", b"", OPEN),
        (200, JSON, b"OK", OPEN),
        (200, JSON, b"[]", OPEN),
        (200, JSON, b"true", OPEN),
        (200, JSON, b"null", OPEN),
        (200, JSON, b'{"x": ', OPEN),
        # other successes are not the documented one
        (201, JSON, b"{}", OPEN),
        (202, JSON, b"", OPEN),
        (204, None, b"", OPEN),
        (206, JSON, b"{}", OPEN),
        (302, None, b"", OPEN),
        (404, None, b"", OPEN),
        (500, None, b"", OPEN),
        # an object that might say no
        (200, JSON, b'{"error": "face not found"}', OPEN),
        (200, JSON, b'{"errors": []}', YES),
        (200, JSON, b'{"message": "Faces do not match"}', OPEN),
        (200, JSON, b'{"message": "Faces don\'t match"}', OPEN),
        (200, JSON, b'{"message": "Mismatch"}', OPEN),
        (200, JSON, b'{"message": "still processing"}', OPEN),
        (200, JSON, b'{"status": "pending"}', OPEN),
        (200, JSON, b'{"statusCode": 404, "message": "x"}', OPEN),
        (200, JSON, b'{"code": "E1"}', OPEN),
        (200, JSON, b'{"result": false}', OPEN),
        (200, JSON, b'{"result": null}', OPEN),
        (200, JSON, b'{"a": {"b": [{"verified": true}]}}', OPEN),
        (200, JSON, b'{"isMatch": true}', OPEN),
        (200, JSON, b'{"response": {"faceMatch": false}}', OPEN),
        (200, JSON, b'{"similarity": "low"}', OPEN),
        (200, JSON, b'{"x": ' + b"[" * 500 + b"false" + b"]" * 500 + b"}", OPEN),
    ],
)
def test_a_bare_200_counts_only_when_asked_for_and_nothing_speaks_against_it(
    status: int, content_type: str | None, body: bytes, kind: VerdictKind
) -> None:
    assert judge(status, content_type, body, Rules(accept_bare_200=True)).kind is kind
    if b"match" not in body.lower() and b"success" not in body:
        assert judge(status, content_type, body, Rules()).kind is OPEN


def test_a_bare_200_cannot_reach_a_minimum_similarity() -> None:
    assert verdict(200, b"", accept_bare_200=True, min_similarity=1).kind is OPEN
    assert verdict(200, {"similarity": 97}, accept_bare_200=True, min_similarity=90).kind is YES


def test_the_status_is_kept() -> None:
    assert [verdict(s, {"match": False}).status for s in (200, 404, 500)] == [200, 404, 500]


def test_the_evidence_names_known_fields_only() -> None:
    body = {"match": True, "similarity": 99.5, "message": "secret", "data": {"success": True, "userId": "u-1"}}
    assert verdict(200, body).evidence == "200: match=true, similarity=99.5, data.success=true"
    assert verdict(200, {"match": "eyJhbGciOi"}).evidence == "200: match=<str>; contradictory or not boolean"
    assert "accept_bare_200" in verdict(200, b"").evidence


scalars = st.sampled_from([True, True, True, False, None, 0, 1, 95.5, 10**400, "true", math.nan, [True]])
names = st.sampled_from(["match", "faceMatch", "matched", "success", "similarity", "Match", "message"])
flat = st.dictionaries(names, scalars, max_size=4)
bodies = flat | st.tuples(flat, flat | scalars).map(lambda pair: {**pair[0], "data": pair[1]}) | scalars
statuses = st.sampled_from([200, 200, 201, 204, 302, 400, 401, 422, 500])
types = st.sampled_from([JSON, JSON, None, "text/html", "text/plain", "application/x+json"])
# No deadline: the suite also runs on emulated machines.
unhurried = hypothesis.settings(deadline=None)


@unhurried
@given(statuses, types, bodies, st.none() | st.sampled_from([0.0, 90.0, 100.0]))
def test_no_json_without_a_true_verdict_field_is_positive(
    status: int, content_type: str | None, body: object, minimum: float | None
) -> None:
    found = judge(status, content_type, json.dumps(body).encode(), Rules(minimum))
    if found.positive:
        assert isinstance(body, dict)
        places = [body, *([body["data"]] if isinstance(body.get("data"), dict) else [])]
        said = [place[name] for place in places for name in ("match", "faceMatch", "matched") if name in place]
        assert said
        assert all(value is True for value in said)
        assert all(place.get("success", True) is True for place in places)
        assert 200 <= status < 300
        assert minimum is None or (found.similarity is not None and found.similarity >= minimum)


def test_the_property_above_does_meet_positive_answers() -> None:
    found = hypothesis.find(bodies, lambda body: judge(200, JSON, json.dumps(body).encode(), Rules()).positive)
    assert isinstance(found, dict)


@unhurried
@given(statuses, types, st.binary() | st.text().map(str.encode))
def test_bytes_without_the_word_true_are_never_positive(status: int, content_type: str | None, body: bytes) -> None:
    found = judge(status, content_type, body, Rules())
    assert not found.positive or b"true" in body


@unhurried
@given(st.text(), bodies)
def test_a_false_anywhere_among_the_verdict_fields_is_never_positive(extra: str, value: object) -> None:
    body = {extra: value, "match": True, "faceMatch": False}
    for rules in (Rules(), Rules(accept_bare_200=True)):
        assert not judge(200, JSON, json.dumps(body).encode(), rules).positive
