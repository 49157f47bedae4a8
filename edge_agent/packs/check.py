"""Checking what people write: an operator's own pack file, by the rules that the records of the manifest carry."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def check(kind: type[T], value: object) -> T:
    """``value`` (of YAML or JSON) as a record of this kind. Raises ValueError that names every mistake and its place."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as exc:
        lines = [
            f"  {'.'.join(str(part) for part in error['loc']) or 'file'}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors(include_url=False)
        ]
        raise ValueError("\n".join(["it is not a pack", *lines])) from exc
