"""``edge-agent purge --all``: a terminal is taken out of service, and nothing of it is left that opens anything."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.outbox.test_erasure import every_byte
from tests.stocked import open_real_store, stocked_terminal
from tests.terminal import KEY
from tests.test_outbox_commands import Site, read_until
from tests.test_privacy import plant, traces

TOKEN = "a-token-of-the-point-of-sale-0123456789"


class Doomed(Site):
    """A terminal with everything in it that a purge must find."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.journal: list[str] = []
        self._monkeypatch.setattr("syslog.syslog", lambda _, line: self.journal.append(line))
        stores = (self.folder / "credstore",)
        self._monkeypatch.setattr("edge_agent.decommission.CREDENTIAL_STORES", stores)
        self.planted = plant(self.folder)
        self.old = self.folder / "old"
        shutil.copytree(self.state_dir, self.old)
        (self.state_dir / "aside/0001-20300601T120000Z").mkdir(parents=True)
        shutil.copy(self.old / "outbox.db", self.state_dir / "aside/0001-20300601T120000Z")
        (self.state_dir / "export.jpg").write_bytes(b"a face in clear")
        (self.state_dir / "models").mkdir()
        (self.state_dir / "models/a.onnx").write_bytes(b"weights")
        (self.folder / "elsewhere").mkdir()
        (self.folder / "elsewhere/not-ours").write_bytes(b"somebody else's")
        (self.state_dir / "link").symlink_to(self.folder / "elsewhere")
        self.move_into_credentials()

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials"

    def move_into_credentials(self) -> None:
        """The device key as the installer puts it, a token in systemd's own store, the API key in a file."""
        self.credentials.mkdir()
        (self.folder / "credstore").mkdir()
        (self.folder / "device.key").rename(self.credentials / "edge-agent-key")
        (self.folder / "credstore/pos-token").write_text(TOKEN)
        self.configure(
            outbox={"key": {"credential": "edge-agent-key"}, "reserve_bytes": 0},
            api={"socket": str(self.folder / "api.sock"), "token": {"credential": "pos-token"}},
        )

    def configure(self, **sections: Any) -> None:
        self.config.write_text(yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **sections}))

    def left(self) -> set[str]:
        """Every file that is left of the terminal, the configuration apart."""
        places = (self.state_dir, self.credentials, self.folder / "credstore")
        found = [path for place in places for path in place.rglob("*")] + list(self.folder.glob("*.key"))
        return {str(path.relative_to(self.folder)) for path in found}


@pytest.fixture
def doomed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doomed:
    return Doomed(tmp_path, monkeypatch, capsys)


def test_nothing_is_left_and_the_last_line_is_the_record_of_it(doomed: Doomed) -> None:
    head = json.loads(_audit_head(doomed))
    names = sorted(doomed.left())
    assert "state/export.jpg" in names
    code, out, err = doomed("purge", "--all", "--yes")
    assert (code, doomed.left()) == (0, set())
    assert every_byte(doomed.state_dir) == {}
    assert (doomed.folder / "elsewhere/not-ours").read_bytes() == b"somebody else's"
    (line,) = out.splitlines()
    assert doomed.journal == [line]
    assert line.startswith("purged terminal pos-0001 at ")
    assert "secrets: api.token, cypherface.api_key, outbox.key" in line
    assert line.endswith(f"audit head {head}")
    assert "flash" in err


def _audit_head(doomed: Doomed) -> str:
    doomed._monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(doomed.credentials))
    return json.dumps(doomed.json("audit", "verify")[1]["head"])


def test_an_old_copy_of_the_database_opens_with_nothing_that_is_left(doomed: Doomed) -> None:
    doomed._monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(doomed.credentials))
    doomed.configure(state_dir=str(doomed.old))
    assert doomed("outbox", "export", doomed.planted, "--yes", "-o", "before.jpg")[0] == 0  # it would, with the key
    doomed.configure(state_dir=str(doomed.state_dir))
    assert doomed("purge", "--all", "--yes")[0] == 0
    doomed.configure(state_dir=str(doomed.old))
    code, _, err = doomed("outbox", "export", doomed.planted, "--yes", "-o", "after.jpg")
    assert (code, "cannot read the secret file" in err) == (3, True)
    assert not any(
        bytes.fromhex(KEY) in content or KEY.encode() in content for content in every_byte(doomed.old).values()
    )
    assert traces(doomed.old) == []


def test_a_secret_is_overwritten_under_every_name_that_it_has(doomed: Doomed) -> None:
    os.link(doomed.credentials / "edge-agent-key", doomed.folder / "second-name")
    (doomed.folder / "api.key").rename(doomed.folder / "target")
    (doomed.folder / "api.key").symlink_to(doomed.folder / "target")
    assert doomed("purge", "--all", "--yes")[0] == 0
    assert (doomed.folder / "second-name").read_bytes() == bytes(len(KEY))
    assert not (doomed.folder / "target").exists()


def test_it_can_be_repeated(doomed: Doomed) -> None:
    assert doomed("purge", "--all", "--yes")[0] == 0
    code, body = doomed.json("purge", "--all", "--yes")
    assert (code, body["files"], body["secrets"], body["audit_head"], body["left"]) == (0, 0, [], None, [])
    shutil.rmtree(doomed.state_dir)
    assert doomed("purge", "--all", "--yes")[0] == 0


def test_one_that_was_cut_short_goes_on_where_it_stopped(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def stubborn(path: Path, missing_ok: bool = False) -> None:
        if path.name == "outbox.db":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stubborn)
        code, out, err = doomed("purge", "--all", "--yes")
    assert (code, out, doomed.journal) == (3, "", [])
    assert f"{doomed.state_dir}/outbox.db (Operation not permitted)" in err
    assert not (doomed.credentials / "edge-agent-key").exists(), "the key goes first"
    assert doomed("purge", "--all", "--yes")[0] == 0
    assert doomed.left() == set()


def test_what_it_cannot_reach_is_named(doomed: Doomed) -> None:
    (doomed.credentials / "key-of-last-year").write_text("22" * 32)
    doomed.configure(
        cypherface={**yaml.safe_load(doomed.config.read_text())["cypherface"], "api_key": {"env": "API_KEY"}}
    )
    code, body = doomed.json("purge", "--all", "--yes")
    assert code == 1
    assert body["left"] == [
        "cypherface.api_key: env:API_KEY is set by whoever starts the agent: remove it there",
        f"{doomed.credentials}/key-of-last-year: the configuration does not name it",
    ]
    assert (doomed.credentials / "key-of-last-year").exists()


# -- what keeps it from being done ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--yes",), ("--all",)], ids=" ".join)
def test_nothing_is_destroyed_by_half_a_command(doomed: Doomed, words: tuple[str, ...]) -> None:
    before = doomed.left()
    code, out, _ = doomed("purge", *words)
    assert (code, out) == (2, "")
    assert doomed.left() >= before


def test_not_while_an_agent_runs_even_one_without_its_key(doomed: Doomed) -> None:
    (doomed.credentials / "edge-agent-key").write_text("22" * 32)
    before = doomed.left()
    with stocked_terminal(doomed.folder, outbox={"key": {"file": doomed.credentials / "edge-agent-key"}}) as terminal:
        assert terminal.agent.faults["store"].code == "key_mismatch"
        doomed.configure(api={"socket": str(terminal.socket)}, state_dir=str(doomed.state_dir))
        code, _, err = doomed("purge", "--all", "--yes")
        assert (code, "systemctl disable --now edge-agent" in err) == (3, True)
    assert doomed.left() >= before


def test_not_while_another_process_has_the_directory(doomed: Doomed) -> None:
    before = doomed.left()
    with open_real_store(doomed.folder):
        code, _, err = doomed("purge", "--all", "--yes")
    assert (code, f"the process {os.getpid()} has it" in err) == (3, True)
    assert doomed.left() >= before


@pytest.mark.parametrize(("typed", "code"), [("pos-0001", 0), ("y", 1)])
def test_a_person_types_the_terminals_name(doomed: Doomed, typed: str, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "edge_agent", "purge", "--all", "--config", str(doomed.config)]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert "Type pos-0001 to destroy all of it for good" in read_until(ours, "for good")
        os.write(ours, f"{typed}\n".encode())
        assert process.wait(60) == code
    os.close(ours)
    assert (doomed.state_dir / "outbox.db").exists() is bool(code)


def test_a_directory_of_somebody_else_is_never_emptied(doomed: Doomed) -> None:
    doomed.configure(state_dir=str(doomed.folder / "elsewhere"))
    code, _, err = doomed("purge", "--all", "--yes")
    assert (code, "nothing in it says that it is the state directory" in err) == (2, True)
    assert (doomed.folder / "elsewhere/not-ours").exists()
    assert (doomed.credentials / "edge-agent-key").exists()


@pytest.mark.parametrize("name", ["lock", "keys", "outbox.db"])
def test_a_name_that_others_use_too_does_not_make_a_directory_ours(doomed: Doomed, name: str) -> None:
    (doomed.folder / "elsewhere" / name).write_bytes(b"")
    test_a_directory_of_somebody_else_is_never_emptied(doomed)


def test_what_is_named_as_a_secret_and_is_no_file_is_not_removed(doomed: Doomed) -> None:
    device = doomed.folder / "a-device"
    os.mkfifo(device)
    doomed.configure(outbox={"key": {"file": str(device)}, "reserve_bytes": 0})
    code, _, err = doomed("purge", "--all", "--yes")
    assert (code, "it is no file" in err) == (3, True)
    assert device.exists()
    assert (doomed.state_dir / "outbox.db").exists(), "nothing is touched"


def test_one_whose_database_is_gone_is_ours_by_its_key_file(doomed: Doomed) -> None:
    (doomed.state_dir / "outbox.db").unlink()
    assert doomed("purge", "--all", "--yes")[0] == 0
    assert doomed.left() == set()


def test_one_that_was_cut_short_is_known_for_ours_by_whatever_is_left(
    doomed: Doomed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmdir = os.rmdir

    def stubborn(path: Path) -> None:
        if path.name == "aside":
            raise PermissionError(1, "Operation not permitted")
        rmdir(path)

    with monkeypatch.context() as patch:
        patch.setattr("os.rmdir", stubborn)
        assert doomed("purge", "--all", "--yes")[0] == 3
    assert doomed.left() == {"state/aside", "state/lock"}
    assert doomed("purge", "--all", "--yes")[0] == 0
    assert doomed.left() == set()


def test_without_a_database_keys_still_go(doomed: Doomed) -> None:
    shutil.rmtree(doomed.state_dir)
    assert doomed("purge", "--all", "--yes")[0] == 0
    assert doomed.left() == set()


def test_the_keys_of_its_json_are_documented(doomed: Doomed) -> None:
    from tests.test_outbox_commands import documented_keys

    assert documented_keys("`purge`") == doomed.json("purge", "--all", "--yes")[1].keys()
