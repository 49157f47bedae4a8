"""The control endpoints: what a test or a technician with curl can see and change while it runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from edge_agent.sandbox.faults import KINDS, Fault
from edge_agent.sandbox.variants import Variants
from tests.sandbox.conftest import Caller


def test_settings_can_be_changed_one_by_one_and_restored(caller: Caller):
    changed = caller.control("PUT", "settings", {"token_field": "token"}).json()
    assert changed == {**Variants().model_dump(mode="json"), "token_field": "token"}
    caller.control("PUT", "settings", {"url_valid_s": 60})
    now = caller.control("GET", "settings").json()
    assert (now["token_field"], now["url_valid_s"]) == ("token", 60)
    assert caller.control("DELETE", "settings").json() == Variants().model_dump(mode="json")


@pytest.mark.parametrize("body", [{"tokn_field": "x"}, {"url_valid_s": 0}, {"auth_scheme": "basic"}, [], None])
def test_a_wrong_setting_changes_nothing(caller: Caller, body: Any):
    answer = caller.control("PUT", "settings", body)
    assert answer.status_code == 422
    assert answer.json()["message"].startswith("cannot use this: ")
    assert caller.control("GET", "settings").json() == Variants().model_dump(mode="json")


def test_faults_can_be_added_listed_and_cleared(caller: Caller):
    waiting = caller.control("POST", "faults", {"step": "match", "kind": "hang"}).json()
    assert waiting == [Fault(step="match", kind="hang").model_dump(mode="json")]
    more = [{"step": "put", "kind": "reset", "times": None}, {"step": "token", "kind": "html"}]
    assert len(caller.control("POST", "faults", more).json()) == 3
    assert caller.control("DELETE", "faults").status_code == 204
    assert caller.control("GET", "faults").json() == []


@pytest.mark.parametrize("body", [{"step": "match"}, {"step": "match", "kind": "late_put"}, "hang", None])
def test_a_wrong_fault_adds_nothing(caller: Caller, body: Any):
    good = {"step": "match", "kind": "hang"}
    assert caller.control("POST", "faults", [good, body]).status_code == 422
    assert caller.control("GET", "faults").json() == []


def test_a_fault_posted_as_a_form_by_curl_is_taken(caller: Caller):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    caller.http.post("/_sandbox/faults", content=b'{"step": "match", "kind": "status", "status": 429}', headers=headers)
    assert caller.match().status_code == 429


def test_the_judgements_can_be_read_by_user(enrolled: Caller):
    for user_id in ("alice", "no-bob"):
        enrolled.upload(user_id.encode(), user_id)
        enrolled.match(user_id)
    everything = enrolled.control("GET", "judged").json()
    assert [j["user_id"] for j in everything] == ["alice", "no-bob"]
    (bob,) = enrolled.control("GET", "judged?user_id=no-bob").json()
    assert bob["outcome"] == "mismatch"
    assert bob["target_sha256"] == hashlib.sha256(b"no-bob").hexdigest()
    assert bob["at"].endswith("Z")


def test_the_state_shows_users_and_their_pictures(enrolled: Caller):
    enrolled.upload(b"target")
    state = enrolled.control("GET", "state").json()
    assert state["matcher"] == "rule"
    assert state["users"]["alice"]["source"] == hashlib.sha256(b"alice's source").hexdigest()
    assert state["users"]["alice"]["target"] == hashlib.sha256(b"target").hexdigest()
    assert state["users"]["no-bob"]["target"] is None
    assert [p["type"] for p in state["users"]["alice"]["pictures"]] == ["upload", "match"]


def test_the_state_can_be_forgotten_while_tokens_stay_good(enrolled: Caller):
    enrolled.upload()
    enrolled.match()
    assert enrolled.control("DELETE", "state").status_code == 204
    assert enrolled.control("GET", "judged").json() == []
    assert enrolled.match().status_code == 404


def test_requests_are_noted_with_header_names_and_no_values(enrolled: Caller):
    enrolled.control("DELETE", "state")
    enrolled.inject("match", "html")
    enrolled.access_token()
    enrolled.upload()
    enrolled.match()
    noted = enrolled.control("GET", "requests").json()
    assert [(r["step"], r["status"], r["fault"]) for r in noted] == [
        ("token", 200, None),
        ("generate_url", 200, None),
        ("put", 200, None),
        ("match", 200, "html"),
    ]
    assert "authorization" in noted[1]["headers"]
    assert "authorization" not in noted[2]["headers"]
    secrets = (enrolled.token, enrolled.server.credentials.api_key, "X-Amz-Signature")
    assert not any(secret in json.dumps(noted) for secret in secrets)


def test_time_can_be_advanced(caller: Caller):
    before = caller.control("GET", "state").json()["now"]
    after = caller.control("POST", "advance", {"seconds": 86_400}).json()["now"]
    assert after[:10] > before[:10]


@pytest.mark.parametrize("body", [{}, {"seconds": -1}, {"seconds": "1"}, {"seconds": True}, {"seconds": 1e10}, 5])
def test_time_does_not_move_by_nonsense(caller: Caller, body: Any):
    assert caller.control("POST", "advance", body).status_code == 422


def test_the_guide_explains_every_variant_and_every_fault(caller: Caller):
    assert f"{caller.server.base_url}docs" in caller.http.get("/").text
    guide = caller.http.get("/docs").text
    for name in (*Variants.model_fields, *Fault.model_fields, *KINDS):
        assert f"  {name} " in guide
    assert caller.server.credentials.api_key in guide
    assert f"B={caller.server.base_url.rstrip('/')}\n" in guide
