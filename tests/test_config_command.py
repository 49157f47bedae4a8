"""``edge-agent config``: what the operator sees of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from edge_agent.cli.config import config
from edge_agent.config import Config, InvalidConfiguration, parse
from tests.project.tree import ROOT
from tests.test_config import GOOD

FILE = "terminal_id: till-7\n" + GOOD + "outbox: {key: {file: /k}, max_age_s: 60}\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(config, list(map(str, arguments)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    return path


def test_a_good_file_is_fine(file: Path) -> None:
    assert run("check", "--config", file).output == run("check", file).output == f"{file}: fine\n"


def test_a_pack_that_there_is_not_is_a_problem_of_its_line(file: Path) -> None:
    file.write_text(f"{FILE}models:\n  pack: opne\n")
    result = run("check", file)
    assert isinstance(result.exception, InvalidConfiguration)
    (problem,) = result.exception.problems
    line = FILE.count("\n") + 2
    assert (problem.line, problem.key, result.exception.exit_code) == (line, "models.pack", 2)
    assert "opne" in problem.message


@pytest.mark.parametrize("given", ["", ", face_threshold: {cosine: 0.6, embedder_sha256: '%s', impostor_pairs: 40000, "
                                   "fmr_upper_95: 0.0001}" % ("0" * 64)])  # fmt: skip
def test_a_policy_that_would_refuse_to_start_is_a_problem_of_its_line(file: Path, given: str) -> None:
    file.write_text(f"{FILE}offline:\n  policy: provisional\n  max_amounts: {{EUR: 50}}\n")
    if given:
        file.write_text(f"{FILE}offline: {{policy: provisional, max_amounts: {{EUR: 50}}{given}}}\n")
    found = run("check", "--config", file, "--json")
    (problem,) = json.loads(found.output)["problems"]
    assert (found.exit_code, problem["key"]) == (2, "offline.policy")
    assert problem["line"] == (9 if given else 10)
    assert "no face threshold that counts" in problem["message"]


def test_what_is_shown_can_be_used_as_a_file(file: Path) -> None:
    assert parse(run("show", "--config", file).output) == parse(FILE)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("terminal_id: till-7", "# line 1"),
        ("max_age_s: 60.0", "# line 8"),
        ("key: {file: /k}", "# line 8"),
        ("api_key: {env: CYPHERFACE_KEY}", "# line 6"),
        ("policy: queue", "# default"),
    ],
)
def test_every_value_says_where_it_is_from(file: Path, key: str, line: str) -> None:
    shown = run("show", "--config", file).output.splitlines()
    assert any(row.strip().startswith(key) and row.endswith(line) for row in shown), shown


def test_origins_are_to_be_had_as_json(file: Path) -> None:
    shown = json.loads(run("show", "--config", file, "--json").output)
    assert shown["terminal_id"] == {"value": "till-7", "line": 1}
    assert shown["cypherface.api_key"] == {"value": {"env": "CYPHERFACE_KEY"}, "line": 6}
    assert shown["gate.max_yaw_deg"] == {"value": 20.0, "line": None}


def test_a_secret_is_shown_as_its_reference_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYPHERFACE_KEY", "5a9db0c0-ffee-4000")
    assert "5a9db0c0-ffee" not in run("show", "--config", file).output


def test_problems_are_to_be_had_as_json(file: Path) -> None:
    file.write_text("sesion: {}\n" + FILE)
    result = run("check", "--config", file, "--json")
    found = json.loads(result.output)
    assert (result.exit_code, found["ok"]) == (2, False)
    assert found["problems"] == [
        {"line": 1, "column": 1, "key": "sesion", "message": "unknown key", "hint": "did you mean session?"}
    ]


def test_problems_are_an_error_with_every_line(file: Path) -> None:
    file.write_text("sesion: {}\n" + FILE)
    result = run("check", "--config", file)
    assert isinstance(result.exception, InvalidConfiguration)
    assert "line 1, column 1: sesion: unknown key (did you mean session?)" in result.exception.message


def test_the_schema_describes_every_key_of_the_example() -> None:
    schema = json.loads(run("schema").output)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == set(Config.model_fields)
    example = yaml.safe_load((ROOT / "docs/config.example.yaml").read_text())
    assert _unknown(schema, schema, example) == []


def _unknown(schema: dict[str, Any], part: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Keys of ``value`` that the schema has no description of."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if not isinstance(value, dict):
        return []
    known = part.get("properties", {})
    found = [f"{path}{key}" for key in value if key not in known]
    for key, inner in value.items():
        if key in known:
            found += _unknown(schema, known[key], inner, f"{path}{key}.")
    return found
