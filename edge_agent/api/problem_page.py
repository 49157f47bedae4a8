"""The problem catalogue as a page: docs/problems.md, for whoever has to handle an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge_agent.api.operation import ANYWHERE, Operation
from edge_agent.api.problems import ALIASES, CATALOGUE, OF_CLASS, Problem

HEAD = """\
# Problems of the terminal API

Made by `scripts/api-docs` from `edge_agent/api/problems.py` and `edge_agent/api/operations.py`.

Every error is `application/problem+json` (RFC 9457). `code` is stable: act on it, and on `retryable`, which says that
the very same request (with the same `Idempotency-Key`) can succeed later. `detail` says what could not be done, `hint`
what to try; both are English, for people, and may change. Further members: `retry_after_s` with `locked_out` (and the
header `Retry-After`), `reasons` with `picture_refused`, `problems` with `configuration_refused`, `server_message` with
`service_refused`.
"""
MOST = 9
"""More calls than these are not named: openapi.json has them."""
TABLE = """
| code | status | again? | meaning | what to do | answered by |
|---|---|---|---|---|---|
"""


def page(operations: Mapping[tuple[str, str], Operation]) -> str:
    """The page, in Markdown."""
    rows = "".join(_row(problem, operations.values()) for problem in CATALOGUE.values())
    return HEAD + TABLE + rows + _FINER_HEAD + _aliases() + _classes()


def _row(problem: Problem, operations: Iterable[Operation]) -> str:
    again = "yes" if problem.retryable else "no"
    by = _answered_by(problem.code, operations)
    return f"| `{problem.code}` | {problem.status} | {again} | {problem.title} | {problem.hint} | {by} |\n"


def _answered_by(code: str, operations: Iterable[Operation]) -> str:
    if code in ANYWHERE:
        return "any call"
    ids = [operation.id for operation in operations if code in operation.problems]
    if not ids:
        return "paths and methods that are not in the table"
    return ", ".join(f"`{id_}`" for id_ in ids) if len(ids) <= MOST else "most calls"


_FINER_HEAD = """
## Finer codes
The log, `edge-agent doctor` and `/v1/status` tell faults apart that are one problem to a caller; `detail` says which it is.

| finer code | problem |
|---|---|
"""


def _aliases() -> str:
    return "".join(f"| `{finer}` | `{code}` |\n" for finer, code in ALIASES.items())


def _classes() -> str:
    rows = "".join(f"| any other `{kind.__name__}` | `{code}` |\n" for kind, code in OF_CLASS)
    return rows + (
        "\nSo `schema_unknown` (the outbox was written by a newer agent) and `migration_failed` are `storage_failed`, and\n"
        "`provider_unavailable` or `inference_failed` are `models_missing`.\n"
    )
