"""docs/api.md tells of every route; the problems have a page of their own (test_openapi.py)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from edge_agent.api.routes import route_table
from edge_agent.api.wire_events import EVENTS, EventBody
from edge_agent.challenge.prompts import Prompt
from edge_agent.texts import HOLD_ON, TEXTS, challenge_text, hint_text
from edge_agent.types import ChallengeCode, GateCode
from tests.project.tree import ROOT
from tests.terminal import departures

PAGE = (ROOT / "docs/api.md").read_text()


def test_every_route_is_documented() -> None:
    documented = re.sub(r"/v1/ready`?|`/v1/status`", "", PAGE)
    for entry in route_table():
        path = entry.path.removeprefix("/v1")
        assert path in documented or entry.path in PAGE, entry


def test_every_gate_code_has_a_text_for_the_customer_and_the_page_lists_them() -> None:
    prompts = [f"challenge_{prompt}" for prompt in (*Prompt, "done")]
    assert list(TEXTS) == [
        HOLD_ON,
        *(code.value for code in GateCode),
        *prompts,
        *(code.value for code in ChallengeCode),
    ]
    assert all(challenge_text(prompt.removeprefix("challenge_")).strip() for prompt in prompts)
    assert all(hint_text(code).strip() for code in (None, *GateCode))
    rows = re.findall(r"^\| `(\w+)` \| ([^|`]+) \|$", PAGE, re.MULTILINE)
    assert {code: text for code, text in rows if code in TEXTS} == TEXTS


def test_every_kind_of_event_is_documented_with_its_fields_and_an_example() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ((?:`\w+`(?:, )?)+) \|", _events_of_the_page(), re.MULTILINE)
    of_every = EventBody.model_fields.keys()
    assert {kind: re.findall(r"\w+", fields) for kind, fields in rows} == {
        kind: [name for name in model.model_fields if name not in of_every] for kind, model in EVENTS.items()
    }
    examples = re.findall(r"^event: ([\w.]+)\ndata: (.+)$", _events_of_the_page(), re.MULTILINE)
    assert {kind for kind, _ in examples} == EVENTS.keys()
    whole = {"at": datetime.now(UTC), "verification_id": None}
    assert [problem for kind, data in examples for problem in departures(kind, whole | json.loads(data))] == []


def _events_of_the_page() -> str:
    return PAGE.partition("\n## Events\n")[2].partition("\n## ")[0]
