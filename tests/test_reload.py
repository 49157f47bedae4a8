"""What a changed key needs: a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Config
from edge_agent.reload import Change, Part, leaves, plan, rule_of

SERVICE = {
    "base_url": "https://a.example/",
    "merchant_id": "5a9db0c0ffee5a9db0c0ffee",
    "api_key": {"env": "KEY"},
    "upload_hosts": ["a.example"],
}


def config(**values: Any) -> Config:
    service = {**SERVICE, **values.pop("cypherface", {})}
    return Config.model_validate({"cypherface": service, **values})


CASES: list[tuple[dict[str, Any], set[Part], tuple[str, ...]]] = [
    ({}, set(), ()),
    ({"gate": {"max_yaw_deg": 25}}, {Part.SESSION}, ()),
    ({"session": {"search_timeout_s": 30}}, {Part.SESSION}, ()),
    ({"session": {"result_valid_s": 60}}, {Part.VALIDITY}, ()),
    ({"session": {"max_failures": 3}}, {Part.LIMITS}, ()),
    ({"capture": {"jpeg_quality": 70}}, {Part.SESSION}, ()),
    ({"enrolment": {"max_yaw_deg": 8}}, {Part.SESSION}, ()),
    ({"camera": {"device": "/dev/video2"}}, {Part.CAMERA}, ()),
    ({"camera": {"size": [640, 480]}}, {Part.CAMERA}, ()),
    ({"models": {"pack": "open-lite"}}, {Part.MODELS}, ()),
    ({"models": {"dir": "/elsewhere"}}, {Part.MODELS}, ()),
    ({"offline": {"policy": "deny"}}, {Part.SERVICE}, ()),
    ({"cypherface": {"base_url": "https://b.example/"}}, {Part.SERVICE}, ()),
    ({"cypherface": {"api_key": {"env": "OTHER"}}}, {Part.SERVICE}, ()),
    ({"cypherface": {"timeouts": {"match_s": 60}}}, {Part.SERVICE}, ()),
    ({"cypherface": {"upload_quarantine_s": 5}}, {Part.LIMITS}, ()),
    ({"outbox": {"max_items": 10}}, {Part.LIMITS}, ()),
    ({"outbox": {"reserve_bytes": 0}}, {Part.LIMITS}, ()),
    ({"log": {"level": "debug"}}, {Part.LOG}, ()),
    ({"terminal_id": "pos-2"}, set(), ("terminal_id",)),
    ({"api": {"socket": "/run/other.sock"}}, set(), ("api.socket",)),
    ({"api": {"socket_group": "pos"}}, set(), ("api.socket_group",)),
    ({"api": {"tcp": "127.0.0.1:8470", "token": {"env": "T"}}}, {Part.ACCESS}, ("api.tcp",)),
    ({"api": {"admin_token": {"env": "T"}}}, {Part.ACCESS}, ()),
    ({"api": {"roles": {"pos": {"users": ["pos"]}, "admin": {"groups": [7]}}}}, {Part.ACCESS}, ()),
    ({"outbox": {"key": {"file": "/k"}}}, set(), ("outbox.key",)),
    ({"state_dir": "/srv/agent"}, set(), ("state_dir", "models.dir")),
    ({"outbox": {"key": {"file": "/k"}, "max_items": 9}, "gate": {"max_yaw_deg": 9}},
     {Part.LIMITS, Part.SESSION}, ("outbox.key",)),
]  # fmt: skip


@pytest.mark.parametrize(("values", "parts", "restart"), CASES, ids=[str(case[0]) for case in CASES])
def test_a_changed_key_renews_what_reads_it(values: Any, parts: set[Part], restart: tuple[str, ...]) -> None:
    found = plan(config(), config(**values))
    assert set(found.parts) == parts
    assert found.restart == restart


def test_the_token_of_a_listener_that_goes_on_until_the_restart_goes_on_too() -> None:
    found = plan(config(api={"tcp": "127.0.0.1:8470", "token": {"env": "T"}}), config())
    assert found.restart == ("api.tcp", "api.token")
    assert found.effective.api.token is not None


def test_every_key_has_a_rule() -> None:
    assert [key for key, _ in leaves(config().model_dump(mode="json")) if rule_of(key) is None] == []


def test_a_change_tells_the_key_and_both_values_and_a_secret_by_its_reference() -> None:
    new = config(cypherface={"api_key": {"file": "/k"}, "min_similarity": 80})
    assert plan(config(), new).changes == (
        Change("cypherface.api_key", {"env": "KEY"}, {"file": "/k"}),
        Change("cypherface.min_similarity", None, 80.0),
    )


def test_keys_that_need_a_restart_keep_their_value_and_the_others_do_not_wait_for_them() -> None:
    new = config(state_dir="/srv/agent", outbox={"key": {"file": "/k"}, "max_items": 7})
    effective = plan(config(), new).effective
    assert (effective.state_dir, effective.models.dir) == (config().state_dir, config().models.dir)
    assert (str(effective.outbox.key), effective.outbox.max_items) == ("credential:edge-agent-key", 7)
    assert plan(effective, new).restart == ("state_dir", "models.dir", "outbox.key")


def test_models_elsewhere_need_no_restart_by_themselves(tmp_path: Path) -> None:
    new = config(models={"dir": str(tmp_path)})
    assert plan(config(), new).effective.models.dir == tmp_path
