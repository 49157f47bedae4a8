"""Presentations of stills, clips and cameras: what the attack detection said, and the rates that follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.config import GateSection, SessionSection
from edge_agent.errors import InputError
from edge_agent.evaluate.lines import pad_lines
from edge_agent.evaluate.pad import Group, PadReport, files_by_group, judge, report, report_json
from edge_agent.evaluate.presentations import Answer, Presentation, Rules, margin, present
from edge_agent.types import Frame, Image
from tests.evaluate.painted import PaintedEyes, painted, put
from tests.faces import scores

RULES = Rules(GateSection(), SessionSection())


def shown(images: list[Image], fps: float = 10.0) -> Presentation:
    """Frames as a camera gives them, from 100 s on."""

    def frames() -> Iterator[Frame]:
        for i, image in enumerate(images):
            yield Frame(image, 100.0 + i / fps, i)

    return present("x", frames(), PaintedEyes(), RULES, started_at_s=99.0)


LIVE, SPOOF, FAR, NOBODY = painted(live=0.9), painted(live=0.2), painted(kind="far"), painted(kind="none")


@pytest.mark.parametrize(
    ("images", "answer", "accepted", "score"),
    [
        ([LIVE] * 30, Answer.LIVE, True, 0.9),
        ([SPOOF] * 30, Answer.ATTACK, False, 0.2),
        ([SPOOF] * 4 + [LIVE] * 3, Answer.ATTACK, False, 0.2),
        ([LIVE] * 5, Answer.NONE, False, None),
        ([FAR] * 30, Answer.NONE, False, None),
        ([NOBODY] * 30, Answer.NONE, False, None),
        ([SPOOF] + [FAR] * 29, Answer.ATTACK, False, 0.2),
    ],
    ids=["live", "spoof", "spoof, then too short", "too short", "too far", "nobody", "seen for a moment"],
)
def test_a_session_answers_live_attack_or_not_at_all(
    images: list[Image], answer: Answer, accepted: bool, score: float | None
) -> None:
    found = shown(images)
    assert (found.answer, found.accepted) == (answer, accepted)
    assert [s.score for s in found.scores] == ([] if score is None else [score, score])
    assert accepted == (not found.reasons)


def test_of_a_session_the_vote_that_came_nearest_is_kept() -> None:
    """Five frames or more vote: the median of 0.2 0.2 0.4 0.4 0.4 is the highest that is reached."""
    found = shown([painted(live=score) for score in (0.2, 0.2, 0.4, 0.4, 0.4, *[0.1] * 10)])
    assert found.answer is Answer.ATTACK
    assert [s.score for s in found.scores] == [0.4, 0.4]
    assert margin(found.scores) == pytest.approx(-0.1)
    assert found.values["inter_eye"] == 100.0
    assert margin(()) == margin(scores(None, 0.9)) == -1.0


@pytest.mark.parametrize(("first", "then", "nearest"), [(4, 1, 0.4), (5, 2, 0.1), (5, 5, 0.4)])
def test_two_people_do_not_share_a_vote_and_a_short_one_counts_only_where_there_is_no_other(
    first: int, then: int, nearest: float
) -> None:
    found = shown([painted(1, live=0.1)] * first + [painted(2, live=0.4)] * then)
    assert [s.score for s in found.scores] == [nearest, nearest]


def test_frames_from_before_the_presentation_do_not_count_and_none_at_all_is_an_error() -> None:
    before = [Frame(SPOOF, 90.0 + i / 10, i) for i in range(30)]
    after = [Frame(FAR, 100.0, 31)]
    assert present("x", [*before, *after], PaintedEyes(), RULES, started_at_s=99.0).answer is Answer.NONE
    for frames in (before, []):
        with pytest.raises(InputError, match="no frame"):
            present("x", frames, PaintedEyes(), RULES, started_at_s=99.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(5):
        put(tmp_path / f"bona_fide/{i}.png", painted(live=0.9 if i else 0.3, variant=i))
    put(tmp_path / "bona_fide/far.png", painted(live=0.9, kind="far"))
    put(tmp_path / "bona_fide/nobody.png", painted(kind="none"))
    (tmp_path / "bona_fide/notes.txt").write_text("no picture")
    for i in range(20):
        put(tmp_path / f"print/{i}.png", painted(live=0.1, variant=i))
    for i, live in enumerate((0.9, 0.1)):
        put(tmp_path / f"mask/{i}.png", painted(live=live))
    put(tmp_path / "doll/0.png", painted(kind="none"))
    write_clip(tmp_path / "tablet/0.avi", [painted(live=0.1)] * 15)
    (tmp_path / "tablet/1.avi").write_bytes(b"no clip")
    return tmp_path


def write_clip(path: Path, images: list[Image]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (48, 48))
    for image in images:
        writer.write(image)
    writer.release()


@pytest.fixture
def found(folder: Path) -> PadReport:
    return judge(files_by_group(folder), PaintedEyes(), RULES)


def test_rates_are_of_the_answered_and_the_worst_species_comes_first(found: PadReport) -> None:
    assert [group.name for group in found.attacks] == ["mask", "tablet", "print", "doll"]
    mask, tablet, print_, doll = (group.called_live for group in found.attacks)
    assert (mask.errors, mask.trials) == (1, 2)
    assert (tablet.errors, tablet.trials) == (0, 1)
    assert tablet.high == pytest.approx(0.975)
    assert (print_.errors, print_.trials) == (0, 20)
    assert print_.high == pytest.approx(0.16843, abs=1e-5)
    assert (doll.trials, doll.rate) == (0, None)
    assert found.worst is not None
    assert found.worst.name == "mask"


def test_a_bona_fide_face_that_is_too_far_is_answered_but_not_accepted(found: PadReport) -> None:
    bona_fide = found.bona_fide
    assert (bona_fide.called_attack.errors, bona_fide.called_attack.trials) == (1, 6)
    assert (bona_fide.no_response.errors, bona_fide.no_response.trials) == (1, 7)
    assert (bona_fide.accepted.errors, bona_fide.accepted.trials) == (4, 7)
    assert [item.code for item in bona_fide.unusable] == ["not_an_image"]


def test_the_report_is_honest_about_few_presentations(found: PadReport) -> None:
    text = "\n".join(pad_lines(found))
    assert "0 of 20: <= 16.8 %" in text
    assert "1 of 2: 50.0 % (1.26 % - 98.7 %)" in text
    assert "worst species: mask; 1 of 2 means APCER <= 98.7 %" in text
    assert "none measured" in text
    assert text.index("mask") < text.index("tablet") < text.index("print") < text.index("doll")
    assert "unusable, not counted: " in text
    only_print = report([found.bona_fide, next(g for g in found.attacks if g.name == "print")])
    assert "0 of 20 means APCER <= 16.8 %" in "\n".join(pad_lines(only_print))


def test_nothing_answered_is_no_good_news() -> None:
    found = report([Group("doll", ())])
    assert found.worst is None
    assert "APCER: not measured" in "\n".join(pad_lines(found))
    assert report_json(found)["worst"] is None


@pytest.mark.parametrize(
    ("folders", "code"),
    [
        ([], "no_bona_fide"),
        (["print/0.png"], "no_bona_fide"),
        (["bona_fide/0.png"], "no_attacks"),
        (["bona_fide/0.png", "print/"], "no_pictures"),
    ],
)
def test_a_folder_of_another_shape_is_refused(folders: list[str], code: str, tmp_path: Path) -> None:
    for name in folders:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            put(tmp_path / name, LIVE)
    with pytest.raises(InputError, match="cannot evaluate") as refused:
        files_by_group(tmp_path)
    assert refused.value.code == code


def test_files_none_of_which_can_be_used_are_refused(tmp_path: Path) -> None:
    for name in ("bona_fide", "print"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(np.zeros(100, np.uint8).tobytes())
    with pytest.raises(InputError, match="none of the files"):
        judge(files_by_group(tmp_path), PaintedEyes(), RULES)
