"""systemd's word on the clock: how often it is asked for, what counts as an answer, and that the agent hears it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from edge_agent import timeservice
from edge_agent.outbox import clock
from edge_agent.sandbox.server import SandboxServer
from edge_agent.timeservice import TimeService, ask_systemd
from tests.terminal import terminal


class Enough(Exception):
    """The script has no more answers."""


def watched(answers: list[str | Exception]) -> list[tuple[bool | None, float]]:
    """What was told after each answer, and the pause that followed."""
    script, seen = iter(answers), []

    async def ask() -> str:
        answer = next(script, Enough())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(pause_s: float) -> None:
        seen.append((service.told(), pause_s))

    service = TimeService(ask, sleep)
    assert service.told() is None
    with pytest.raises(Enough):
        asyncio.run(service.watch())
    return seen


WATCHED: list[tuple[list[str | Exception], list[tuple[bool | None, float]]]] = [
    (["b true"] * 2, [(True, 3600), (True, 3600)]),
    (["b false"] * 6, [(False, s) for s in (60, 120, 240, 480, 960, 960)]),
    (["b false", "b false", "b true", "b false"], [(False, 60), (False, 120), (True, 3600), (False, 60)]),
    (["b true", TimeoutError(), "b true"], [(True, 3600), (None, 60), (True, 3600)]),
    ([FileNotFoundError(2, "No such file or directory")], [(None, 60)]),
    (["Failed to connect to bus: Connection refused", ""], [(None, 60), (None, 120)]),
]


@pytest.mark.parametrize(("answers", "seen"), WATCHED)
def test_a_no_is_asked_again_soon_and_a_yes_seldom(
    answers: list[str | Exception], seen: list[tuple[bool | None, float]]
) -> None:
    assert watched(answers) == seen


def test_what_systemd_does_not_tell_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watched([TimeoutError(), TimeoutError(), "Access denied", "b true", "Access denied"])
    said = [record.getMessage().split(": ")[1] for record in caplog.records]
    assert said == ["no answer within 60 s", "Access denied", "Access denied"]


def busctl(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name, and nothing else, in PATH."""
    program = folder / "busctl"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_busctl_is_asked_for_the_property_without_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busctl(tmp_path, 'echo "$* ${NOTIFY_SOCKET:-none}"', monkeypatch)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    name = "org.freedesktop.timedate1"
    expected = f"get-property {name} /org/freedesktop/timedate1 {name} NTPSynchronized none"
    assert asyncio.run(ask_systemd()) == expected


def test_a_busctl_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busctl(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 60", monkeypatch)
    monkeypatch.setattr(timeservice, "ASK_S", 0.3)
    with pytest.raises(TimeoutError):
        asyncio.run(ask_systemd())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("answer", [True, False])
def test_where_the_kernel_may_not_be_asked_a_record_holds_what_systemd_said(
    answer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "synchronized"
    if not answer:
        flag.touch()  # it says the opposite, and counts only until there is an answer
    monkeypatch.setattr(clock, "TIMESYNC_FLAG", flag)
    monkeypatch.setattr(clock, "_adjtimex", lambda: None)
    busctl(tmp_path, f"echo b {str(answer).lower()}", monkeypatch)
    with SandboxServer() as sandbox, terminal(tmp_path, sandbox) as t, t.client() as client:
        for _ in range(500):
            if t.agent.clock.synchronised() is answer:
                break
            time.sleep(0.01)
        assert client.verify("alice", wait_s=10).clock_synchronised is answer
