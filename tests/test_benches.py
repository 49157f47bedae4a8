"""``scripts/bench``: its arithmetic, its table, its children and its ways out; never how fast this machine is."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edge_agent.config import CameraSection, CaptureSection, SessionSection
from edge_agent.types import Box, Face
from scripts.benches import __main__ as bench
from scripts.benches import capture, contenders, growth, idle, pipeline, sent, starts, upload
from scripts.benches.addon import as_addon
from scripts.benches.contenders import Contender, ContenderFailed, by_turns, contender
from scripts.benches.goals import Goal, table
from scripts.benches.relay import relay
from scripts.benches.sessions import Filmed
from scripts.benches.stage import Stage

MET = Goal("pipeline", "ours to theirs", 0.25, "x", 0.3, "10.00 ms against 40.00 ms")


@pytest.mark.parametrize(
    ("value", "limit", "met"), [(0.3, 0.3, True), (0.31, 0.3, False), (0.1, 0.3, True), (9.0, None, None)]
)
def test_a_goal_is_met_up_to_its_limit(value: float, limit: float | None, met: bool | None) -> None:
    goal = replace(MET, value=value, limit=limit)
    assert goal.met is met
    assert json.loads(json.dumps(goal.as_json()))["met"] is met
    assert set(goal.as_json()) == {"part", "what", "value", "unit", "limit", "detail", "met"}


def test_the_table_names_what_is_not_met() -> None:
    missed = Goal("idle", "share of one core", 3.42, "%", 3.0, "")
    shown = list(table([MET, missed, Goal("idle", "told", 1.0, "MB", None, "")]))
    assert [line for line in shown if line.startswith("--")] == ["-- pipeline", "-- idle"]
    assert any(line.split()[-5:] == ["0.25", "x", "0.30", "x", "yes"] for line in shown)
    assert any(line.split()[-5:] == ["3.4", "%", "3.0", "%", "NO"] for line in shown)
    assert shown[-1] == "1 of 2 met; not met: share of one core"


def test_the_ratios_are_of_the_medians_of_what_the_children_said() -> None:
    def child(name: str, **seconds: float) -> Contender:
        return cast(
            "Contender", SimpleNamespace(name=name, works=list(seconds), seconds={k: [v] for k, v in seconds.items()})
        )

    works = {"untracked": 0.012, "tracked": 0.006, "floor": 0.010, "tracked_floor": 0.004}
    ready = [
        *(child(name, **works) for name in pipeline.OURS),
        child(pipeline.THEIRS, get=0.048),
        child("YN", full=0.1),
    ]
    found = {goal.what: goal for goal in pipeline.goals(ready, "pipeline")}
    values = {what: (round(goal.value, 3), goal.limit) for what, goal in found.items()}
    assert values["pre-screen, det_500m + one MiniFASNet, to InsightFace 640x640"] == (0.25, 0.30)
    assert values["pack open, to the bare models"] == (1.2, 1.25)
    assert values["pack open, followed face, to its bare models"] == (1.5, None)
    assert values["pack open, followed face to a new one"] == (0.5, 0.5)
    assert values["pre-screen to YN, full"] == (0.12, None)
    assert "12.00 ms (12.00-12.00) against 48.00 ms" in found["the same at 640x640, to InsightFace 640x640"].detail


def test_a_start_is_held_against_the_median_of_the_first_contender() -> None:
    starter = starts.Starter("vision", lambda: starts.Start(0, 0, 0), 0.4)
    ours = [starts.Start(s, 100.0, 110.0) for s in (0.2, 0.3, 0.9)]
    time, memory = starts.goals(starter, ours, [starts.Start(1.0, 200.0, 210.0)])
    assert (round(time.value, 6), time.limit, time.met) == (0.3, 0.4, True)
    assert (memory.value, memory.limit) == (0.5, None)
    assert time.detail == "0.300 s (0.200-0.900), 3 starts; peak 110 MB"


@pytest.mark.parametrize(
    ("seconds", "frames", "beyond_ms"),
    [([1.10], 30.0, 100.0), ([1.5, 1.1, 1.2], 30.0, 200.0), ([2.0], 5.0, 0.0), ([2.0], 8.0, 750.0)],
)
def test_a_capture_may_take_the_window_or_k_assessed_frames(
    seconds: list[float], frames: float, beyond_ms: float
) -> None:
    filmed = [Filmed("id", taken_s, 0.03) for taken_s in seconds]
    goal = capture.goal("a pack", filmed, frames, SessionSection(capture_window_s=1.0, liveness_frames=5))
    assert "of it 30 ms until the request was answered" in goal.detail
    assert goal.value == pytest.approx(beyond_ms)
    assert goal.limit == pytest.approx(116.67, abs=0.01)


def test_growth_is_from_the_second_decile_to_the_last() -> None:
    seconds, memory = [0.5] + [0.01] * 9 + [0.01] * 80 + [0.011] * 10, [10.0] * 10 + [50.0] * 80 + [53.0] * 10
    grown, slower = growth.goals("frames", seconds, [float(v) for v in memory])
    assert (grown.value, grown.met, round(slower.value, 6), slower.met) == (3.0, True, 1.1, False)
    _, as_slow = growth.goals("frames", seconds, [1.0], control=[0.02] * 90 + [0.022] * 10)
    assert round(as_slow.value, 6) == 1.0 and "the bare models in between 1.10x" in as_slow.detail


def test_what_is_sent_is_the_median_beside_the_whole_picture() -> None:
    goal = sent.goal([30_000, 33_000, 60_000], 110_000)
    assert (round(goal.value, 6), goal.met) == (0.3, True)
    assert "33.0 KB (30.0-60.0), 3 verifications" in goal.detail


def test_the_relay_counts_one_direction_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:

        def serve() -> None:
            near, _ = service.accept()
            with near:
                while data := near.recv(100):
                    near.sendall(data * 2)

        threading.Thread(target=serve, daemon=True).start()
        with relay(service.getsockname()[1]) as counted:
            with socket.create_connection(("127.0.0.1", counted.port)) as client:
                client.settimeout(20)
                client.sendall(b"12345")
                client.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda: client.recv(100), b"")) == b"1234512345"
            assert counted.sent_bytes == 5


class Seeing:
    """A pipeline whose embedding is the mean colour, and whose face is the middle of any picture."""

    def measure(self, frame: Any) -> Any:
        height, width = frame.image.shape[:2]
        if width < 50:
            return SimpleNamespace(face=None)
        box = Box(width * 0.3, height * 0.3, width * 0.7, height * 0.7)
        return SimpleNamespace(face=Face(box, np.zeros((5, 2), np.float32), 0.9))

    def embed(self, frame: Any, face: Face) -> Any:
        del face
        mean = frame.image.reshape(-1, 3).mean(axis=0).astype(np.float32)
        return mean / np.linalg.norm(mean)


def test_an_upload_is_judged_by_what_the_matcher_makes_of_it() -> None:
    seeing = cast("Any", Seeing())

    def shot(identity: str, colour: tuple[int, int, int]) -> upload.Shot:
        image = np.full((360, 640, 3), colour, np.uint8)
        frame = SimpleNamespace(image=image)
        face, embedding = seeing.measure(frame).face, seeing.embed(frame, None)
        return upload.Shot(identity, image, face, embedding, (embedding,), 10_000)

    people = [shot("a", (200, 10, 10)), shot("b", (10, 10, 200))]
    found = upload.point(seeing, people, CaptureSection(margin=0.5, max_side_px=320, jpeg_quality=90))
    assert found.mean_score == pytest.approx(1.0, abs=1e-3) and found.mean_loss == pytest.approx(0.0, abs=1e-3)
    assert found.impostor_highest < 0.2 and found.lost == 0
    assert found.bytes_share == pytest.approx(found.median_bytes / 10_000, abs=1e-4)
    smaller = replace(found, side_px=160, median_bytes=1)
    shown = list(upload.lines([found, smaller]))
    assert [int(line.split()[1]) for line in shown[1:]] == [160, 320]


def test_the_curve_has_a_line_per_quality_and_one_per_other_margin(tmp_path: Path) -> None:
    points = [
        upload.Point(margin, side, quality, side / 1000, side * 10, 0.7, 0.5, 0.0, 0.0, 0.4, 0)
        for margin in upload.MARGINS
        for side in (240, 640)
        for quality in upload.QUALITIES
    ]
    path = tmp_path / "upload.svg"
    upload.draw(points, path)
    names = re.findall(r">(margin [0-9.]+, quality \d+)<", path.read_text())
    assert len(set(names)) == len(names) == len(upload.QUALITIES) + len(upload.MARGINS) - 1
    assert {p["side_px"] for p in upload.as_json(points)} == {240, 640}


def test_the_default_of_the_configuration_lies_on_the_grid() -> None:
    defaults = CaptureSection()
    assert defaults.margin in upload.MARGINS and defaults.jpeg_quality in upload.QUALITIES
    assert defaults.max_side_px in upload.SIDES_PX


def stage_in(folder: Path, frames: int = 3) -> Stage:
    np.save(folder / "frames.npy", np.arange(frames * 12, dtype=np.uint8).reshape(frames, 2, 2, 3))
    return cast("Stage", SimpleNamespace(folder=folder, frames=folder / "frames.npy", environment={"PATH": "/bin"}))


CHILD = """
import sys
sys.argv[0] = "contender.py"
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("contender", {body!r})
body = module_from_spec(spec); spec.loader.exec_module(body)
def echo(picture, terms):
    if terms.get("fails"):
        raise SystemExit("it has no model")
    print("a library prints this")
    return {{"first": lambda n: float(picture(n)[0, 0, 0]), "second": lambda n: 0.5}}
body.KINDS["echo"] = echo
body.main()
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Contenders are of a kind that needs no model: its first work gives the first pixel of the frame as its time."""
    child = tmp_path / "child.py"
    child.write_text(CHILD.format(body=str(contenders.BODY)))
    monkeypatch.setattr(contenders, "BODY", child)
    return stage_in(tmp_path)


def test_contenders_work_by_turns_on_the_same_frames(echo: Stage) -> None:
    with contextlib.ExitStack() as children:
        both = [children.enter_context(contender(echo, name, "echo", one_thread=name == "b")) for name in "ab"]
        by_turns(both, 4)
        now_mb, peak_mb = both[0].memory_mb()
        assert peak_mb >= now_mb > 1
    for child in both:
        assert child.works == ("first", "second")
        # frames 0 1 2 1 | 0 1 2 …: of the numbers 2-10 the first five warm up, 7-10 count
        assert child.seconds["first"] == [12.0, 0.0, 12.0, 24.0]
        assert child.process.poll() is not None


def test_a_contender_that_cannot_begin_says_why(echo: Stage) -> None:
    with (
        pytest.raises(ContenderFailed, match="other: it has no model"),
        contender(echo, "other", "echo", one_thread=False, python=sys.executable, fails=True),
    ):
        pass


def test_minifasnet_behind_the_add_on_gives_the_probability_of_its_live_class(assets: Path) -> None:
    import onnxruntime

    file = assets / "models/minifas/2.7_80x80_MiniFASNetV2.onnx"
    bare, wrapped = (onnxruntime.InferenceSession(m) for m in (file.read_bytes(), as_addon(file.read_bytes())))
    rgb = np.random.default_rng(1).random((1, 3, 80, 80), dtype=np.float32)
    (logits,) = bare.run(None, {"input": rgb[:, ::-1] * 255.0})
    live = float(np.exp(logits[0, 1]) / np.exp(logits[0]).sum())
    assert wrapped.run(None, {"addon_in": rgb})[0] == pytest.approx([live], rel=1e-4)


@pytest.mark.parametrize(
    "arguments", [["everything"], ["--rounds", "0"], ["--frames", "1"], ["--only", "all"], ["--growth-frames", "9"]]
)
def test_a_wrong_command_line_is_refused_before_anything_is_measured(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        bench.main(arguments)
    assert left.value.code == 2


def test_without_the_assets_or_with_a_plot_of_another_kind_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "DETECTOR", tmp_path / "none.onnx")
    assert bench.main(["idle"]) == 3
    assert "EDGE_AGENT_ASSETS" in capsys.readouterr().err
    monkeypatch.setattr(bench, "DETECTOR", Path(__file__))
    assert bench.main(["idle", "--plot", "table.pdf"]) == 2
    assert "its kind is not known" in capsys.readouterr().err


def test_parts_are_measured_in_their_order_and_printed_as_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "DETECTOR", Path(__file__))
    monkeypatch.setattr(bench, "Stage", lambda folder: folder)
    missed = replace(MET, part="idle", value=0.6)
    monkeypatch.setattr(idle, "measure", lambda *_: [missed])
    monkeypatch.setattr(capture, "measure", lambda *_: [replace(MET, part="capture")])
    plot = tmp_path / "table.svg"
    assert bench.main(["--only", "idle", "--only", "capture", "--json", "--plot", str(plot)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [goal["part"] for goal in found["goals"]] == ["idle", "capture"]
    assert found["machine"]["cores"] > 0 and "load_after" in found["machine"]
    assert plot.read_text().count("<rect") == 3
    assert bench.main(["idle", "--check"]) == 1
    assert "0 of 1 met; not met: ours to theirs" in capsys.readouterr().out
    assert bench.main(["capture", "--check"]) == 0


def test_a_version_that_cannot_watch_its_camera_is_not_asked_to() -> None:
    settings = idle.watch_settings()
    assert settings is None or set(settings) <= set(CameraSection.model_fields)
