"""``edge-agent evaluate``: the JSON contract, the diagrams, exit codes; once with real models, and on the shared assets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_agent.cli.evaluate import evaluate
from edge_agent.errors import AgentError
from edge_agent.packs.manifest import load_pack
from scripts.evaluate_assets import lay_out
from tests.evaluate.contract import documented, keys
from tests.evaluate.painted import PaintedEyes, painted, put
from tests.project.tree import ROOT
from tests.test_screen import person


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``evaluate`` with painted pictures for models; diagrams go to the temporary folder."""
    monkeypatch.setattr("edge_agent.cli.evaluate.open_models", lambda *_, **__: PaintedEyes())
    plot = ["--plot", str(tmp_path / "plot.png")]
    return lambda command, folder, *more: CliRunner().invoke(evaluate, [command, str(folder), *plot, *more])


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for name in range(1, 7):
        for variant in (0, 40):
            put(tmp_path / f"people/p{name}/{variant}.png", painted(name, variant=variant))
    put(tmp_path / "people/p1/nobody.png", painted(kind="none"))
    return tmp_path / "people"


@pytest.fixture
def presentations(tmp_path: Path) -> Path:
    for i in range(4):
        put(tmp_path / f"pad/bona_fide/{i}.png", painted(live=0.9, variant=i, kind="far" if i else "good"))
        put(tmp_path / f"pad/print/{i}.png", painted(live=0.1 + i / 5, variant=i))
    (tmp_path / "pad/bona_fide/notes.txt").write_text("no picture")
    (tmp_path / "pad/print/notes.txt").write_text("no picture")
    return tmp_path / "pad"


def is_drawn(path: Path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and min(image.shape[:2]) > 200 and len(np.unique(image)) > 10


def test_the_json_of_match_holds_the_documented_keys(run: Callable[..., Result], people: Path) -> None:
    done = run("match", people, "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert keys(body) == documented("evaluate match")
    assert (body["identities"], body["genuine_pairs"], body["impostor_pairs"]) == (6, 6, 60)
    assert body["left_out"][0]["reason"] == "no_face"
    assert body["evidence"]["threshold"] == 0.001
    assert not body["evidence"]["sufficient"]
    assert is_drawn(Path(body["plot"]))


def test_the_json_of_pad_holds_the_documented_keys(run: Callable[..., Result], presentations: Path) -> None:
    done = run("pad", presentations, "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    species = {key.replace("bona_fide.", "attacks[].").replace("bpcer", "apcer") for key in documented("evaluate pad")}
    expected = (documented("evaluate pad") | {key for key in species if key.startswith("attacks[].")}) - {"attacks[]"}
    assert {key.replace("reasons[]", "reasons") for key in keys(body)} == {
        key.replace("reasons[]", "reasons") for key in expected
    }
    assert body["attacks"][0]["apcer"]["errors"] == 2
    assert body["worst"] == "print"
    assert is_drawn(Path(body["plot"]))


def test_the_text_says_what_the_set_has_and_what_it_would_take(run: Callable[..., Result], people: Path) -> None:
    done = run("match", people)
    assert done.exit_code == 0, done.output
    for part in (
        "60 impostor pairs of 15 pairs of identities",
        "takes 29956 impostor pairs",
        "1 no_face",
        "NOT EVIDENCE",
    ):
        assert part in done.stdout
    assert "plot.png" in done.stderr


def test_a_threshold_is_a_question_and_the_exit_code_its_answer(
    run: Callable[..., Result], people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("match", people, "--threshold", "2").exit_code == 2
    assert run("match", people, "--threshold", "0.5").exit_code == 1
    monkeypatch.setattr("edge_agent.evaluate.match.GOAL", 0.1)  # of which 60 pairs are evidence
    assert run("match", people, "--threshold", "0.5").exit_code == 0
    assert run("match", people, "--threshold", "0").exit_code == 1


@pytest.mark.parametrize(("command", "code", "exit_code"), [("match", "no_pictures", 2), ("pad", "no_bona_fide", 2)])
def test_an_empty_folder_is_refused(
    command: str, code: str, exit_code: int, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = run(command, tmp_path / "empty")
    assert isinstance(done.exception, AgentError)
    assert (done.exception.code, done.exception.exit_code) == (code, exit_code)
    assert run(command, tmp_path / "missing").exit_code == 2


def test_a_diagram_that_cannot_be_written_is_a_fault_of_the_device(
    run: Callable[..., Result], people: Path, tmp_path: Path
) -> None:
    done = run("match", people, "--plot", str(tmp_path / "nowhere/det.png"))
    assert isinstance(done.exception, AgentError)
    assert done.exception.exit_code == 3
    assert "--plot" in str(done.exception.hint)


def test_a_pack_without_an_embedder_is_refused_before_anything_is_looked_at(people: Path, tmp_path: Path) -> None:
    text = (ROOT / "models/open.yaml").read_text(encoding="utf-8")
    bare = re.sub(r"embedder:\n(  .*\n)+", "", text)
    bare = re.sub(r"\n  fr_feature\.onnx:\n(    .*\n)+", "\n", bare)
    (tmp_path / "own.yaml").write_text(bare)
    done = CliRunner().invoke(
        evaluate, ["match", str(people), "--pack", str(tmp_path / "own.yaml"), "--models-dir", str(tmp_path)]
    )
    assert isinstance(done.exception, AgentError)
    assert (done.exception.code, done.exception.exit_code) == ("no_embedder", 3)


# -- with real models


@pytest.mark.packs
def test_with_real_models_one_person_under_two_names_is_confused(tmp_path: Path, open_pack_dir: Path) -> None:
    """One portrait, mirrored and darkened: the very pair that a good embedder cannot tell apart."""
    portrait = person()
    put(tmp_path / "people/a/0.png", portrait)
    put(tmp_path / "people/a/1.png", np.asarray(portrait * 0.9, np.uint8))
    put(tmp_path / "people/b/0.png", np.ascontiguousarray(portrait[:, ::-1]))
    put(tmp_path / "people/b/1.png", portrait[:200, :200])
    options = ["--models-dir", str(open_pack_dir), "--plot", str(tmp_path / "det.png"), "--json"]
    done = CliRunner().invoke(evaluate, ["match", str(tmp_path / "people"), *options, "--threshold", "0.45"])
    assert done.exit_code == 1, done.output
    body = json.loads(done.stdout)
    assert (body["genuine_pairs"], body["impostor_pairs"], body["evidence"]["false_matches"]) == (1, 2, 2)
    assert [Path(item["file"]).name for item in body["left_out"]] == ["1.png"]
    assert body["embedder"]["sha256"] == load_pack("open").files["fr_feature.onnx"].sha256


@pytest.mark.assets
@pytest.mark.packs
def test_the_shared_people_are_told_apart_but_are_far_too_few(
    assets: Path, open_pack_dir: Path, tmp_path: Path
) -> None:
    lay_out(assets, tmp_path)
    options = ["--models-dir", str(open_pack_dir), "--plot", str(tmp_path / "det.png"), "--json", "--gate", "none"]
    body = json.loads(CliRunner().invoke(evaluate, ["match", str(tmp_path / "people"), *options]).stdout)
    assert (body["identities"], body["genuine_pairs"], body["impostor_pairs"]) == (15, 28, 533)
    assert body["evidence"]["fmr_bound"] == pytest.approx(5.6e-3, rel=0.01)
    assert not body["evidence"]["sufficient"]
