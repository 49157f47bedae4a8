"""``edge-agent bench pipeline``: that it runs, what it prints, and its arithmetic; never how fast this machine is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

from edge_agent.bench.board import Board, board, temperature_c
from edge_agent.bench.charts import Bar, Curve, bars, check_plot, curves, pipeline_bars
from edge_agent.bench.claim import Depth
from edge_agent.bench.figures import spread
from edge_agent.bench.lines import lines
from edge_agent.bench.pipeline import Plan, Report, measure
from edge_agent.bench.scenes import MAIN, Scene, frames
from edge_agent.bench.start import Start, start_once
from edge_agent.bench.turns import Cost, Samples
from edge_agent.bench.watched import WatchedPipeline
from edge_agent.cli import cli
from edge_agent.config import ModelsSection
from edge_agent.errors import ConfigurationError, EnvironmentFault, InputError
from edge_agent.evaluate.canvas import GREEN, RED
from edge_agent.evaluate.vector import sheet_for
from edge_agent.packs.manifest import load_pack
from edge_agent.picture import read_picture
from edge_agent.types import Image
from tests.test_bench import flat

DOCS = Path(__file__).resolve().parents[1] / "docs"
TINY = Plan(frames=2, scene_frames=1, starts=1, queue_rows=(10, 20), claims=2)
STARTED = Start(0.25, 90.0, 110.0)
one, two, four = (spread([n / 1000]) for n in (1, 2, 4))


def report(**changes: Any) -> Report:
    found = Report(
        before=Board("a board", 4, "3.11.2", "1.23.0", 0.5, 51.0),
        after=Board("a board", 4, "3.11.2", "1.23.0", 0.9, 64.4),
        pack="open",
        providers=("CPUExecutionProvider",),
        threads=1,
        untracked=four,
        tracked=one,
        floor=two,
        tracked_floor=one,
        stages=dict.fromkeys(("detect", "quality", "liveness", "other", "read", "encode"), one),
        models={"detector.onnx": two},
        scenes=(Cost(MAIN, 1, True, four, one), Cost(Scene(640, 480, 4), 4, False, two, two)),
        queue=(Depth(10, two, one, one, 0.25, 60.0),),
        starts=(STARTED, replace(STARTED, resident_mb=95.0)),
    )
    return replace(found, **changes)


def test_the_json_holds_the_documented_keys() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    section = text.partition("## `edge-agent bench pipeline`")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_0-9.\[\]]+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    spread_keys = {"median_ms", "p10_ms", "p90_ms", "worst_ms", "samples"}
    paths = flat(json.loads(json.dumps(report().as_json(), allow_nan=False)))
    assert {p.rpartition(".")[0] if p.rpartition(".")[2] in spread_keys else p for p in paths} == documented


def test_the_ratios_are_of_the_medians_and_the_table_shows_them_beside_their_goals() -> None:
    found = report().as_json()
    assert (found["ratio_floor"], found["ratio_tracked_floor"], found["ratio_tracked"]) == (2.0, 1.0, 0.25)
    assert (found["start"]["median_ms"], found["resident_mb"], found["peak_mb"]) == (250.0, 95.0, 110.0)
    table = "\n".join(lines(report()))
    for part in (
        "a board, 4 cores, load 0.5, 51 to 64 C",
        "2.00; goal 1.25",
        "tracked to untracked      0.25; goal 0.50",
        "read                      1.000 ms (1.000-1.000, worst 1.0) (not in its time)",
        "640x480  4 face(s)",
        "(refused before liveness)",
        "resident 95 MB, peak 110 MB",
    ):
        assert part in table
    assert " C\n" not in "\n".join(lines(report(before=replace(report().before, temperature_c=None))))


def test_the_first_samples_warm_up_and_do_not_count() -> None:
    samples = Samples()
    for seconds in (9, 9, 9, 9, 9, 0.001, 0.003):
        samples.add("stage detect", seconds)
    assert samples.named("stage ")["detect"] == spread([0.001, 0.003])
    assert samples.named("model ") == {}


@pytest.mark.parametrize(
    ("zones", "expected"), [({}, None), ({"0": "48312", "1": "51000\n"}, 51.0), ({"0": "", "1": "47000"}, 47.0)]
)
def test_the_heat_is_that_of_the_hottest_zone_that_can_be_read(
    tmp_path: Path, zones: dict[str, str], expected: float | None
) -> None:
    for number, text in zones.items():
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}/temp").write_text(text)
    assert temperature_c(tmp_path) == expected
    assert board().cores > 0 and board().onnxruntime != "unknown"


@pytest.mark.parametrize("faces", [0, 1, 4])
def test_frames_of_a_scene_have_its_size_and_no_two_are_equal(faces: int) -> None:
    person: Image = np.random.default_rng(1).integers(0, 255, (120, 90, 3), dtype=np.uint8)
    frame = frames(Scene(320, 240, faces), person)
    first, second = frame(0), frame(1)
    assert first.image.shape == second.image.shape == (240, 320, 3)
    assert second.captured_at_s > first.captured_at_s
    assert (first.image != second.image).any()


@pytest.fixture(scope="module")
def pipeline(open_pack_dir: Path) -> WatchedPipeline:
    return WatchedPipeline(load_pack("open"), ModelsSection(dir=open_pack_dir))


def test_a_real_run_asks_every_model_and_says_where_the_time_went(
    pipeline: WatchedPipeline, assets: Path, tmp_path: Path
) -> None:
    picture = read_picture(assets / "images/frame_1280x720_obama.jpg")
    shown: list[Path] = []

    def start(file: Path) -> Start:
        shown.append(file)
        return STARTED

    found = measure(tmp_path, pipeline, picture, TINY, start=start, threads=1)
    assert found.untracked.samples == found.tracked.samples == found.floor.samples == TINY.frames
    assert set(found.models) == {"centerface.onnx", "fr_liveness.onnx"}
    assert [(c.scene.faces, c.found, c.liveness) for c in found.scenes] == [
        (1, 1, True), (0, 0, False), (1, 1, True), (4, 4, False), (1, 1, True)]  # fmt: skip
    assert [depth.rows for depth in found.queue] == [10, 20]
    assert len(shown) == TINY.starts + 1 and read_picture(shown[0]).shape == picture.shape
    assert all(session.inputs is None for session in pipeline.sessions.values())


def test_a_picture_without_a_face_or_with_a_bad_one_is_refused(
    pipeline: WatchedPipeline, assets: Path, tmp_path: Path
) -> None:
    nobody = np.full((240, 320, 3), 90, np.uint8)
    blurred = read_picture(assets / "images/q_defocus_obama.jpg")
    for picture, why in ((nobody, "shows no face"), (blurred, "the gate refuses the picture .too_blurry")):
        with pytest.raises(InputError, match=why):
            measure(tmp_path, pipeline, picture, TINY, start=lambda _: STARTED, threads=1)


def test_a_start_is_a_process_of_its_own(open_pack_dir: Path, assets: Path) -> None:
    picture = assets / "images/frame_1280x720_obama.jpg"
    started = start_once(ModelsSection(dir=open_pack_dir), picture)
    assert started.seconds > 0 and started.peak_mb >= started.resident_mb > 20
    with pytest.raises(EnvironmentFault, match=r"cannot measure the start: .*nowhere"):
        start_once(ModelsSection(dir=open_pack_dir / "nowhere"), picture)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--frames", "1"], 2, "--frames"),
        (["--plot", "bars.pdf"], 2, "its kind is not known"),
        (["--models-dir", "nowhere", "--picture", "none.png"], 3, "edge-agent models fetch open --dir nowhere"),
        (["--pack", "better"], 3, "edge-agent models list"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_AGENT_CONFIG", str(tmp_path / "none.yaml"))
    result = CliRunner().invoke(cli, ["bench", "pipeline", *arguments])
    assert said in f"{result.stderr}{result.exception!r}{getattr(result.exception, 'hint', '')}"
    assert getattr(result.exception, "exit_code", None) == code or result.exit_code == code


@pytest.mark.parametrize("name", ["bars.svg", "bars.PNG"])
def test_a_diagram_is_an_svg_or_a_png_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_plot(path)
    pipeline_bars(report(), path).write(path)
    if name.endswith("svg"):
        drawn = ET.parse(path).getroot()
        texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert "640x480, 4 face(s)" in texts and texts.count("4.00 ms") == 2
    else:
        assert read_picture(path).shape[1] == 900
    with pytest.raises(EnvironmentFault, match="cannot write the diagram"):
        pipeline_bars(report(), path).write(tmp_path / "none" / name)


def test_a_bar_beyond_its_limit_is_red_and_names_are_escaped(tmp_path: Path) -> None:
    assert (Bar("a", 1.0, limit=1.0).colour, Bar("a", 1.1, limit=1.0).colour) == (GREEN, RED)
    path = tmp_path / "bars.svg"
    bars("<a & b>", [Bar("heading"), Bar("a", 1.1, "1.1 x", 1.0)], path).write(path)
    drawn = path.read_text()
    assert "&lt;a &amp; b&gt;" in drawn and "#c8323c" in drawn


def test_a_curve_reaches_from_one_corner_to_the_other(tmp_path: Path) -> None:
    path = tmp_path / "curve.svg"
    curves("title", "x", "y", [Curve("a", ((0.0, 0.0), (10.0, 1.0)))], path).write(path)
    assert 'points="70.0,420.0 700.0,50.0" fill="none" stroke="#145ab4"' in path.read_text()
    flat_line = curves("title", "x", "y", [Curve("a", ((1.0, 1.0),))], path)
    flat_line.write(path)
    assert 'cx="385.0" cy="235.0"' in path.read_text()


def test_a_plot_of_another_kind_is_refused() -> None:
    check_plot(None)
    with pytest.raises(ConfigurationError, match=r"cannot draw a.jpg"):
        check_plot(Path("a.jpg"))
    assert sheet_for(Path("a.svg"), 10, 10) is not None
