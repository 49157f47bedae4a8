"""The examples of docs/pos-integration.md are run as they stand there: every language, every scenario, one outcome."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from edge_agent.client import AgentClient
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import Frame, Measurement
from tests.api.calls import SOURCE
from tests.faces import measurement
from tests.project.tree import ROOT
from tests.terminal import Terminal, terminal

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


class Stage(Protocol):
    """What plays the scenarios: a terminal with a sandbox, or the simulator."""

    socket: Path

    def plays(self, scenario: str) -> AbstractContextManager[str]:
        """While it is open the scenario is what happens to the user it gives."""
        ...

    def judged(self) -> int:
        """How many pictures CypherFace was asked about."""
        ...


class TerminalStage:
    """The real agent, with made-up eyes."""

    def __init__(self, running: Terminal, sandbox: SandboxServer) -> None:
        self.socket = running.socket
        self._terminal = running
        self._sandbox = sandbox

    def judged(self) -> int:
        return len(self._sandbox.judged)

    @contextmanager
    def plays(self, scenario: str) -> Iterator[str]:
        user = f"{'no-' if scenario == 'not_verified' else ''}{scenario}-{uuid.uuid4().hex[:8]}"
        self._sandbox.enrol(user, SOURCE)
        prepare: Callable[[], AbstractContextManager[None]] = getattr(self, f"_{scenario}", contextlib.nullcontext)
        with prepare():
            yield user

    @contextmanager
    def _sees(self, measure: Callable[[Frame], Measurement]) -> Iterator[None]:
        eyes = self._terminal.eyes
        usual, eyes.measure = eyes.measure, measure  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            eyes.measure = usual  # type: ignore[method-assign]

    @contextmanager
    def _session(self, **change: float) -> Iterator[None]:
        """Short where the time has to run out; long elsewhere, for a busy machine must bring nothing about."""
        agent = self._terminal.agent
        usual = agent.config
        agent._parts.config = usual.model_copy(update={"session": usual.session.model_copy(update=change)})
        try:
            yield
        finally:
            agent._parts.config = usual

    def _verified(self) -> AbstractContextManager[None]:
        """Too far away until the events have been read for a while: there is a hint to be shown."""
        read_at: list[int] = []

        def approaching(frame: Frame) -> Measurement:
            if self._terminal.agent.bus._readers:
                read_at.append(frame.index)
            near = bool(read_at) and frame.index - read_at[0] > 20
            return replace(measurement() if near else measurement(inter_eye_px=20.0), digest=b"%d" % frame.index)

        return self._sees(approaching)

    @contextmanager
    def _rejected(self) -> Iterator[None]:
        dark = self._sees(lambda frame: replace(measurement(luminance=0.05), digest=b"%d" % frame.index))
        with dark, self._session(search_timeout_s=1.0):
            yield

    @contextmanager
    def _pending(self) -> Iterator[None]:
        self._sandbox.inject(Fault(step="match", kind="status", status=503, times=None))
        try:
            with self._session(verdict_timeout_s=1.0):
                yield
        finally:
            self._sandbox.clear_faults()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        nobody = self._sees(lambda frame: replace(measurement(()), digest=b"%d" % frame.index))
        with nobody, self._terminal.client() as client:
            other = client.verify("another", search_timeout_s=60.0)
            try:
                yield
            finally:
                client.cancel(other.id)

    @contextmanager
    def _error(self) -> Iterator[None]:
        self._terminal.camera.cannot_open = True
        try:
            yield
        finally:
            self._terminal.camera.cannot_open = False


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Where the scenarios are played. The one place to change for another stage."""
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(SandboxServer())
        changes = {"session": {"search_timeout_s": 20.0, "verdict_timeout_s": 20.0, "max_failures": 0}}
        running = stack.enter_context(terminal(tmp_path_factory.mktemp("stage"), sandbox, **changes))
        yield TerminalStage(running, sandbox)


SCENARIOS = {
    "verified": ("approved", 0),
    "not_verified": ("not approved: not_verified", 1),
    "rejected": ("not approved: rejected", 1),
    "pending": ("not approved: pending", 1),
    "busy": ("error: busy", 2),
    "error": ("error: camera_unavailable", 2),
}


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
def test_every_example_comes_to_the_same_outcome(language: str, scenario: str, stage: Stage, tmp_path: Path) -> None:
    example = EXAMPLES[language]
    with stage.plays(scenario) as user:
        lines, code = end(begin(example, tmp_path, stage.socket, user, key := uuid.uuid4().hex))
        assert (lines[-1], code) == SCENARIOS[scenario]
        assert all(line.startswith("hint: ") for line in lines[:-1])
        if scenario == "verified":
            assert "hint: Please come closer." in lines
            judged = stage.judged()
            again, code = end(begin(example, tmp_path, stage.socket, user, key))
            assert (again[-1], code) == ("approved", 0)
            assert stage.judged() == judged


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
