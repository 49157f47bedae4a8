"""What of a folder of people is compared, what is left out and why, and what cannot be evaluated at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import GateSection
from edge_agent.errors import InputError, ModelError
from edge_agent.evaluate.people import People, counted, look_at_people, people_json, pictures_by_person
from edge_agent.types import Embedding, Face, Frame
from tests.evaluate.painted import PaintedEyes, painted, put

LIMITS = GateSection()


def looked_at(folder: Path, limits: GateSection | None = LIMITS) -> People:
    return look_at_people(pictures_by_person(folder), PaintedEyes(), limits)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Anna with two good captures and one of every other kind, Bert with one, Carl with none that can be used."""
    for i, image in enumerate((painted(1), painted(1, variant=30))):
        put(tmp_path / f"anna/{i}.png", image)
    put(tmp_path / "anna/far.png", painted(1, kind="far"))
    put(tmp_path / "anna/nobody.png", painted(1, kind="none"))
    put(tmp_path / "anna/broken.png", painted(1, kind="broken"))
    (tmp_path / "anna/notes.txt").write_text("no picture")
    (tmp_path / "anna/cut.png").write_bytes((tmp_path / "anna/0.png").read_bytes()[:60])
    (tmp_path / "anna/gone.png").symlink_to("nowhere")
    (tmp_path / "anna/.hidden.png").write_bytes(b"")
    shutil.copy(tmp_path / "anna/0.png", tmp_path / "anna/again.png")
    put(tmp_path / "bert/0.png", painted(2, live=0.1))
    put(tmp_path / "carl/0.png", painted(3, kind="none"))
    (tmp_path / "read me.txt").write_text("beside the people")
    return tmp_path


def test_what_a_single_frame_gate_accepts_is_compared_and_the_rest_is_left_out_with_its_reason(people: Path) -> None:
    found = looked_at(people)
    assert {item.file.name: item.reason for item in found.left_out if item.file.parent.name == "anna"} == {
        "again.png": "duplicate",
        "broken.png": "inference_failed",
        "cut.png": "picture_truncated",
        "far.png": "too_far",
        "gone.png": "picture_unreadable",
        "nobody.png": "no_face",
        "notes.txt": "not_an_image",
    }
    assert [len(rows) for rows in found.embeddings] == [2, 1]
    assert (found.captures, found.files, found.folders) == (3, 11, 3)
    assert counted(found.reasons).startswith("2 no_face, ")
    assert len(people_json(found)["left_out"]) == 8


def test_liveness_decides_nothing_here_and_without_the_gate_any_face_counts(people: Path) -> None:
    found = looked_at(people, None)
    assert "far.png" not in {item.file.name for item in found.left_out}
    assert [len(rows) for rows in found.embeddings] == [3, 1]


def test_the_embeddings_are_those_of_the_pictures(people: Path) -> None:
    anna, bert = looked_at(people).embeddings
    assert float(anna[0] @ anna[1]) == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-6)
    assert np.allclose(anna @ bert.T, 0.0)


def one(folder: Path) -> None:
    put(folder / "anna/0.png", painted(1))
    put(folder / "anna/1.png", painted(1, variant=9))


def faceless(folder: Path) -> None:
    one(folder)
    put(folder / "bert/0.png", painted(2, kind="none"))


def mixed(folder: Path) -> None:
    one(folder)
    (folder / "bert").mkdir()
    shutil.copy(folder / "anna/0.png", folder / "bert/0.png")


def bare(folder: Path) -> None:
    (folder / "anna").mkdir()
    (folder / "0.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda _: None, "no_pictures", "no subfolder of it has a file"),
        (bare, "no_pictures", "no subfolder of it has a file"),
        (one, "one_identity", "one identity only"),
        (faceless, "one_identity", "1 of 2 identities can be used, and two are the least; left out: 1 no_face"),
        (mixed, "mixed_identities", "under two identities"),
    ],
    ids=["empty", "no subfolders", "one identity", "one with a face", "one picture of two people"],
)
def test_a_set_that_says_nothing_is_refused_with_the_reason(make, code: str, says: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match="cannot evaluate") as refused:
        looked_at(tmp_path)
    assert refused.value.code == code
    assert says in refused.value.message
    assert refused.value.exit_code == 2


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the folder") as refused:
        looked_at(tmp_path / ("x" * 300))
    assert refused.value.code == "folder_unreadable"
    assert os.strerror(36) in refused.value.message


def test_a_pack_without_an_embedder_ends_the_evaluation_instead_of_leaving_everything_out(people: Path) -> None:
    class Blind(PaintedEyes):
        def embed(self, frame: Frame, face: Face) -> Embedding:
            raise ModelError("cannot compare faces: the pack x has no embedder", code="no_embedder")

    with pytest.raises(ModelError, match="no embedder"):
        look_at_people(pictures_by_person(people), Blind(), LIMITS)
