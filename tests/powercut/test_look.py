"""Looking at what a cut left, with a real state directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.outbox.database import SCHEMA_VERSION
from tests.faults import worker
from tests.faults.ledger import Act
from tests.faults.oracle import Kind
from tests.powercut.look import Left, Told, finished, look, whole_lines
from tests.powercut.old import OLD_VERSION, pack_old, version
from tests.powercut.phases import Line, Phase, under_way
from tests.powercut.run import BASE_URL

ROOT = Path(__file__).resolve().parents[2]
BACKLOG = ("--do", "enqueue", "--live-share", "0", "--sizes", "500", "1000")


def enqueue(state_dir: Path, captures: int, seed: str = "1") -> list[Line]:
    told = state_dir.with_name(f"told-{seed}")
    with told.open("wb", buffering=0) as file:
        arguments = [str(state_dir), BASE_URL, *BACKLOG, "--captures", str(captures), "--seed", seed]
        assert worker.main(arguments, file.fileno()) == 0
    return whole_lines(told)


def test_what_was_told_and_is_there_is_good(tmp_path: Path) -> None:
    told = Told()
    told.absorb(enqueue(tmp_path / "state", 5), ())
    assert look(tmp_path / "state", told, unanswered=0) == []
    assert Left.of(tmp_path / "state").open == 5


def test_captures_that_were_acknowledged_and_are_gone_are_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    told = Told()
    told.absorb(enqueue(state, 3), ())
    shutil.copytree(state, tmp_path / "before")
    told.absorb(enqueue(state, 4, seed="2"), ())
    lost = [f for f in look(tmp_path / "before", told, unanswered=0) if f.kind is Kind.LOST]
    assert len(lost) == 4


def test_an_empty_or_a_spoilt_folder_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    told = Told()
    told.absorb(enqueue(tmp_path / "state", 3), ())
    (tmp_path / "empty").mkdir()
    assert len([f for f in look(tmp_path / "empty", told, unanswered=0) if f.kind is Kind.LOST]) == 3
    assert Left.of(tmp_path / "empty").open == 0
    (tmp_path / "state/outbox.db").write_bytes(b"garbage" * 1000)
    assert {f.kind for f in look(tmp_path / "state", told, unanswered=0)} & {Kind.STORE, Kind.AUDIT}


def test_acknowledgements_that_did_not_leave_the_machine_are_noticed(tmp_path: Path) -> None:
    lines = enqueue(tmp_path / "state", 3)
    told = Told()
    told.absorb([line for line in lines if line["event"] != "ack"], ())
    assert [f.subject for f in look(tmp_path / "state", told, unanswered=2)] == ["acknowledgements"]
    assert look(tmp_path / "state", told, unanswered=3) == []


def test_a_comparison_that_the_cut_ended_is_left_out_and_no_other() -> None:
    told = [Act("match", "u"), Act("judged", "u", sha256="1"), Act("match", "w"), Act("refused", "w")]
    assert finished([*told, Act("match", "v"), Act("put", "w"), Act("match", "u")]) == [*told, Act("put", "w")]


def test_a_line_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "told").write_text('{"event": "started"}\n{"event": "a')
    assert whole_lines(tmp_path / "told") == [{"event": "started"}]
    assert whole_lines(tmp_path / "nothing") == []


def unpack_old(tmp_path: Path, base_url: str) -> tuple[Path, Told]:
    """A state directory of the version before, and what was told about it."""
    told = Told()
    told.absorb(pack_old(tmp_path / "old.tar", base_url, captures=6, users=2), ())
    shutil.unpack_archive(tmp_path / "old.tar", tmp_path / "old", filter="data")
    return tmp_path / "old", told


def test_the_captures_of_the_version_before_are_there_after_the_migration(tmp_path: Path) -> None:
    state_dir, told = unpack_old(tmp_path, BASE_URL)
    assert version(state_dir) == OLD_VERSION
    assert look(state_dir, told, unanswered=0) == []
    assert version(state_dir) == OLD_VERSION  # the oracle works on a copy
    told.absorb(enqueue(state_dir, 1), ())
    assert version(state_dir) == SCHEMA_VERSION
    assert look(state_dir, told, unanswered=0) == []
    assert len(told.ledger.acknowledged) == 7


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def guest(folder: Path, *arguments: str) -> list[Line]:
    """One life as in the machine, to its end."""
    command = [sys.executable, "-m", "tests.powercut.guest", str(folder / "told"), str(folder / "service")]
    environment = {**os.environ, "POWERCUT_BEGAN": "0"}
    subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    return whole_lines(folder / "told")


def test_the_guest_tells_of_a_migration_and_of_what_the_service_did(tmp_path: Path, port: int) -> None:
    base_url = f"http://127.0.0.1:{port}/"
    state_dir, told = unpack_old(tmp_path, base_url)
    own = ("--port", str(port), "--users", "2", "--latency", "match=0.01")
    lines = guest(tmp_path, *own, "--", str(state_dir), base_url, "--do", "forward")
    steps = ["migrating", "applied"] * (SCHEMA_VERSION - OLD_VERSION)
    assert [line["event"] for line in lines[: len(steps) + 2]] == [*steps, "migrated", "started"]
    assert under_way(lines[:2]) == {Phase.MIGRATION}
    assert all(line["at_s"] > 0 for line in lines)
    acts = whole_lines(tmp_path / "service")
    assert [act for act in acts if "token" in act]
    told.absorb(lines, acts)
    assert len(told.service.judged) == 6
    assert look(state_dir, told, unanswered=0, drained=True) == []


PROBE = """
import sys
from pathlib import Path
from edge_agent.outbox.database import Database
from tests.powercut import guest
if sys.argv[2] == "OFF":
    guest.stop_syncing()
print(Database(Path(sys.argv[1])).execute("PRAGMA synchronous").fetchone()[0])
"""


@pytest.mark.parametrize(("word", "value"), [("OFF", "0"), ("FULL", "2")])
def test_synchronous_off_reaches_sqlite_and_full_stays(tmp_path: Path, word: str, value: str) -> None:
    command = [sys.executable, "-c", PROBE, str(tmp_path), word]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == value
