"""``edge-agent models``: what it prints, where, and its exit codes."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.cli import main
from edge_agent.cli.models import terminal_progress
from edge_agent.packs.manifest import model_path
from tests.packs.stand_ins import CONTENT, entry, pack_value, small_pack

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """Runs the command line in this process, with a folder of models and a pack file of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.models = folder / "models"
        self.usb = folder / "usb"
        self.pack = folder / "ours.yaml"
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.delenv("EDGE_AGENT_CONFIG", raising=False)
        value = pack_value(**{name.removesuffix(".onnx"): entry(data) for name, data in CONTENT.items()})
        self.pack.write_text(yaml.safe_dump(value))
        self.usb.mkdir()
        for name, data in CONTENT.items():
            (self.usb / name).write_bytes(data)

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        argv = ["edge-agent", "models", *map(str, arguments), "--dir", str(self.models)]
        self._monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def file(self, name: str) -> Path:
        return model_path(self.models, name, small_pack().files[name])


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys)


def test_fetch_brings_an_operators_own_pack(models: Terminal) -> None:
    code, out, err = models("fetch", models.pack, "--from", models.usb)
    assert code == 0
    assert out == f"small: 2 files verified, 2 of them new, in {models.models}\n"
    assert "detector.onnx: 1000 bytes, verified, from" in err
    assert "commercial use permitted: do what you like" in err


def test_fetch_as_json_is_one_object(models: Terminal) -> None:
    code, out, _ = models("fetch", models.pack, "--from", models.usb, "--json")
    assert code == 0
    assert json.loads(out) == {
        "pack": "small",
        "dir": str(models.models),
        "files": [
            {"file": name, "path": str(models.file(name)), "from": str(models.usb / name)} for name in sorted(CONTENT)
        ],
    }
    _, out, _ = models("fetch", models.pack, "--json")
    assert [file["from"] for file in json.loads(out)["files"]] == [None, None]


def test_verify_accepts_what_fetch_brought(models: Terminal) -> None:
    models("fetch", models.pack, "--from", models.usb)
    code, out, err = models("verify", models.pack)
    assert code == 0
    assert out.splitlines() == [
        f"small in {models.models}",
        "  ok         detector.onnx",
        "  ok         live.onnx",
        "commercial use permitted: do what you like",
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("damage", "code", "state"),
    [
        (lambda path: path.unlink(), 3, "missing"),
        (lambda path: path.write_bytes(b"L" * 499), 1, "tampered"),
        (lambda path: path.write_bytes(b"l" * 500), 1, "tampered"),
        (lambda path: (path.unlink(), path.mkdir()), 3, "unreadable"),
    ],
)
def test_verify_tells_a_damaged_pack_by_its_exit_code(models: Terminal, damage: Any, code: int, state: str) -> None:
    models("fetch", models.pack, "--from", models.usb)
    damage(models.file("live.onnx"))
    ended, out, err = models("verify", models.pack)
    assert ended == code
    assert f"  {state:<10} live.onnx" in out
    assert "edge-agent models fetch" in err
    ended, out, _ = models("verify", models.pack, "--json")
    assert ended == code
    assert json.loads(out)["ok"] is False


def test_a_tampered_file_outweighs_a_missing_one(models: Terminal) -> None:
    models("fetch", models.pack, "--from", models.usb)
    models.file("live.onnx").write_bytes(b"?")
    models.file("detector.onnx").unlink()
    assert models("verify", models.pack)[0] == 1


def test_the_json_of_verify_is_a_contract(models: Terminal) -> None:
    models("fetch", models.pack, "--from", models.usb)
    code, out, _ = models("verify", models.pack, "--json")
    assert code == 0
    assert json.loads(out) == {
        "pack": "small",
        "dir": str(models.models),
        "ok": True,
        "files": [
            {"file": name, "state": "ok", "path": str(models.file(name)), "detail": "", "licence": "MIT"}
            for name in sorted(CONTENT)
        ],
        "commercial_use": "yes",
        "licence_note": "do what you like",
        "signed_licence": {"status": None, "message": "", "commercial_licence": False},
    }


def test_verify_looks_at_the_default_pack_unless_told_otherwise(models: Terminal, tmp_path: Path) -> None:
    assert models("verify")[1].startswith("open in ")
    config = tmp_path / "config.yaml"
    config.write_text(
        "models: {pack: insightface}\ncypherface: {base_url: 'https://staging.cypherface.com/', "
        "merchant_id: 0123456789abcdef01234567, api_key: {env: KEY}, upload_hosts: [bucket.example]}\n"
    )
    code, out, _ = models("verify", "--config", config)
    assert code == 3
    assert out.startswith("insightface in ")
    assert "commercial use needs a licence" in out
    assert "signed licence: " in out


def test_list_shows_the_shipped_packs_and_what_is_installed(models: Terminal, assets: Path) -> None:
    models("fetch", "open", "--from", assets / "models")
    code, out, _ = models("list", "--json")
    assert code == 0
    states = {pack["name"]: pack["state"] for pack in json.loads(out)["packs"]}
    assert states == {"insightface": "absent", "open": "installed", "open-lite": "partial", "scrfd-minifas": "partial"}
    code, out, err = models("list")
    assert code == 0
    assert "open           installed" in out
    assert str(models.models) in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fetch", "nope"), 3, "cannot find the model pack 'nope'"),
        (("verify", "nope"), 3, "try: one of insightface, open, open-lite, scrfd-minifas"),
        (("fetch", "open", "--from", "/does/not/exist"), 2, "cannot take models from /does/not/exist"),
        (("verify", "--config", "/does/not/exist"), 2, "cannot read the configuration"),
        (("fetch",), 2, "Missing argument"),
    ],
)
def test_mistakes_end_with_the_documented_code(
    models: Terminal, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = models(*arguments)
    assert (ended, out) == (code, "")
    assert message in err


def test_a_file_that_cannot_be_had_ends_with_3_and_the_way_out(models: Terminal) -> None:
    (models.usb / "live.onnx").unlink()
    code, _, err = models("fetch", models.pack, "--from", models.usb)
    assert code == 3
    assert "cannot fetch 1 of the 2 files of the pack small" in err
    assert "edge-agent models fetch small --from FOLDER" in err


def test_progress_is_plain_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    progress = terminal_progress()
    with progress.transfer("file.onnx", 2_000_000) as received:
        received(1_000_000)
    progress.line("done")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "downloading file.onnx (2.0 MB)\ndone\n"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal_progress().transfer("file.onnx", 1000) as received:
        received(500)
        received(5000)
    with terminal_progress().transfer("of unknown length", None) as received:
        received(7)
    assert "100%" in screen.getvalue()
    assert "downloading of unknown length\n" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_the_wheel_carries_the_manifests_and_the_lock(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"edge_agent/models/open.yaml", "edge_agent/models/requirements-node.lock"} <= names
    assert not any(name.endswith(".onnx") for name in names)
