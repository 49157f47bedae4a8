"""The documents name the checks that there are, and the command keeps to them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from edge_agent.challenge.pace import MIN_FPS
from edge_agent.cli import main
from edge_agent.cli.doctor import lines
from edge_agent.config import LivenessSection, load
from edge_agent.doctor.catalogue import CHECKS
from edge_agent.doctor.examination import PARTS, Report, to_json
from edge_agent.doctor.finding import Finding, Status, passed, unknown
from edge_agent.doctor.models import speed_limits
from tests.doctor.patient import API_KEY, Patient
from tests.project.tree import ROOT

PAGE = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
TOPICS = {id_.partition(".")[0] for id_ in CHECKS}
ID = re.compile(rf"`((?:{'|'.join(TOPICS)})\.[a-z_]+)`")
SETTINGS = {"camera.fps", "camera.size"}
"""Keys of the configuration that look like ids."""


def test_the_page_has_a_line_for_every_check_in_their_order() -> None:
    assert re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE, re.MULTILINE) == list(CHECKS)


def test_the_page_names_every_key_of_the_json() -> None:
    body = to_json((passed("camera.open", "fine"),))
    keys = {*body, *(f"checks[].{key}" for key in body["checks"][0])}
    assert [key for key in keys if f"`{key}`" not in PAGE] == []


def test_the_runbook_names_checks_that_there_are_and_has_twenty_problems_at_least() -> None:
    assert set(ID.findall(RUNBOOK)) - SETTINGS <= set(CHECKS)
    rows = [line for line in RUNBOOK.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) >= 20
    assert [row for row in rows if not set(ID.findall(row.split(" | ")[2])) & set(CHECKS)] == []


def test_every_check_is_made_by_exactly_one_part() -> None:
    assert sorted(id_ for part in PARTS for id_ in part.ids) == sorted(CHECKS)


def test_the_table_fits_a_terminal_and_keeps_commands_whole() -> None:
    long = "sudo edge-agent models fetch open --dir /var/lib/edge-agent/models/of/a/rather/long/name/that/must/stay/one"
    found = (
        passed("camera.open", "camera \x1b[2J/dev/video0"),
        unknown(
            "camera.frozen", "the camera cannot be opened, and so on, for more than one line of eighty columns here"
        ),
        Finding("models.files", Status.FAIL, "missing", mend=long),
    )
    told = list(lines(Report(found)))
    assert told[0] == "camera"
    assert told[-1] == "1 pass, 0 warn, 1 fail, 1 unknown"
    assert [line for line in told if len(line) > 80 and "/var/lib" not in line] == []
    assert any(line.endswith("/var/lib/edge-agent/models/of/a/rather/long/name/that/must/stay/one") for line in told)
    assert "\x1b" not in "".join(told)


def doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["edge-agent", "doctor", *map(str, arguments)])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nonexistent")
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_command_ends_with_1_when_a_check_failed_and_0_when_none_did(
    patient: Patient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.secret("api.key", API_KEY, 0o644)
    config = patient.config_file()
    code, out, _ = doctor(capsys, monkeypatch, "--config", config, "--only", "credentials", "--json")
    told = {check["id"]: check["status"] for check in json.loads(out)["checks"]}
    assert (code, told) == (1, {"credentials.device_key": "pass", "credentials.api_key": "fail"})
    code, out, _ = doctor(capsys, monkeypatch, "--config", config, "--only", "agent.state", "--only", "config")
    assert code == 0
    assert "config.file" in out


def test_a_check_that_there_is_not_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = doctor(capsys, monkeypatch, "--config", tmp_path / "none.yaml", "--only", "camera.frosen")
    assert (code, out) == (2, "")
    assert "did you mean camera.frozen?" in err


def test_a_frame_may_take_less_where_a_challenge_is_asked_for() -> None:
    config = load(ROOT / "docs/config.example.yaml")
    turning = config.model_copy(update={"liveness": LivenessSection(challenge="head_turn")})
    assert (speed_limits(config).warn, speed_limits(turning).warn) == (400.0, 140.0)
    assert pytest.approx(speed_limits(turning).warn, abs=5.0) == 1000.0 / MIN_FPS
