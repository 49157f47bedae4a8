"""Matching real faces: the rule on top of the embeddings, and the pack ``open`` on the shared pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import builtin_dir
from edge_agent.sandbox.face_matcher import FaceMatcher, open_face_matcher, similarity
from edge_agent.sandbox.matcher import Comparison
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import Embedding
from tests.sandbox.conftest import Caller


class Faces:
    """Stands in for the models: a picture's bytes are an angle in degrees, or ``none``."""

    def __init__(self) -> None:
        self.embedded: list[bytes] = []

    def __call__(self, picture: bytes) -> Embedding | None:
        self.embedded.append(picture)
        if picture == b"none":
            return None
        angle = np.deg2rad(float(picture))
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (b"0", b"0", Comparison("match", 100.0)),
        (b"0", b"59.9", Comparison("match", 80.06)),
        (b"0", b"60.1", Comparison("mismatch", 79.92)),
        (b"0", b"90", Comparison("mismatch", 53.33)),
        (b"0", b"180", Comparison("mismatch", 0.0)),
        (b"0", b"none", Comparison("no_face", None)),
        (b"none", b"0", Comparison("no_face", None)),
    ],
)
def test_the_cosine_decides(source: bytes, target: bytes, expected: Comparison):
    assert FaceMatcher(Faces(), threshold=0.5).compare("no-bob", source, target) == expected


def test_a_source_is_embedded_once():
    faces = Faces()
    matcher = FaceMatcher(faces, threshold=0.5)
    assert matcher.usable(b"0")
    assert not matcher.usable(b"none")
    matcher.compare("alice", b"0", b"10")
    matcher.compare("alice", b"0", b"20")
    assert faces.embedded == [b"0", b"none", b"10", b"20"]


def test_it_remembers_a_bounded_number_of_pictures():
    faces = Faces()
    matcher = FaceMatcher(faces, threshold=0.5)
    for angle in range(200):
        matcher.compare("alice", b"0", b"%d" % angle)
    assert faces.embedded.count(b"0") == 1, "what is used stays"
    assert len(matcher._known) <= 64


cosines = st.floats(-1, 1)


@given(cosines, cosines, st.floats(0, 0.99))
def test_similarity_rises_with_the_cosine_from_0_to_100(a: float, b: float, threshold: float):
    low, high = similarity(min(a, b), threshold), similarity(max(a, b), threshold)
    assert 0 <= low <= high <= 100
    assert similarity(threshold, threshold) == 80.0


def test_a_pack_without_an_embedder_cannot_match(tmp_path: Path):
    lines = (builtin_dir() / "open.yaml").read_text().splitlines()
    pack = tmp_path / "blind.yaml"
    pack.write_text("\n".join(_without_embedder(lines)))
    with pytest.raises(ModelError, match="it has no embedder"):
        open_face_matcher(str(pack), tmp_path)


def _without_embedder(lines: list[str]) -> Iterator[str]:
    """The manifest without its embedder and without that model's file."""
    import yaml

    manifest = yaml.safe_load("\n".join(lines))
    del manifest["files"][manifest.pop("embedder")["file"]]
    yield yaml.safe_dump(manifest)


@pytest.fixture(scope="module")
def matcher(open_pack_dir: Path) -> FaceMatcher:
    return open_face_matcher("open", open_pack_dir)


@pytest.mark.packs
@pytest.mark.assets
def test_the_pack_open_tells_people_apart_over_the_wire(matcher: FaceMatcher, assets: Path):
    pictures = {name: (assets / "images" / f"id_{name}.jpg").read_bytes() for name in ("obama_1", "obama_2", "biden_1")}
    with SandboxServer(matcher=matcher) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            caller.upload(pictures["obama_1"], "obama", "upload")
            answers = [_judged(caller, pictures[name]) for name in ("obama_2", "biden_1", "obama_1")]
            assert caller.upload(b"not a picture", "obama").status_code == 200
            assert caller.match("obama").status_code == 422
    assert [a["match"] for a in answers] == [True, False, True]
    assert answers[1]["similarity"] < 80 <= answers[0]["similarity"] < answers[2]["similarity"]
    assert [j.outcome for j in server.sandbox.state.saved.judgements] == ["match", "mismatch", "match", "no_face"]
    assert server.sandbox.state.saved.judgements[1].target_sha256 == hashlib.sha256(pictures["biden_1"]).hexdigest()


def _judged(caller: Caller, picture: bytes) -> dict[str, float]:
    caller.upload(picture, "obama")
    answer: dict[str, float] = caller.match("obama").json()
    return answer


@pytest.mark.packs
@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0 half a JPEG"])
def test_bytes_without_a_face_are_not_enrolled(matcher: FaceMatcher, content: bytes):
    assert not matcher.usable(content)
    assert matcher.compare("alice", content, content) == Comparison("no_face", None)
