"""Nothing but the bytes that the manifest names is ever handed to the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import model_path
from edge_agent.packs.verify import FileState, require_model, verify_pack
from tests.packs.stand_ins import model_file, small_pack

DATA = b"weights" * 100
FILE = model_file(DATA)


def put(folder: Path, data: bytes | None) -> None:
    if data is not None:
        model_path(folder, "live.onnx", FILE).write_bytes(data)


def flipped(data: bytes) -> bytes:
    return data[:50] + bytes([data[50] ^ 1]) + data[51:]


DAMAGED = [
    pytest.param(None, "models_missing", "does not exist", id="missing"),
    pytest.param(b"", "model_tampered", "truncated: 0 of 700 bytes", id="empty"),
    pytest.param(DATA[:-1], "model_tampered", "truncated: 699 of 700 bytes", id="truncated"),
    pytest.param(DATA + b"more", "model_tampered", "704 instead of 700", id="too long"),
    pytest.param(flipped(DATA), "model_tampered", "SHA-256", id="one bit flipped"),
]


def test_the_verified_bytes_are_returned(tmp_path: Path) -> None:
    put(tmp_path, DATA)
    assert require_model(tmp_path, "live.onnx", FILE) == DATA


@pytest.mark.parametrize(("data", "code", "why"), DAMAGED)
def test_a_damaged_file_is_never_loaded(tmp_path: Path, data: bytes | None, code: str, why: str) -> None:
    put(tmp_path, data)
    with pytest.raises(ModelError, match=r"cannot load the model live\.onnx") as caught:
        require_model(tmp_path, "live.onnx", FILE, pack="open-lite")
    assert caught.value.code == code
    assert why in caught.value.message
    assert caught.value.hint == "edge-agent models fetch open-lite"
    assert caught.value.exit_code == 3


def test_a_file_that_cannot_be_read_is_an_error_of_the_device(tmp_path: Path) -> None:
    model_path(tmp_path, "live.onnx", FILE).mkdir()
    with pytest.raises(ModelError) as caught:
        require_model(tmp_path, "live.onnx", FILE)
    assert caught.value.code == "model_unreadable"


def test_the_file_is_read_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, DATA)
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *args: opened.append(self) or real(self, *args))  # type: ignore[func-returns-value]
    require_model(tmp_path, "live.onnx", FILE)
    assert len(opened) == 1


def test_a_pack_is_reported_file_by_file(tmp_path: Path) -> None:
    pack = small_pack()
    states = lambda: [report.state for report in verify_pack(pack, tmp_path)]  # noqa: E731 - asked after each step
    assert states() == [FileState.MISSING, FileState.MISSING]
    model_path(tmp_path, "detector.onnx", pack.files["detector.onnx"]).write_bytes(b"D" * 1000)
    model_path(tmp_path, "live.onnx", pack.files["live.onnx"]).write_bytes(b"L" * 499)
    assert states() == [FileState.OK, FileState.TAMPERED]
    model_path(tmp_path, "live.onnx", pack.files["live.onnx"]).unlink()
    model_path(tmp_path, "live.onnx", pack.files["live.onnx"]).mkdir()
    assert states() == [FileState.OK, FileState.UNREADABLE]


def test_versions_of_a_file_never_collide(tmp_path: Path) -> None:
    paths = {model_path(tmp_path, "live.onnx", model_file(data)) for data in (DATA, flipped(DATA))}
    assert len(paths) == 2
