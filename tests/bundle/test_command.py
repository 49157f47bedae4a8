"""The file that comes out, and the command that makes it: private, whole or not at all, shown before it is sent."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from edge_agent.bundle import collecting
from edge_agent.bundle.archive import packed, stem, write
from edge_agent.bundle.collecting import Bundle, collect
from edge_agent.cli import main
from edge_agent.errors import ConfigurationError, EnvironmentFault
from tests.bundle.test_collecting import bare
from tests.test_outbox_commands import Site

MEMBERS = ["manifest.json", "configuration.json", "doctor.json", "versions.json", "hardware.json", "models.json"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return collect(tmp_path / "none.yaml", bare(tmp_path))


def test_the_archive_holds_the_members_as_the_manifest_tells_and_nothing_of_its_maker(bundle: Bundle) -> None:
    data = packed(bundle)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        entries = tar.getmembers()
        content = {entry.name: tar.extractfile(entry).read() for entry in entries}  # type: ignore[union-attr]
    folder = stem(bundle)
    assert list(content) == [f"{folder}/{member.name}" for member in bundle.members]
    told = json.loads(content[f"{folder}/manifest.json"])
    for member in told["members"]:
        inside = content[f"{folder}/{member['name']}"]
        assert (len(inside), hashlib.sha256(inside).hexdigest()) == (member["bytes"], member["sha256"])
    assert {(e.mode, e.uid, e.gid, e.uname, e.gname) for e in entries} == {(0o600, 0, 0, "", "")}
    assert packed(bundle) == data


def test_it_is_private_and_an_existing_file_is_left_alone_unless_told(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "it.tar.gz"
    path.write_text("somebody's")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"cannot write .*it.tar.gz: it exists"):
        write(bundle, path)
    assert path.read_text() == "somebody's"
    written = write(bundle, path, overwrite=True)
    assert path.read_bytes() == packed(bundle)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (written.bytes, written.private) == (path.stat().st_size, True)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        write(bundle, path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_finished_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, overwrite: bool
) -> None:
    def fails(_: int) -> None:
        raise error

    old = b"the old one" if overwrite else None
    path = tmp_path / "it.tar.gz"
    if old:
        path.write_bytes(old)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises((EnvironmentFault, KeyboardInterrupt)):
        write(bundle, path, overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == before
    assert not old or path.read_bytes() == old


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nonexistent")
    monkeypatch.setattr(collecting, "surroundings", lambda _: bare(tmp_path))
    return Site(tmp_path, monkeypatch, capsys)


def test_the_command_writes_it_here_and_says_where_and_to_read_it(site: Site) -> None:
    code, out, _ = site("bundle")
    (file,) = site.folder.glob("edge-agent-bundle-pos-0001-*.tar.gz")
    data = file.read_bytes()
    assert code == 0
    *lines, last = out.splitlines()
    assert last == (
        f"{file.name}: {len(data) / 1000:.1f} kB, SHA-256 {hashlib.sha256(data).hexdigest()}; read it before you send it"
    )
    assert [line.split()[0] for line in lines[1 : 1 + len(MEMBERS)]] == MEMBERS
    assert "not in it: status: cannot reach the agent" in lines
    code, told = site.json("bundle", "--output", "other.tar.gz")
    assert (code, told["file"], [m["name"] for m in told["members"]]) == (0, "other.tar.gz", MEMBERS)
    assert told["sha256"] == hashlib.sha256((site.folder / "other.tar.gz").read_bytes()).hexdigest()
    assert {"part": "status", "why": "cannot reach the agent"} in told["gaps"]


def test_a_preview_shows_all_of_it_and_writes_nothing(site: Site) -> None:
    before = {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")}
    code, told = site.json("bundle", "--preview")
    assert (code, [member["name"] for member in told["members"]], "file" in told) == (0, MEMBERS, False)
    code, out, _ = site("bundle", "--preview", "manifest.json")
    manifest = json.loads(out)
    assert (code, [m["name"] for m in manifest["members"]], manifest["terminal_id"]) == (0, MEMBERS[1:], "pos-0001")
    assert site("bundle", "--preview")[1].splitlines()[1].startswith("manifest.json ")
    assert {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--output", "config.yaml"), 2, "it exists"),
        (("--output", "nowhere/it.tar.gz"), 3, "No such file or directory"),
        (("--preview", "secrets.json"), 2, "there is no secrets.json in it; one of: manifest.json, "),
        (("--preview", "--output", "it.tar.gz"), 2, "--preview writes nothing"),
    ],
)
def test_what_cannot_be_done_is_refused(site: Site, arguments: tuple[str, ...], code: int, message: str) -> None:
    ended, out, err = site("bundle", *arguments)
    assert (ended, out) == (code, "")
    assert message in err
    assert ("looking at everything" in err) == ("secrets.json" in message)  # the rest shows before the minutes it takes


def test_a_folder_gets_a_file_of_the_usual_name(site: Site) -> None:
    (site.folder / "stick").mkdir()
    code, told = site.json("bundle", "--output", "stick")
    (file,) = (site.folder / "stick").iterdir()
    assert (code, told["file"]) == (0, f"stick/{file.name}")
    assert file.name.startswith("edge-agent-bundle-pos-0001-")


def test_the_machine_it_runs_on_is_looked_at_where_nothing_is_injected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real doctor, journalctl, systemctl, /proc and /sys, as far as this machine has them."""
    monkeypatch.setattr(
        sys, "argv", ["edge-agent", "bundle", "--preview", "--json", "--config", str(tmp_path / "none")]
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main()
    names = {member["name"] for member in json.loads(capsys.readouterr().out)["members"]}
    assert not ended.value.code
    assert {"manifest.json", "doctor.json", "versions.json", "hardware.json"} <= names
