"""The bodies of the API as JSON Schema, with what their classes say in docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edge_agent.api.operation import Operation
from edge_agent.api.wire_events import EVENTS
from edge_agent.api.wire_problem import ProblemDocument
from edge_agent.types import JsonObject

_PREFIX = "#/components/schemas/"


def reference(model: type[BaseModel]) -> JsonObject:
    """Where the schema of ``model`` is."""
    return {"$ref": f"{_PREFIX}{model.__name__}"}


def schemas(operations: Iterable[Operation]) -> JsonObject:
    """Every body by name: requests as they are validated, answers as they are written."""
    models: dict[type[BaseModel], Literal["validation", "serialization"]] = {ProblemDocument: "serialization"}
    models |= dict.fromkeys(EVENTS.values(), "serialization")
    for operation in operations:
        if operation.payload is not None and operation.payload.model is not None:
            models[operation.payload.model] = "validation"
        for answer in operation.answers.values():
            if not isinstance(answer.body, str):
                models[answer.body] = "serialization"
    _, schema = models_json_schema(list(models.items()), ref_template=_PREFIX + "{model}")
    found: JsonObject = schema["$defs"]
    for part in {part for model in models for part in _with_parts(model)}:
        _explain(found[part.__name__], part)
    return {name: found[name] for name in sorted(found)}


def _with_parts(kind: object) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, and theirs."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _with_parts(field.annotation)
    for inner in get_args(kind):
        yield from _with_parts(inner)


def _explain(schema: JsonObject, model: type[BaseModel]) -> None:
    """Say of each field what its class says; the titles that pydantic makes of names say nothing."""
    schema["description"] = str(schema.get("description", "")).replace("``", "`")
    for field in schema["properties"].values():
        field.pop("title", None)
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            for name, text in _field_texts(base):
                if name in schema.get("properties", {}):
                    schema["properties"][name].setdefault("description", text)


def _field_texts(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Field and the string that stands below it. Read from the source: pydantic would do it at every start."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split()).replace("``", "`")
