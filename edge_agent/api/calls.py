"""One admitted request, and what handlers read from it."""

from __future__ import annotations

import asyncio
import difflib
import json
import re
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from edge_agent.agent import Agent
from edge_agent.api import problems, wire
from edge_agent.api.access import Access
from edge_agent.api.peer import Peer
from edge_agent.errors import InputError
from edge_agent.settings import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
"""As in JSON, in ASCII: ``float`` would also take "1_0", " 1" and "nan"."""

AnyBody = TypeVar("AnyBody", bound=BaseModel)
T = TypeVar("T")


class Call(NamedTuple):
    """One admitted request."""

    request: Request
    agent: Agent
    peer: Peer
    settings: Settings
    access: Access


def refuse(code: str, detail: str, hint: str | None = None) -> InputError:
    """What to raise for a request that cannot be taken."""
    return InputError(detail, code=code, hint=hint)


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body. Raises InputError too_large as soon as it is longer than ``limit`` bytes."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > limit:
            raise refuse("too_large", f"cannot read the request: its body is larger than {limit} bytes")
    return bytes(chunks)


def parse(body: bytes, kind: type[AnyBody]) -> AnyBody:
    """``body`` as a ``kind``. Raises InputError: invalid_request, or the code of the field that is wrong.

    Only JSON that everybody reads in the same way is taken: UTF-8, finite numbers, no key twice in an object.
    """
    try:
        json.loads(body.decode(), object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RepeatedKey as exc:
        raise refuse("invalid_request", f"cannot read the request: the key {exc.key!r} stands twice") from exc
    except (ValueError, RecursionError) as exc:
        where = f" (line {exc.lineno}, column {exc.colno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise refuse("invalid_request", f"cannot read the request: the body is not JSON{where}") from exc
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as exc:
        raise _invalid(exc, kind) from exc


class RepeatedKey(ValueError):
    """An object names a key twice: which value counts, readers do not agree on."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _no_key_twice(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise RepeatedKey(key)
        seen.add(key)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _invalid(exc: ValidationError, kind: type[BaseModel]) -> InputError:
    """One error for all wrong fields; a field with a code of its own gives its code to the whole."""
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    named = [e["type"] for e in errors if e["type"] in problems.CATALOGUE]
    code = "invalid_user_id" if any(e["loc"][:1] == ("user_id",) for e in errors) else "invalid_request"
    listing = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in errors)
    return refuse(named[0] if named else code, f"cannot accept the request: {listing}", _meant(errors, kind))


def _meant(errors: Sequence[ErrorDetails], kind: type[BaseModel]) -> str | None:
    """The field that the first unknown one is a misspelling of, as the hint; not of fields within fields."""
    for error in errors:
        if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
            near = difflib.get_close_matches(str(error["loc"][0]), kind.model_fields, 1)
            return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(kind.model_fields)}."
    return None


def whole_number(request: Request, name: str, default: int, most: int) -> int:
    """A number of the query from 1 to ``most``. Raises InputError invalid_request."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise refuse("invalid_request", f"cannot use {name}={text!r}: must be a number from 1 to {most}")
    return int(text)


def user_id_of(call: Call) -> str:
    """The user of the path. Raises InputError (invalid_user_id, looks_like_card_number)."""
    try:
        return TypeAdapter[str](wire.UserId).validate_python(call.request.path_params["user_id"])
    except ValidationError as exc:
        raise _invalid_user_id(exc) from exc


def _invalid_user_id(exc: ValidationError) -> InputError:
    error = exc.errors(include_url=False, include_input=False)[0]
    code = error["type"] if error["type"] in problems.CATALOGUE else "invalid_user_id"
    return refuse(code, f"cannot accept the user id: {error['msg']}")


def idempotency_key(request: Request) -> str:
    """The header that every start needs. Raises InputError idempotency_key_missing."""
    key = request.headers.get("idempotency-key", "")
    if not wire.IDEMPOTENCY_KEY.fullmatch(key):
        raise refuse(
            "idempotency_key_missing",
            "cannot start a verification: the Idempotency-Key header is missing or not 1-255 printable characters",
        )
    return key


def seconds(request: Request, name: str, limit_s: float) -> float:
    """A time of the query, in seconds; 0 where it is not given. Raises InputError invalid_request."""
    text = request.query_params.get(name, "0")
    value = float(text) if NUMBER.fullmatch(text) else -1.0
    if not 0 <= value <= limit_s:
        raise refuse("invalid_request", f"cannot use {name}={text!r}: must be 0-{limit_s:g} seconds")
    return value


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives. When the client hangs up first it is cancelled, and ClientDisconnect raised.

    The request's body must have been read, or not matter.
    """
    # not its path: that may name a user, and the loop's complaints name tasks
    working = asyncio.create_task(work, name=f"answer a {request.method}")
    gone = asyncio.create_task(hung_up(request.receive), name="wait for the client to hang up")
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def hung_up(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
