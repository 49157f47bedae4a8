"""No error reaches a caller as something that is not documented."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import errors
from edge_agent.api import problems
from edge_agent.api.operation import ANYWHERE
from edge_agent.api.operations import OPERATIONS
from edge_agent.enrolment import PictureRefused
from edge_agent.errors import AgentError
from edge_agent.outbox.records import LeaseLost, StateConflict
from tests.project.tree import ROOT

PACKAGE = ROOT / "edge_agent"
ELSEWHERE = {
    "bench",
    "bundle",
    "cli",
    "demo",
    "doctor",
    "evaluate",
    "sandbox",
    "simulator",
    "client.py",
    "daemon.py",
    "__main__.py",
}
"""What no request ever runs through: commands, stand-ins of the service, and the process around the API."""
NO_ANSWER = {
    "lease_lost": "the forwarder's own: the result is thrown away",
    "picture_unreadable": "of a file by its path; a camera that replays files translates it (camera/stills.py)",
    "no_embedder": "asked for by the sandbox and the evaluation only",
}
CLASSES: dict[str, type[AgentError]] = {
    **{name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AgentError)},
    "StateConflict": StateConflict,
    "LeaseLost": LeaseLost,
    "PictureRefused": PictureRefused,
}


def files() -> Iterator[Path]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] not in ELSEWHERE:
            yield file


def strings(node: ast.AST) -> Iterator[str]:
    """Every value that an expression can have, where these are written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from strings(node.body)
        yield from strings(node.orelse)


def raised(file: Path) -> Iterator[tuple[str, str, int]]:
    """(class, code, line) of the errors that a file makes with a code of its own."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES:
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from ((node.func.id, code, node.lineno) for code in strings(keyword.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refuse":
            yield from (("InputError", code, node.lineno) for code in strings(node.args[0]))
        elif isinstance(node, ast.ClassDef) and node.name in CLASSES:
            yield node.name, CLASSES[node.name].code, node.lineno


MADE = sorted({(kind, code, f"{file.relative_to(ROOT)}:{n}") for file in files() for kind, code, n in raised(file)})


def bare(kind: type[AgentError], code: str) -> AgentError:
    """An error of this class and code, whatever else its constructor wants."""
    error = kind.__new__(kind)
    AgentError.__init__(error, "cannot do it", code=code)
    return error


def test_the_search_finds_the_errors_of_the_code() -> None:
    assert {("SessionRefused", "busy"), ("StorageError", "schema_unknown"), ("ConfigurationError", "secret_missing"),
            ("InputError", "idempotency_key_missing"), ("StateConflict", "state_conflict"), ("Transient", "tls"),
            } <= {(kind, code) for kind, code, _ in MADE}  # fmt: skip
    assert len(MADE) > 80


@pytest.mark.parametrize(("kind", "code", "where"), MADE, ids=[f"{code}-{where}" for _, code, where in MADE])
def test_every_error_that_a_request_can_meet_is_a_documented_problem(kind: str, code: str, where: str) -> None:
    found = problems.of_error(bare(CLASSES[kind], code))
    assert found.code != "internal_error" or code in {*NO_ANSWER, "internal_error"}, where


def test_what_is_said_never_to_be_an_answer_is_still_in_the_code() -> None:
    assert NO_ANSWER.keys() <= {code for _, code, _ in MADE}


@pytest.mark.parametrize(
    ("kind", "code", "problem"),
    [
        ("StorageError", "schema_unknown", "storage_failed"),
        ("StorageError", "migration_failed", "storage_failed"),
        ("StorageError", "tampered", "storage_failed"),
        ("StorageError", "storage_full", "storage_full"),
        ("ModelError", "inference_failed", "models_missing"),
        ("CameraError", "camera_format", "camera_unavailable"),
        ("CameraError", "frame_loop", "camera_unavailable"),
        ("ConfigurationError", "secret_missing", "key_unavailable"),
        ("ConfigurationError", "invalid_configuration", "environment"),
        ("Transient", "timeout", "offline"),
        ("CaptureRefused", "unknown_user", "service_refused"),
        ("Unauthenticated", "unauthenticated", "service_refused"),
    ],
)
def test_a_finer_code_is_the_problem_that_a_caller_can_act_on(kind: str, code: str, problem: str) -> None:
    assert problems.of_error(bare(CLASSES[kind], code)).code == problem


def test_every_problem_is_one_that_some_call_answers() -> None:
    answered = set(ANYWHERE).union(*(operation.problems for operation in OPERATIONS.values()))
    assert answered == problems.CATALOGUE.keys() - {"method_not_allowed"}


def test_every_alias_leads_to_a_documented_problem() -> None:
    assert set(problems.ALIASES.values()) | {code for _, code in problems.OF_CLASS} <= problems.CATALOGUE.keys()
    assert not problems.ALIASES.keys() & problems.CATALOGUE.keys()
