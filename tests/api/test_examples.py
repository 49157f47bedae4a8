"""The examples of docs/pos-integration.md are run as they stand there: every language, every scenario, one outcome."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from tests.project.tree import ROOT
from tests.simulator.conftest import simulator

PAGE = (ROOT / "docs/pos-integration.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Example:
    """One program of the page."""

    section: str
    file: str
    tool: str
    """What has to be on the machine to run it."""
    command: tuple[str, ...] = ()

    def code(self) -> str:
        section = PAGE.partition(f"\n### {self.section}\n")[2].partition("\n### ")[0]
        found = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert len(found) == 1, f"{self.section}: one program"
        return str(found[0])


EXAMPLES = {
    "curl": Example("curl", "pay.sh", "curl", ("bash",)),
    "python-client": Example("Python, with the client of this package", "pay.py", sys.executable),
    "python-plain": Example("Python, standard library only", "pay_plain.py", sys.executable),
    "node": Example("Node.js, no dependency", "pay.mjs", "node"),
    "java": Example(
        "Java, the JDK alone (16 or later)", "Pay.java", "java", ("java", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
    ),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a simulator."""
    session = {"search_timeout_s": 2.0, "verdict_timeout_s": 2.0}
    with simulator(tmp_path_factory.mktemp("stage"), speed=10, session=session) as socket:
        yield socket


SCENARIOS = {
    "verified": ("approved", 0),
    "not_verified": ("not approved: not_verified", 1),
    "rejected:too_dark": ("not approved: rejected", 1),
    "pending": ("not approved: pending", 1),
    "refused:busy": ("error: busy", 2),
    "refused:camera_unavailable": ("error: camera_unavailable", 2),
}
"""The user id, which tells the simulator the outcome; the last line; the exit code."""


def begin(example: Example, folder: Path, socket: Path, user: str, key: str) -> subprocess.Popen[str]:
    if shutil.which(example.tool) is None:
        pytest.skip(f"there is no {example.tool} on this machine")
    file = folder / example.file
    file.write_text(example.code(), encoding="utf-8")
    command = [*(example.command or (example.tool,)), str(file), str(socket), user, key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(program: subprocess.Popen[str]) -> tuple[list[str], int]:
    """What it prints, and how it ends."""
    out, err = program.communicate(timeout=60)
    assert err == ""
    return out.splitlines(), program.returncode


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("language", EXAMPLES)
def test_every_example_comes_to_the_same_outcome(language: str, scenario: str, stage: Path, tmp_path: Path) -> None:
    example = EXAMPLES[language]
    user, key = f"{scenario}@{language}", uuid.uuid4().hex
    lines, code = end(begin(example, tmp_path, stage, user, key))
    assert (lines[-1], code) == SCENARIOS[scenario]
    assert all(line.startswith("hint: ") for line in lines[:-1])
    if scenario == "verified":
        assert "hint: Please come closer." in lines
        again, code = end(begin(example, tmp_path, stage, user, key))
        assert (again[-1], code) == ("approved", 0)
        with AgentClient(stage) as client:
            assert len(client.matches(user).items) == 1


def test_every_example_says_so_when_nobody_answers(tmp_path: Path) -> None:
    here = [example for example in EXAMPLES.values() if shutil.which(example.tool)]
    programs = [begin(example, tmp_path, tmp_path / "none.sock", "alice", "k") for example in here]
    ends = [end(program) for program in programs]
    assert {code for _, code in ends} == {2}
    assert {lines[-1] for lines, _ in ends} <= {"error: unreachable", "error: agent_unreachable"}


def test_every_program_of_the_page_is_one_of_these() -> None:
    sections = PAGE.partition("\n## Examples\n")[2]
    assert re.findall(r"^### (.+)$", sections, re.MULTILINE) == [example.section for example in EXAMPLES.values()]
    assert sections.count("```") == 2 * len(EXAMPLES)


def test_the_page_names_only_what_the_client_has() -> None:
    called = set(re.findall(r"\bagent\.(\w+)\(", EXAMPLES["python-client"].code()))
    assert called
    assert all(callable(getattr(AgentClient, name)) for name in called)
