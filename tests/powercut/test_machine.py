"""What goes into the machine, how its program is called, and that the plug and Ctrl-C end all of it."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.errors import EnvironmentFault
from tests.powercut.__main__ import main, parse
from tests.powercut.machine import LIBRARIES, LOCK, Machine, locked
from tests.powercut.run import TimedPlug, Wait, packets

# Stands in for the program that boots: notes its arguments, leaves a child behind, ends as it is told.
PROGRAM = """#!/bin/sh
for word in "$@"; do echo "$word" >>"$TMPDIR/called"; done
trap 'echo asked >"$TMPDIR/asked"; exit 3' TERM
sleep 60 &
echo "$!" >"$TMPDIR/child.part" && mv "$TMPDIR/child.part" "$TMPDIR/child"
case "$*" in *linger*) wait ;; *fail*) echo 'no such disk'; kill $!; exit 7 ;; *) kill $! ;; esac
"""
LIMIT_S = 20.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    program = tmp_path / "vm"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    return Machine(program, tmp_path)


class AtTheChild:
    """A plug that is due as soon as the program has started its child."""

    def __init__(self, machine: Machine, error: type[BaseException] | None = None) -> None:
        self._child = machine.folder / "tmp/child"
        self._error = error

    def is_due(self) -> bool:
        if self._child.exists() and self._error:
            raise self._error
        return self._child.exists()


def wait_for_end_of_child(machine: Machine) -> None:
    """Ended; a zombie that nobody waits for has ended too."""
    stat = Path("/proc", (machine.folder / "tmp/child").read_text().strip(), "stat")
    give_up_s = time.monotonic() + LIMIT_S
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < give_up_s, "the child lives on"
        time.sleep(0.01)


def test_the_program_is_called_with_the_folders_the_disk_and_the_command(machine: Machine) -> None:
    machine.live(["1", "-", "two words"], limit_s=60)
    folder = machine.folder
    assert (folder / "tmp/called").read_text().splitlines() == [
        *("--share", f"{folder}/share", "--out", f"{folder}/out", "--disk", f"{folder}/disk.qcow2"),
        *("--timeout", "300", "sh /mnt/share/life.sh '1' '-' 'two words'"),
    ]


def test_a_lossy_network_is_set_up_first_and_counted_at_the_end(machine: Machine) -> None:
    machine.live(["1"], limit_s=60, network="loss 30%")
    command = (machine.folder / "tmp/called").read_text().splitlines()[-1]
    assert command.split(" && ") == [
        "modprobe sch_netem",
        "tc qdisc add dev lo root netem loss 30%",
        "sh /mnt/share/life.sh '1'",
        "tc -s qdisc show dev lo",
    ]
    told = "qdisc netem 8001: root\n Sent 4821 bytes 61 pkt (dropped 25, overlimits 0 requeues 0)\n"
    assert packets(told) == (61, 25)
    assert packets("") == (0, 0)


def test_a_pulled_plug_ends_everything_without_a_chance_to_clean_up(machine: Machine) -> None:
    machine.run("linger", limit_s=60, plug=AtTheChild(machine))
    wait_for_end_of_child(machine)
    assert not (machine.folder / "tmp/asked").exists()


def test_ctrl_c_lets_the_program_clean_up_and_leaves_nothing_running(machine: Machine) -> None:
    with pytest.raises(KeyboardInterrupt):
        machine.run("linger", limit_s=60, plug=AtTheChild(machine, KeyboardInterrupt))
    wait_for_end_of_child(machine)
    assert (machine.folder / "tmp/asked").exists()


def test_a_program_that_fails_is_an_error_with_what_it_printed(machine: Machine) -> None:
    with pytest.raises(EnvironmentFault, match=r"ended with 7:\nno such disk"):
        machine.run("fail", limit_s=60)


def test_a_program_that_ends_before_its_plug_is_pulled_is_an_error(machine: Machine) -> None:
    class Never:
        def is_due(self) -> bool:
            return False

    with pytest.raises(EnvironmentFault, match="ended with 0"):
        machine.run("power off", limit_s=60, plug=Never())


@dataclass
class Watched:
    """A file of told events, a clock, and a plug that watches the one by the other."""

    told: Path
    now_s: float = 100.0

    def plug(self, *waits: Wait) -> TimedPlug:
        return TimedPlug(self.told, waits, random.Random(1))

    def tell(self, *events: str, rest: str = "") -> None:
        with self.told.open("a") as file:
            file.write("".join(f'{{"event": "{event}"}}\n' for event in events) + rest)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched(tmp_path / "told")
    monkeypatch.setattr(time, "monotonic", lambda: found.now_s)
    return found


def test_the_plug_is_due_some_time_after_the_event_was_told(watched: Watched) -> None:
    plug = watched.plug(Wait("put", 2.5, 2.5))
    assert not plug.is_due()
    watched.tell("started", rest='{"event": "put"')
    assert not plug.is_due()
    watched.tell(rest="}\n")
    assert not plug.is_due()
    watched.now_s += 2.4
    assert not plug.is_due()
    watched.now_s += 0.2
    assert plug.is_due()


def test_a_second_wait_is_for_what_is_told_after_the_first(watched: Watched) -> None:
    plug = watched.plug(Wait("ack", 1.0, 1.0), Wait("creating", 0.5, 0.5))
    watched.tell("creating", "ack", "creating", "ack")
    assert not plug.is_due()
    watched.now_s += 1.0
    assert not plug.is_due()
    watched.now_s += 100
    assert not plug.is_due()
    watched.tell("creating")
    assert not plug.is_due()
    watched.now_s += 0.5
    assert plug.is_due()


def test_the_time_of_a_wait_is_drawn_at_random_between_its_ends(tmp_path: Path) -> None:
    drawn = {str(TimedPlug(tmp_path / "told", [Wait("put", 1.0, 2.0)], random.Random(seed))) for seed in range(20)}
    assert len(drawn) > 10
    assert all(text.startswith("1.") for text in drawn)


@pytest.mark.parametrize("event", ["error", "drained"])
def test_the_plug_is_pulled_when_nothing_more_will_come(watched: Watched, event: str) -> None:
    watched.tell("started", event)
    plug = watched.plug(Wait("put", 0.0, 0.0), Wait("match", 0.0, 0.0))
    assert [plug.is_due(), plug.is_due()] == [False, True]


def test_every_library_comes_out_of_the_lock_with_its_hashes_and_for_the_machines_python() -> None:
    entries = locked(LOCK.read_text(), LIBRARIES).splitlines()
    names = [entry.partition("==")[0] for entry in entries if "==" in entry]
    assert names == LIBRARIES
    assert not any(";" in entry for entry in entries)
    assert sum("--hash=sha256:" in entry for entry in entries) >= len(LIBRARIES)


def test_a_library_that_is_not_locked_is_named() -> None:
    with pytest.raises(EnvironmentFault, match="leftpad"):
        locked(LOCK.read_text(), ["httpx", "leftpad"])


def test_the_machine_is_an_argument_or_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POWERCUT_VM", raising=False)
    options = parse(["./vm", "--cuts", "7", "--synchronous", "OFF", "--json"])
    assert (options.vm, options.cuts, options.synchronous, options.json) == (Path("vm"), 7, "OFF", True)
    assert (parse(["vm"]).cuts, parse(["vm"]).synchronous, parse(["vm"]).netem) == (20, "FULL", None)
    with pytest.raises(SystemExit, match="2"):
        parse([])
    monkeypatch.setenv("POWERCUT_VM", "/opt/vm")
    assert parse(["--netem", "30"]).vm == Path("/opt/vm")


def test_a_machine_that_is_not_there_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([os.fspath(tmp_path / "vm")]) == 3
    assert "no such program" in capsys.readouterr().err


def test_the_help_says_what_is_not_covered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    assert "torn sectors" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_is_stopped_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Machine) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Machine, "install", interrupted)
    assert main([os.fspath(machine.program)]) == 130
