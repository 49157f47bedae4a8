"""The API as an OpenAPI 3.1 document, made of the route table, the operations and the problem catalogue."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from edge_agent.api import problems, wire, wire_problem
from edge_agent.api.operation import EVENT_STREAM, JSON, Answer, Link, Operation, Parameter, Payload, problems_of
from edge_agent.api.schemas import reference, schemas
from edge_agent.api.wire_events import EVENTS
from edge_agent.types import JsonObject

if TYPE_CHECKING:
    from edge_agent.api.routes import Entry

TITLE = "edge-agent terminal API"
DESCRIPTION = """\
HTTP over the Unix socket `api.socket` (`/run/edge-agent/api.sock`), where the kernel says who calls (peer credentials:
no token), and optionally over TCP on loopback with a bearer token. `x-role` names who may call: `pos` and `enrol` are
roles, `admin` may do everything, `any` is everybody who is admitted.

A POS that reads nothing but `approved` is safe. Whatever is not declared here is refused: unknown fields, unknown query
parameters, a body where none is taken, a JSON object that names a key twice. Answers may gain fields.

Every error is a problem document (RFC 9457) with a stable `code`; each operation lists those it can answer, and
[problems.md](problems.md) says what to do about each. Every GET can be asked with HEAD.
"""
SERVERS = [
    {"url": "http://localhost", "description": "over the Unix socket"},
    {"url": "http://127.0.0.1:{port}", "description": "over loopback TCP", "variables": {"port": {"default": "8470"}}},
]
PATH_TEXT = {"id": "A verification's id.", "user_id": "The user, as CypherFace knows them."}
EVENTS_TEXT = """\
`id`, `event` (the kind) and `data` of each event; `data` is JSON as the schema of its kind below `x-events` says. Comments are
heartbeats."""
EVENT_SCHEMAS = {kind: reference(model) for kind, model in EVENTS.items()}


def document(entries: Iterable[Entry], operations: Mapping[tuple[str, str], Operation]) -> JsonObject:
    """The document over the routes ``entries``."""
    paths: dict[str, JsonObject] = {}
    described = [(entry, operations[entry.method, entry.path]) for entry in entries]
    for entry, operation in described:
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1", "description": DESCRIPTION, "license": {"name": "Apache-2.0",
                 "identifier": "Apache-2.0"}},
        "servers": SERVERS,
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas(operation for _, operation in described),
            "examples": {
                code: {"summary": problem.title, "value": problems.example(problem)}
                for code, problem in sorted(problems.CATALOGUE.items())
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over TCP only; the Unix socket's peer credentials need nothing in the request.",
                }
            },
        },
    }  # fmt: skip


def text(entries: Iterable[Entry], operations: Mapping[tuple[str, str], Operation]) -> str:
    """The document as JSON, as it is served and as docs/openapi.json holds it."""
    return json.dumps(document(entries, operations), indent=1, ensure_ascii=False) + "\n"


# -- operations -------------------------------------------------------------------------------------------------------


def _operation(entry: Entry, operation: Operation) -> JsonObject:
    summary, _, more = (inspect.getdoc(entry.handler) or "").partition("\n\n")
    found: JsonObject = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": " ".join(summary.split()).replace("``", "`"),
        "x-role": entry.role,
    }
    if said := "\n\n".join(part for part in (operation.text, more.replace("``", "`")) if part):
        found["description"] = said
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", entry.path)]
    parameters += [_parameter(p, "query") for p in operation.query] + [
        _parameter(p, "header") for p in operation.headers
    ]
    if parameters:
        found["parameters"] = parameters
    if operation.payload is not None:
        found["requestBody"] = _payload(operation.payload)
    found["responses"] = _responses(operation)
    return found


def _path_parameter(name: str) -> JsonObject:
    schema = wire.USER_ID_SCHEMA if name == "user_id" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": PATH_TEXT[name], "schema": schema}


def _parameter(parameter: Parameter, place: Literal["query", "header"]) -> JsonObject:
    found: JsonObject = {"name": parameter.name, "in": place, "description": parameter.text, "schema": parameter.schema}
    return {**found, "required": True} if parameter.required else found


def _payload(payload: Payload) -> JsonObject:
    content: JsonObject = {}
    for media_type in payload.media_types:
        content[media_type] = {"schema": reference(payload.model)} if payload.model else {}
        if payload.example is not None:
            content[media_type]["example"] = payload.example
    said = f"At most {payload.limit_bytes} bytes."
    if payload.unless is not None:
        said += f" None with `{payload.unless[0]}={payload.unless[1]}`."
    return {"required": payload.unless is None, "description": said, "content": content}


def _responses(operation: Operation) -> JsonObject:
    found: dict[int, JsonObject] = {status: _answer(answer) for status, answer in operation.answers.items()}
    for status, kinds in _by_status(problems_of(operation)).items():
        problem = _problem(kinds)
        if status in found:
            found[status]["content"] |= problem["content"]
        else:
            found[status] = problem
    return {str(status): found[status] for status in sorted(found)}


def _answer(answer: Answer) -> JsonObject:
    if isinstance(answer.body, str):
        media: JsonObject = (
            {"schema": {"type": "string", "description": EVENTS_TEXT}, "x-events": EVENT_SCHEMAS}
            if answer.body == EVENT_STREAM
            else {}
        )
        content = {answer.body: media}
    else:
        content = {JSON: {"schema": reference(answer.body)}}
        if answer.example is not None:
            content[JSON]["example"] = answer.example
    found: JsonObject = {"description": answer.text, "content": content}
    if answer.headers:
        found["headers"] = {name: _header(said) for name, said in answer.headers.items()}
    if answer.links:
        found["links"] = {link.operation: _link(link) for link in answer.links}
    return found


def _header(said: str) -> JsonObject:
    return {"description": said, "schema": {"type": "string"}, "required": True}


def _link(link: Link) -> JsonObject:
    return {"operationId": link.operation, "parameters": {link.parameter: link.value}}


def _by_status(codes: Iterable[str]) -> dict[int, list[problems.Problem]]:
    found: dict[int, list[problems.Problem]] = {}
    for code in sorted(codes):
        problem = problems.CATALOGUE[code]
        found.setdefault(problem.status, []).append(problem)
    return found


def _problem(kinds: list[problems.Problem]) -> JsonObject:
    schema = {
        "allOf": [reference(wire_problem.ProblemDocument)],
        "properties": {"code": {"enum": [kind.code for kind in kinds]}},
    }
    examples = {kind.code: {"$ref": f"#/components/examples/{kind.code}"} for kind in kinds}
    found: JsonObject = {
        "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds),
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if kinds[0].status == 429:
        found["headers"] = {"Retry-After": _header("Whole seconds to wait.")}
    return found
