"""docs/api.md tells of every route and every problem, and of no other."""

from __future__ import annotations

import re

from edge_agent.api.problems import ALIASES, CATALOGUE
from edge_agent.api.routes import route_table
from edge_agent.texts import HINTS
from edge_agent.types import GateCode
from tests.project.tree import ROOT

PAGE = (ROOT / "docs/api.md").read_text()


def test_every_problem_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes|no) \| (.+) \|$", PAGE, re.MULTILINE)
    assert {(code, int(status), again == "yes", title) for code, status, again, title in rows} == {
        (p.code, p.status, p.retryable, p.title) for p in CATALOGUE.values()
    }


def test_every_route_is_documented() -> None:
    documented = re.sub(r"/v1/ready`?|`/v1/status`", "", PAGE)
    for entry in route_table():
        path = entry.path.removeprefix("/v1")
        assert path in documented or entry.path in PAGE, entry


def test_every_alias_leads_to_a_documented_problem() -> None:
    assert set(ALIASES.values()) <= CATALOGUE.keys()
    assert not ALIASES.keys() & CATALOGUE.keys()


def test_every_gate_code_has_a_text_for_the_customer() -> None:
    assert HINTS.keys() == set(GateCode)
