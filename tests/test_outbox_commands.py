"""``edge-agent outbox|audit|key|adopt``: what they print, where, their exit codes, and what they ask before they act."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import signal
import socket as sockets
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edge_agent.api import wire, wire_outbox
from edge_agent.cli import main
from edge_agent.cli.tables import age, local, size
from edge_agent.config import load
from edge_agent.doctor.examination import run_checks
from edge_agent.errors import ConfigurationError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.configured import open_outbox
from edge_agent.outbox.records import RotationReport
from edge_agent.types import State
from tests.project.tree import ROOT
from tests.stocked import PICTURE, Stock, open_real_store, stock
from tests.terminal import KEY
from tests.test_daemon import daemon, edge_agent, wait_for, write_config


class Site:
    """A terminal whose agent is not running, and a technician at its command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = write_config(folder)
        (folder / "device.key").write_text(KEY)
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        argv = ["edge-agent", *map(str, arguments), "--config", str(self.config)]
        self._monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def json(self, *arguments: object) -> tuple[int, Any]:
        code, out, _ = self(*arguments, "--json")
        return code, json.loads(out)

    def state(self, id_: str) -> State:
        with open_real_store(self.folder) as store:
            return store.get(id_).state


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, monkeypatch, capsys)


@pytest.fixture
def stored(site: Site) -> Stock:
    return stock(site.folder)


@pytest.mark.parametrize(
    "command", [("outbox", "list"), ("privacy", "report"), ("privacy", "sweep"), ("purge", "--all")]
)
def test_a_socket_that_this_user_may_not_open_does_not_mean_that_no_agent_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def connect(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    socket = site.folder / "api.sock"
    socket.touch()
    monkeypatch.setattr(sockets.socket, "connect", connect)
    code, _, err = site(*command)
    assert code == 3
    assert f"cannot connect to {socket}: this user may not\n" in err
    assert "call with sudo, or join the group edge-agent" in err
    assert "using the files" not in err


def test_a_lost_device_key_is_to_be_put_back_where_a_queue_was_made_with_it(
    site: Site,
) -> None:
    key, config = site.folder / "device.key", load(site.config)
    put_back, create = "put back the key that this queue was made with", "create it with mode 0600"

    def told() -> dict[str, str | None]:
        with pytest.raises(ConfigurationError) as opened:
            open_outbox(config, clock=SystemClock())
        found = {finding.id: finding.mend for finding in run_checks(site.config, only=["credentials.device_key"])}
        return {"store": opened.value.hint, "doctor": found["credentials.device_key"]}

    key.unlink()
    assert all((hint or "").startswith(create) for hint in told().values()), "there is no queue yet"
    key.write_text(KEY)
    key.chmod(0o600)
    stock(site.folder)
    key.unlink()
    assert all((hint or "").startswith(put_back) for hint in told().values()), told()
    key.touch(0o600)
    assert all((hint or "").startswith(put_back) for hint in told().values()), "an empty file is a lost key too"


# -- what is printed --------------------------------------------------------------------------------------------------


def test_the_list_fits_a_terminal_and_says_what_a_technician_needs(site: Site, stored: Stock) -> None:
    code, out, err = site("outbox", "list")
    lines = out.splitlines()
    assert code == 0
    assert re.fullmatch(r"2 waiting \(0 being forwarded\), 1 parked, 6\.0 kB, the oldest \ds old", lines[0])
    assert lines[1].split() == ["ID", "STATE", "AGE", "TRIES", "NEXT", "WHY"]
    assert re.fullmatch(rf"{stored.other}  pending  \d+s +0      now", lines[2])
    assert re.fullmatch(rf"{stored.waiting}  pending  \d+s +1      59m\d\ds  network", lines[3])
    assert re.fullmatch(rf"{stored.parked}  parked   \d+s +1      -       unknown_user", lines[4])
    assert max(map(len, lines)) <= 80
    assert err == f"no agent answers at {site.folder}/api.sock: using the files in {site.folder}/state\n"


def test_one_is_shown_with_what_the_server_said(site: Site, stored: Stock) -> None:
    code, out, _ = site("outbox", "show", stored.parked)
    assert code == 0
    assert re.search(r"^error +unknown_user \(HTTP 404\): no such user: alice$", out, re.MULTILINE)
    assert re.search(r"^\d+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  park +failed +code=unknown_user", out, re.MULTILINE)


def test_the_verdict_on_the_outbox_is_one_line(site: Site, stored: Stock) -> None:
    assert site("outbox", "verify")[1].startswith("outbox: fine (4 verifications, 3 pictures, ")
    code, out, _ = site("audit", "verify")
    assert code == 0
    assert re.fullmatch(r"audit log: fine \(\d+ records\)\nhead \d+:[0-9a-f]{64}\n", out)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (41.9, "41s"), (125, "2m05s"), (3600, "1h00m"), (12_345, "3h25m"), (273_600, "3d04h")],
)
def test_ages_are_humane(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_sizes_and_times_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 38_150, 5_000_000, 2 * 10**9)] == [
        "0 bytes", "999 bytes", "38.1 kB", "5.0 MB", "2.0 GB",
    ]  # fmt: skip
    moment = datetime(2030, 6, 1, 12, tzinfo=UTC)
    assert local(moment) == moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert local(moment, synchronised=False).endswith("(clock not synchronised)")


# -- acting -----------------------------------------------------------------------------------------------------------


def test_a_retry_says_what_it_did(site: Site, stored: Stock) -> None:
    assert site("outbox", "retry", stored.parked)[1] == (
        "0 need not wait any longer, 1 queued again; they are tried when the agent runs\n"
    )
    assert site.json("outbox", "retry", "--all") == (0, {"hurried": 1, "reopened": 0, "forwarding": False})
    assert site.state(stored.parked) is State.PENDING


def test_a_purge_destroys_only_what_was_asked_for(site: Site, stored: Stock) -> None:
    assert site("outbox", "purge", stored.waiting, "--yes")[:2] == (0, f"1 destroyed, {size(len(PICTURE))}\n")
    assert site.state(stored.waiting) is State.DELETED
    assert site.json("outbox", "purge", "--parked", "--yes")[1]["captures"] == 1
    assert site.json("outbox", "list")[1]["queue"]["pictures"] == 1
    assert site.json("outbox", "purge", "--all", "--yes")[1]["captures"] == 1
    assert site("outbox", "verify")[0] == 0


def test_an_export_is_private_and_never_overwrites(site: Site, stored: Stock) -> None:
    code, out, err = site("outbox", "export", stored.waiting, "--yes")
    target = site.folder / f"{stored.waiting}.jpg"
    assert code == 0
    assert out.startswith(f"{stored.waiting}.jpg: 2.0 kB, SHA-256 ")
    assert "biometric data in clear" in err
    assert target.read_bytes() == PICTURE
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    code, _, err = site("outbox", "export", stored.waiting, "--yes")
    assert (code, "it exists" in err) == (2, True)
    (site.folder / "link.jpg").symlink_to(site.folder / "elsewhere")
    assert site("outbox", "export", stored.waiting, "--yes", "-o", "link.jpg")[0] == 2
    assert not (site.folder / "elsewhere").exists()


def test_an_export_as_json_gives_the_record(site: Site, stored: Stock) -> None:
    code, body = site.json("outbox", "export", stored.waiting, "--yes", "-o", "face.jpg")
    assert (code, body["file"], body["bytes"], body["item"]["id"]) == (0, "face.jpg", len(PICTURE), stored.waiting)


def test_an_export_that_fails_leaves_no_file(site: Site, stored: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site("outbox", "export", stored.ended, "--yes", "-o", "face.jpg")[0] == 1
    assert not (site.folder / "face.jpg").exists()
    assert site("outbox", "export", stored.waiting, "--yes", "-o", "no-such-folder/face.jpg")[0] == 3


def test_nothing_is_exported_that_could_not_be_written(site: Site, stored: Stock) -> None:
    site("outbox", "export", stored.waiting, "--yes", "-o", "no-such-folder/face.jpg")
    history = site.json("outbox", "show", stored.waiting)[1]["history"]
    assert "exported" not in [entry["event"] for entry in history]


def test_the_key_is_rotated(site: Site, stored: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    report = RotationReport(generation=2, users=3, rows=8, left_alone=1, traces_left=False)
    monkeypatch.setattr(Store, "rotate", lambda _, *, actor: report)
    code, out, err = site("key", "rotate", "--yes")
    assert (code, out) == (0, "key generation 2: 3 user keys wrapped and 8 rows sealed anew\n")
    assert "1 left alone" in err
    assert "destroy the old key" in err
    assert site.json("key", "rotate", "--yes")[1] == {
        "generation": 2,
        "users": 3,
        "rows": 8,
        "left_alone": 1,
        "traces_left": False,
    }


def test_only_a_moved_state_directory_is_adopted(site: Site) -> None:
    stock(site.folder, machine="another machine")
    assert site.json("adopt", "--yes") == (0, {"adopted": True})
    code, _, err = site("adopt", "--yes")
    assert (code, "belongs to this machine already" in err) == (1, True)


# -- asking -----------------------------------------------------------------------------------------------------------

ASKS = (("outbox", "purge", "ID"), ("outbox", "purge", "--all"), ("outbox", "export", "ID"), ("key", "rotate"))


@pytest.mark.parametrize("words", ASKS, ids=" ".join)
def test_without_a_terminal_nothing_is_done_unasked(site: Site, stored: Stock, words: tuple[str, ...]) -> None:
    code, out, err = site(*(stored.waiting if word == "ID" else word for word in words))
    assert (code, out) == (2, "")
    assert "try: add --yes" in err
    assert site.state(stored.waiting) is State.PENDING
    assert list(site.folder.glob("*.jpg")) == []


def test_adopting_is_asked_for_too(site: Site) -> None:
    stock(site.folder, machine="another machine")
    assert site("adopt")[0] == 2
    assert site("outbox", "list")[0] == 3


@pytest.mark.parametrize(("answer", "code", "state"), [("y", 0, State.DELETED), ("n", 1, State.PENDING)])
def test_a_person_at_a_terminal_is_asked(site: Site, stored: Stock, answer: str, code: int, state: State) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_agent", "outbox", "purge", stored.waiting, "--config", str(site.config)]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert f"Destroy the capture {stored.waiting} for good? [y/N]" in read_until(ours, "[y/N]")
        os.write(ours, f"{answer}\n".encode())
        assert process.wait(30) == code
    os.close(ours)
    assert site.state(stored.waiting) is state


def read_until(fd: int, text: str, limit_s: float = 30.0) -> str:
    shown = ""
    deadline = time.monotonic() + limit_s
    while text not in shown and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.5)[0]:
            shown += os.read(fd, 4096).decode()
    return shown


# -- the wrong words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("outbox", "retry", "ID", "--all"),
        ("outbox", "purge"),
        ("outbox", "purge", "--all", "--parked"),
        ("outbox", "list", "--limit", "0"),
        ("outbox", "show"),
        ("audit", "verify", "--expect-head", "12"),
        ("audit", "verify", "--expect-head", "12:xyz"),
        ("outbox", "burn"),
    ],
    ids=" ".join,
)
def test_a_mistake_on_the_command_line_is_exit_2(site: Site, stored: Stock, words: tuple[str, ...]) -> None:
    code, out, err = site(*words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("show",), ("retry",), ("purge", "--yes"), ("export", "--yes")], ids=" ".join)
def test_an_id_that_nothing_has_is_a_no(site: Site, stored: Stock, words: tuple[str, ...]) -> None:
    code, _, err = site("outbox", *words, "0" * 32)
    assert (code, "none with this id" in err) == (1, True)


def test_a_state_directory_without_an_outbox_gets_none(site: Site) -> None:
    for words in (("outbox", "list"), ("outbox", "verify"), ("audit", "verify"), ("outbox", "purge", "--all", "--yes")):
        code, out, err = site(*words)
        assert (code, out) == (3, "")
        assert "cannot find an outbox" in err
    assert not (site.folder / "state").exists()


# -- the proof --------------------------------------------------------------------------------------------------------


def damage(site: Site, sql: str) -> None:
    with closing(sqlite3.connect(site.folder / "state/outbox.db", isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER IF EXISTS audit_is_append_only")
        assert connection.execute(sql).rowcount > 0


CHANGES = {
    "changed": ("UPDATE audit SET event = 'nothing' WHERE seq = 5", 5, "record 5 was changed"),
    "missing": ("DELETE FROM audit WHERE seq = 5", 5, "record 5 is missing, 6 follows 4"),
    "reordered": ("UPDATE audit SET seq = CASE seq WHEN 5 THEN -6 ELSE -5 END WHERE seq IN (5, 6)", 5, "record 5"),
    "truncated": ("DELETE FROM audit WHERE seq > 5", 6, "are cut off"),
}


@pytest.mark.parametrize(("sql", "first_bad", "problem"), CHANGES.values(), ids=CHANGES.keys())
def test_whatever_was_done_to_the_audit_log_is_found_and_said_where(
    site: Site, stored: Stock, sql: str, first_bad: int, problem: str
) -> None:
    head = site.json("audit", "verify")[1]["head"]
    damage(site, sql)
    if "-6" in sql:
        damage(site, "UPDATE audit SET seq = -seq WHERE seq < 0")
    code, body = site.json("audit", "verify", "--expect-head", head)
    assert (code, body["ok"], body["first_bad"], problem in body["problem"]) == (1, False, first_bad, True)
    code, out, _ = site("audit", "verify", "--expect-head", head)
    assert (code, out.startswith("audit log: NOT fine")) == (1, True)


def test_a_row_that_was_changed_is_named(site: Site, stored: Stock) -> None:
    damage(site, "UPDATE verifications SET caller = 'uid:666' WHERE state = 'pending'")
    code, body = site.json("outbox", "verify")
    assert code == 1
    assert {problem["where"] for problem in body["problems"]} == {stored.waiting, stored.other}
    code, out, _ = site("outbox", "list")
    assert (code, f"{stored.waiting}  does not authenticate" in out) == (0, True)
    code, body = site.json("outbox", "show", stored.waiting)
    assert (code, body["authenticated"], body["item"]["caller"]) == (3, False, "uid:666")


# -- without the key --------------------------------------------------------------------------------------------------


def wrong_key(site: Site) -> None:
    (site.folder / "device.key").write_text("22" * 32)


def no_key(site: Site) -> None:
    (site.folder / "device.key").unlink()


def open_key(site: Site) -> None:
    (site.folder / "device.key").chmod(0o644)


def no_real_key(site: Site) -> None:
    (site.folder / "device.key").write_text("hello")


LOOKS = (("outbox", "list"), ("outbox", "verify"), ("audit", "verify"))


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
@pytest.mark.parametrize(
    ("spoil", "code"),
    [(wrong_key, "key_mismatch"), (no_key, "key_unavailable"), (open_key, "key_unavailable"),
     (no_real_key, "key_unavailable")],
)  # fmt: skip
def test_without_the_key_the_structure_is_checked_and_that_is_said(
    site: Site, stored: Stock, spoil: Any, code: str, words: tuple[str, ...]
) -> None:
    spoil(site)
    exit_code, body = site.json(*words)
    assert (exit_code, body["authenticated"], body["why_not"]["code"]) == (3, False, code)
    assert body.get("ok", True)
    exit_code, _, err = site(*words)
    assert (exit_code, "nothing was authenticated" in err) == (3, True)


def test_without_the_key_a_broken_structure_is_a_negative_result(site: Site, stored: Stock) -> None:
    wrong_key(site)
    damage(site, "DELETE FROM audit WHERE seq = 5")
    assert site("outbox", "verify")[:2] == (1, site("outbox", "verify")[1])
    code, out, _ = site("audit", "verify")
    assert code == 1
    assert out.startswith("audit log: NOT authenticated; its structure is NOT sound")


def test_without_the_key_nothing_is_changed(site: Site, stored: Stock) -> None:
    wrong_key(site)
    before = (site.folder / "state/outbox.db").read_bytes()
    for words in (("retry",), ("purge", "--all", "--yes"), ("purge", stored.parked, "--yes")):
        code, out, err = site("outbox", *words)
        assert (code, out, "is not the one it was made with" in err) == (3, "", True)
    assert (site.folder / "state/outbox.db").read_bytes() == before


def test_a_moved_state_directory_is_looked_at_without_being_adopted(site: Site) -> None:
    stock(site.folder, machine="another machine")
    for _ in range(2):
        code, body = site.json("outbox", "verify")
        assert (code, body["why_not"]["code"], body["ok"]) == (3, "state_moved", True)


def test_files_in_use_by_a_process_that_does_not_answer_are_looked_at_only(site: Site, stored: Stock) -> None:
    with open_real_store(site.folder):
        code, body = site.json("outbox", "verify")
        assert (code, body["authenticated"], body["ok"]) == (3, False, True)
        assert f"the process {os.getpid()} has it" in body["why_not"]["detail"]
        code, _, err = site("outbox", "purge", "--all", "--yes")
        assert (code, f"the process {os.getpid()} has it" in err) == (3, True)


# -- real processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def running(site: Site, stored: Stock) -> Iterator[Stock]:
    with daemon(site.config) as process:
        wait_for(process, site.folder / "api.sock")
        yield stored


def shape(value: Any) -> Any:
    """The keys all the way down."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else None


# httpcore forgets to close a Unix socket whose connect was refused; the garbage collector does it, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_same_json_comes_from_a_running_agent_and_after_it_was_killed(site: Site, stored: Stock) -> None:
    commands = [("outbox", "list"), ("outbox", "show", stored.parked), ("outbox", "verify"), ("audit", "verify")]
    with daemon(site.config) as process:
        wait_for(process, site.folder / "api.sock")
        through = [edge_agent(*words, "--json", "--config", site.config) for words in commands]
        process.send_signal(signal.SIGKILL)
        process.wait()
    beside = [edge_agent(*words, "--json", "--config", site.config) for words in commands]
    assert [(run.returncode, run.stderr) for run in through] == [(0, "")] * 4
    assert [run.returncode for run in beside] == [0] * 4
    assert all("using the files" in run.stderr for run in beside)
    assert [shape(json.loads(run.stdout)) for run in through] == [shape(json.loads(run.stdout)) for run in beside]


def test_a_running_agent_does_what_it_is_told(site: Site, running: Stock) -> None:
    assert site.json("outbox", "retry", running.waiting) == (0, {"hurried": 1, "reopened": 0, "forwarding": True})
    assert site("outbox", "purge", running.parked, "--yes")[0] == 0
    code, body = site.json("outbox", "show", running.parked)
    assert (code, body["item"]["state"], body["history"][-1]["detail"]) == (
        0, "deleted", {"actor": f"uid:{os.getuid()}"},
    )  # fmt: skip
    assert site("outbox", "export", running.other, "--yes", "-o", "face.jpg")[0] == 0
    assert site("outbox", "verify")[:2][0] == 0


def test_a_running_agent_without_the_key_leaves_the_structure_to_the_command(site: Site, stored: Stock) -> None:
    wrong_key(site)
    with daemon(site.config) as process:
        wait_for(process, site.folder / "api.sock")
        code, body = site.json("outbox", "verify")
        assert (code, body["authenticated"], body["why_not"]["code"], body["ok"]) == (3, False, "key_mismatch", True)
        assert site("outbox", "retry")[0] == 3


# -- the documentation ------------------------------------------------------------------------------------------------

BODIES: dict[str, type[BaseModel]] = {
    "`outbox list`": wire_outbox.OutboxList,
    "`outbox show`": wire_outbox.OutboxEntry,
    "`outbox verify`": wire_outbox.OutboxCheck,
    "`outbox retry`": wire_outbox.RetryBody,
    "`outbox purge`": wire_outbox.PurgeBody,
    "`audit verify`": wire_outbox.AuditCheck,
    "`key rotate`": wire_outbox.RotationBody,
    "`adopt`": wire_outbox.AdoptionBody,
    "`privacy report`": wire_outbox.PrivacyBody,
    "a purpose": wire_outbox.PurposeBody,
    "`privacy delete`": wire.UserDestroyedBody,
    "an item": wire_outbox.OutboxItem,
    "`queue`": wire_outbox.QueueBody,
    "`error`": wire_outbox.AttemptErrorBody,
    "a `history` entry": wire_outbox.HistoryBody,
    "a `problems` entry": wire_outbox.ProblemBody,
}


def documented_keys(label: str) -> set[str]:
    """The keys that docs/cli.md lists, without what it says about them in brackets."""
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8").split("### JSON")[1]
    row = re.search(rf"^\| {re.escape(label)} \| (.+) \|$", page, re.MULTILINE)
    assert row is not None, f"no row for {label}"
    return set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row[1])))


@pytest.mark.parametrize(("label", "body"), BODIES.items(), ids=BODIES.keys())
def test_every_json_key_is_documented_and_no_other(label: str, body: type[BaseModel]) -> None:
    assert documented_keys(label) == body.model_fields.keys()


def test_the_keys_of_an_export_are_documented(site: Site, stored: Stock) -> None:
    body = site.json("outbox", "export", stored.waiting, "--yes")[1]
    assert documented_keys("`outbox export`") == body.keys()
