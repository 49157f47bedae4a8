"""Late uploads and processing lag: the ways in which the service can judge the wrong picture."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from edge_agent.sandbox.clock import SandboxClock, iso
from tests.sandbox.conftest import Caller


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def last_judged(caller: Caller) -> str:
    return caller.server.judged[-1].target_sha256


def test_a_late_put_is_acknowledged_and_lands_after_the_next_one(enrolled: Caller):
    enrolled.inject("put", "late_put", delay_s=30, answer="ok")
    assert enrolled.upload(b"late").status_code == 200
    enrolled.upload(b"next")
    enrolled.match()
    assert last_judged(enrolled) == sha256(b"next")
    enrolled.server.advance(30)
    enrolled.match()
    assert last_judged(enrolled) == sha256(b"late"), "this is what the quarantine is for"


def test_a_late_put_may_time_out_for_the_client(enrolled: Caller):
    url = enrolled.generate_url().json()["url"]
    enrolled.inject("put", "late_put", delay_s=30)
    with pytest.raises(httpx.ReadTimeout):
        enrolled.http.put(url, content=b"late", headers={"content-type": "image/jpeg"}, timeout=0.1)
    assert enrolled.match().status_code == 422
    enrolled.server.advance(30)
    assert enrolled.match().status_code == 200
    assert last_judged(enrolled) == sha256(b"late")


def test_a_late_put_may_look_failed(enrolled: Caller):
    enrolled.inject("put", "late_put", delay_s=1, answer="error", status=503)
    assert enrolled.upload(b"late").status_code == 503
    enrolled.server.advance(1)
    assert enrolled.match().status_code == 200


def test_a_late_put_with_a_bad_signature_lands_nowhere(enrolled: Caller):
    enrolled.inject("put", "late_put", delay_s=1, answer="ok")
    url = enrolled.generate_url().json()["url"]
    assert enrolled.put(url, b"late", **{"content-type": "image/png"}).status_code == 403
    enrolled.server.advance(1)
    assert enrolled.match().status_code == 422


def test_during_the_processing_lag_the_previous_target_is_judged(enrolled: Caller):
    enrolled.upload(b"previous")
    enrolled.server.vary(processing_lag_s=5)
    enrolled.upload(b"next")
    enrolled.match()
    assert last_judged(enrolled) == sha256(b"previous")
    enrolled.server.advance(5)
    enrolled.match()
    assert last_judged(enrolled) == sha256(b"next")


def test_the_first_target_is_not_there_during_the_lag(enrolled: Caller):
    enrolled.server.vary(processing_lag_s=5)
    enrolled.upload(b"first")
    assert enrolled.match().status_code == 422
    enrolled.server.advance(5)
    assert enrolled.match().status_code == 200


def test_a_careful_service_refuses_during_the_lag(enrolled: Caller):
    enrolled.upload(b"previous")
    enrolled.server.vary(processing_lag_s=5, while_processing="refuse")
    enrolled.upload(b"next")
    assert enrolled.match().json() == {"message": "The target image is still being processed"}
    enrolled.server.advance(5)
    assert enrolled.match().status_code == 200
    assert last_judged(enrolled) == sha256(b"next")


def test_the_service_cannot_refuse_what_has_not_landed(enrolled: Caller):
    enrolled.upload(b"previous")
    enrolled.server.vary(while_processing="refuse")
    enrolled.inject("put", "late_put", delay_s=5, answer="ok")
    enrolled.upload(b"late")
    assert enrolled.match().status_code == 200
    assert last_judged(enrolled) == sha256(b"previous")


def test_an_enrolment_takes_its_time_too(caller: Caller):
    caller.server.vary(processing_lag_s=5)
    caller.upload(b"source", type_="upload")
    assert caller.match().json() == {"message": "No source image for this user"}
    assert caller.generate_url(type_="upload").status_code == 200, "not processed: may still be replaced"
    caller.server.advance(5)
    assert caller.generate_url(type_="upload").status_code == 409


def test_old_targets_are_forgotten_and_pending_ones_are_not(enrolled: Caller):
    for number in range(5):
        enrolled.upload(b"target %d" % number)
    enrolled.inject("put", "late_put", delay_s=9, answer="ok")
    enrolled.upload(b"late")
    enrolled.upload(b"last")
    kept = [p for p in enrolled.server.state.saved.pictures if p.type == "match"]
    assert [p.sha256 for p in kept] == [sha256(b"late"), sha256(b"last")]
    assert set(enrolled.server.state._blobs) == {p.sha256 for p in enrolled.server.state.saved.pictures}


def test_the_clock_moves_forward_only():
    clock = SandboxClock(lambda: 100.0)
    clock.advance(7)
    assert clock.now_s() == 107.0
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
    assert iso(0.25) == "1970-01-01T00:00:00.250Z"
