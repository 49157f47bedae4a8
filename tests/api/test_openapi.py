"""The published description: it is that of the code, whole, and consistent in itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from edge_agent.api import problems
from edge_agent.api.operation import problems_of
from edge_agent.api.operations import OPERATIONS
from edge_agent.api.routes import route_table
from scripts.api_docs import pages
from tests.api.calls import raw
from tests.project.tree import ROOT
from tests.terminal import Terminal


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    return found


def operations() -> Iterator[dict[str, Any]]:
    for path in document()["paths"].values():
        yield from path.values()


def resolved(node: Any) -> Any:
    """``node``, or what it refers to."""
    while isinstance(node, dict) and "$ref" in node:
        found: Any = document()
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


@pytest.mark.parametrize("name", ["openapi.json", "problems.md"])
def test_the_page_is_that_of_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == pages()[name], "run: scripts/api-docs"


def test_it_is_served_as_it_is_published(running: Terminal) -> None:
    with raw(running) as http:
        answer = http.get("/v1/openapi.json")
    assert (answer.headers["content-type"], answer.json()) == ("application/json", document())


def test_every_route_is_described_and_no_other() -> None:
    assert [(entry.method, entry.path) for entry in route_table()] == list(OPERATIONS)


def test_the_roles_are_those_of_the_route_table() -> None:
    shown = {(method.upper(), path): operation["x-role"]
             for path, found in document()["paths"].items() for method, operation in found.items()}  # fmt: skip
    assert shown == {(entry.method, entry.path): entry.role for entry in route_table()}


def test_operations_have_names_of_their_own_and_a_summary() -> None:
    ids = [operation["operationId"] for operation in operations()]
    assert len(set(ids)) == len(ids) == len(OPERATIONS)
    assert [operation["operationId"] for operation in operations() if len(operation["summary"]) < 10] == []


def test_the_problems_of_an_operation_are_those_that_the_code_allows_it() -> None:
    for (method, path), operation in OPERATIONS.items():
        shown = set()
        for answer in document()["paths"][path][method.lower()]["responses"].values():
            media = answer["content"].get(problems.MEDIA_TYPE)
            if media is not None:
                shown |= set(media["schema"]["properties"]["code"]["enum"])
                assert set(media["examples"]) == set(media["schema"]["properties"]["code"]["enum"])
        assert shown == problems_of(operation), operation.id


def test_every_link_leads_to_an_operation_that_takes_the_parameter() -> None:
    taken = {
        operation["operationId"]: {p["name"] for p in operation.get("parameters", ())} for operation in operations()
    }
    links = [
        link
        for operation in operations()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert links
    for link in links:
        assert set(link["parameters"]) <= taken[link["operationId"]]


def bodies() -> Iterator[tuple[str, Any, Any]]:
    """(where, schema, example) of every example."""
    for operation in operations():
        contents = {"request": operation.get("requestBody", {}).get("content", {})}
        contents |= {status: answer["content"] for status, answer in operation["responses"].items()}
        for where, content in contents.items():
            for media in content.values():
                if "example" in media:
                    yield f"{operation['operationId']} {where}", media["schema"], media["example"]
                for name, example in media.get("examples", {}).items():
                    yield f"{operation['operationId']} {where} {name}", media["schema"], resolved(example)["value"]


def test_every_example_fits_its_schema() -> None:
    checked = 0
    for where, schema, example in bodies():
        whole = {**schema, "components": document()["components"]}
        errors = [str(error) for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(example)]
        assert errors == [], where
        checked += 1
    assert checked > 100


def test_every_json_body_is_described() -> None:
    for operation in operations():
        for answer in operation["responses"].values():
            media = answer["content"].get("application/json", {"schema": None})
            assert operation["operationId"] == "openapi" or "schema" in media
    refused = [name for name, schema in document()["components"]["schemas"].items()
               if name.endswith("Request") and schema["additionalProperties"] is not False]  # fmt: skip
    assert refused == []


@pytest.mark.parametrize(
    ("amount", "good"),
    [("12.50", True), ("0", True), (12.5, True), (7, True), ("1e5", False), (" 5", False), ("01", False), ("-1", False),
     (-1, False), ("1.23456", False), (10**12, False), (True, False)],
)  # fmt: skip
def test_the_published_schema_says_what_the_code_does_of_an_amount(running: Terminal, amount: Any, good: bool) -> None:
    schema = {"$ref": "#/components/schemas/VerificationRequest", "components": document()["components"]}
    body = {"user_id": "alice", "amount": amount}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(body) is good
    with raw(running) as http:
        answer = http.post("/v1/verifications", json=body, headers={"Idempotency-Key": "k"})
    assert (answer.status_code == 201) is good
