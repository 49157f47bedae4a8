"""The guided measurement: what is asked, what is filmed, what is written, what is proposed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edge_agent.camera.port import Camera
from edge_agent.cli.calibrate import calibrate
from edge_agent.config import GateSection, SessionSection
from edge_agent.errors import AgentError, CameraError
from edge_agent.evaluate.calibration import Collected, Filming, Plan, attack_species, guide
from edge_agent.evaluate.pad import Group, report
from edge_agent.evaluate.presentations import Answer, Presentation, Rules
from edge_agent.evaluate.proposals import proposals, unseparated
from edge_agent.outbox.database import StateLock
from edge_agent.types import Frame, Image
from tests.evaluate.contract import documented, keys
from tests.evaluate.painted import PaintedEyes, painted, put
from tests.faces import scores
from tests.test_screen import person

LIMITS = GateSection()


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Stage(Camera):
    """A camera whose reads take a tenth of a second of a made-up clock; each opening of ``read`` shows what is on."""

    description = "stage"
    size = (48, 48)

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.on: Image | CameraError = painted(live=0.9)
        self.index = 0
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def read(self, timeout_s: float) -> Frame:
        self.clock.now_s += min(timeout_s, 0.1)
        if isinstance(self.on, CameraError):
            raise self.on
        self.index += 1
        return Frame(self.on, self.clock.now_s, self.index)


@pytest.fixture
def stage() -> Stage:
    return Stage(Clock())


def filming(stage: Stage, hints: list[object] | None = None) -> Filming:
    rules = Rules(LIMITS, SessionSection())
    heard = hints if hints is not None else []
    return Filming(stage, PaintedEyes(), rules, lasts_s=4.0, clock=stage.clock, on_hint=heard.append)


@pytest.mark.parametrize(
    ("on", "answer", "within_s"),
    [(painted(live=0.9), Answer.LIVE, (1.0, 1.5)), (painted(live=0.1), Answer.ATTACK, (3.9, 4.2))],
    ids=["live", "attack"],
)
def test_a_presentation_lasts_until_it_is_accepted_or_the_time_is_over(
    on: Image, answer: Answer, within_s: tuple[float, float], stage: Stage
) -> None:
    stage.on = on
    hints: list[object] = []
    found = filming(stage, hints)("print 1")
    assert found.answer is answer
    assert within_s[0] <= stage.clock.now_s - 100.0 <= within_s[1]
    assert hints


def test_a_camera_that_stays_silent_or_goes_is_an_error_and_never_a_presentation(stage: Stage) -> None:
    for error, says in (
        (CameraError("no fresh frame", code="camera_stalled"), "gave no frame within 4 s"),
        (CameraError("it is unplugged"), "unplugged"),
    ):
        stage.on = error
        with pytest.raises(CameraError, match=says):
            filming(stage)("print 1")


def presentation(name: str, score: float = 0.9, **values: float) -> Presentation:
    answer = Answer.LIVE if score >= 0.5 else Answer.ATTACK
    return Presentation(name, answer, answer is Answer.LIVE, (), scores(score, 0.95), 10, values)


@pytest.mark.parametrize(
    ("answers", "counts", "discarded", "complete"),
    [
        ("||||", {"bona_fide": 2, "print": 1, "mask": 1}, 0, True),
        ("||s|", {"bona_fide": 2, "print": 0, "mask": 1}, 0, False),
        ("||q", {"bona_fide": 2, "print": 0}, 0, False),
        ("|", {"bona_fide": 1}, 0, False),
        ("|r|||x|", {"bona_fide": 2, "print": 1, "mask": 1}, 1, True),
        ("r||||", {"bona_fide": 2, "print": 1, "mask": 1}, 0, True),
    ],
    ids=["all", "skip", "quit", "stdin ends", "take back", "nothing to take back"],
)
def test_the_technician_is_led_through_the_plan(
    answers: str, counts: dict[str, int], discarded: int, complete: bool
) -> None:
    keys: Iterator[str] = iter(answers)
    collected, said = Collected(), list[str]()

    def ask(prompt: str) -> str | None:
        said.append(prompt)
        key = next(keys, None)
        return "" if key == "|" else key

    guide(Plan(2, ("print", "mask"), 1), ask, presentation, said.append, collected)
    assert {kind: len(done) for kind, done in collected.presented.items()} == counts
    assert (collected.discarded, collected.complete) == (discarded, complete)
    assert said[0].startswith("bona fide 1 of 2: step in front of the camera")


def test_an_attack_needs_a_name_of_its_own() -> None:
    assert attack_species(()) == ("print", "screen")
    assert attack_species(("mask", "mask", "doll")) == ("mask", "doll")
    for name in ("bona_fide", " ", "a\nb"):
        with pytest.raises(AgentError, match="no name of a species"):
            attack_species((name,))


def test_a_higher_threshold_is_proposed_where_attacks_passed_and_says_what_it_costs() -> None:
    bona_fide = Group("bona_fide", tuple(presentation("b", score) for score in (0.95, 0.7, 0.9, 0.4)))
    found = proposals(report([bona_fide, Group("print", (presentation("p", 0.72), presentation("p", 0.1)))]), LIMITS)
    assert [(p.key, p.current, p.proposed) for p in found] == [("liveness.first.threshold", 0.5, 0.73)]
    assert (found[0].attacks_accepted, found[0].bona_fide_refused) == ((1, 0), (0, 1))


def test_where_no_threshold_helps_the_report_says_so_instead_of_proposing_one() -> None:
    bona_fide = Group("bona_fide", tuple(presentation("b", score) for score in (0.95, 0.7, 0.9)))
    found = report([bona_fide, Group("print", (presentation("p", 0.92),))])
    assert proposals(found, LIMITS) == []
    assert unseparated(found)
    assert not unseparated(report([bona_fide, Group("print", (presentation("p", 0.72),))]))
    assert not unseparated(report([bona_fide, Group("print", (presentation("p", 0.1),))]))


@pytest.mark.parametrize("attacks", [(), (0.1, 0.2)], ids=["none presented", "none accepted"])
def test_a_threshold_is_never_proposed_lower(attacks: tuple[float, ...]) -> None:
    bona_fide = Group("bona_fide", tuple(presentation("b", 0.4) for _ in range(20)))
    found = report([bona_fide, Group("print", tuple(presentation("p", score) for score in attacks))])
    assert proposals(found, LIMITS) == []


@pytest.mark.parametrize(
    ("measure", "values", "expected"),
    [
        ("luminance", [0.15] * 5 + [0.5] * 15, ("gate.min_luminance", 0.2, 0.15, (5, 0))),
        ("luminance", [0.9] * 5 + [0.5] * 15, ("gate.max_luminance", 0.8, 0.9, (5, 0))),
        ("inter_eye", [50.0] * 12, ("gate.min_inter_eye_px", 60.0, 50.0, (12, 0))),
        ("luminance", [0.15] * 2 + [0.5] * 18, None),
        ("luminance", [0.15] * 9, None),
        ("yaw", [90.0] * 20, None),
    ],
    ids=["dark", "bright", "far", "a tenth", "too few", "for people to mend"],
)
def test_a_limit_is_called_in_question_where_many_bona_fide_miss_it(
    measure: str, values: list[float], expected: tuple[object, ...] | None
) -> None:
    group = Group("bona_fide", tuple(presentation("b", **{measure: value}) for value in values))
    found = [(p.key, p.current, p.proposed, p.bona_fide_refused) for p in proposals(report([group]), LIMITS)]
    assert found == ([] if expected is None else [expected])


# -- the command


CONFIG = """
terminal_id: pos-0001
state_dir: {state}
camera: {{source: replay, path: {state}}}
cypherface:
  base_url: https://staging.cypherface.com/
  merchant_id: 0123456789abcdef01234567
  api_key: {{env: CYPHERFACE_KEY}}
  upload_hosts: [uploads.example]
outbox: {{key: {{env: OUTBOX_KEY}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


@pytest.fixture
def run(config: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command with the stage for a camera, painted pictures for models, and these answers on stdin."""
    monkeypatch.setattr("edge_agent.camera.open_camera", lambda _settings: stage)
    monkeypatch.setattr("edge_agent.cli.calibrate.open_models", lambda *_: PaintedEyes())
    monkeypatch.setattr("edge_agent.cli.calibrate.monotonic", stage.clock)
    plan = ["--bona-fide", "2", "--per-attack", "1", "--attack", "print"]
    out = ["--out", str(config.parent / "report.json")]
    return lambda answers, *more: CliRunner().invoke(
        calibrate, ["--config", str(config), *plan, *out, *more], input=answers
    )


def test_a_calibration_writes_a_private_report_and_changes_nothing(
    run: Callable[..., Result], config: Path, stage: Stage
) -> None:
    before = config.read_bytes()
    done = run("\n\n\n")
    assert done.exit_code == 0, done.output
    record, text = config.parent / "report.json", config.parent / "report.txt"
    assert [file.stat().st_mode & 0o777 for file in (record, text)] == [0o600, 0o600]
    body: dict[str, Any] = json.loads(record.read_text())
    assert (body["terminal_id"], body["camera"], body["complete"]) == ("pos-0001", "stage", True)
    assert body["worst"] == "print"
    assert body["attacks"][0]["apcer"]["rate"] == 1.0
    assert body["bona_fide"]["bpcer"]["errors"] == 0
    assert (body["unseparated"], body["proposals"]) == (True, [])
    assert "nothing was changed" in text.read_text()
    assert "change one of the three" in text.read_text()
    assert done.stdout == text.read_text()
    assert "bona fide 2 of 2" in done.stderr
    assert config.read_bytes() == before
    assert list((config.parent / "state").iterdir()) == []
    assert stage.closed == 1


def test_the_report_holds_the_documented_keys(
    run: Callable[..., Result], config: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(prompt: str) -> str:
        stage.on = painted(live=0.6 if prompt.startswith("print") else 0.9)
        return ""

    monkeypatch.setattr("edge_agent.cli.calibrate._ask", ask)
    body = json.loads(run("", "--json").stdout)
    assert [(p["key"], p["proposed"]) for p in body["proposals"]] == [("liveness.first.threshold", 0.61)]
    ours = {key for key in documented("calibrate") if not key.startswith("bona_fide_values")}
    theirs = documented("evaluate pad") - {"plot"}
    nested = ("gate", "session", "bona_fide", "attacks")
    assert {key.removesuffix("[]") for key in keys(body) if not key.startswith(nested)} == {
        key.removesuffix("[]") for key in ours | theirs if not key.startswith(nested)
    }
    assert body.keys() >= {*nested, "bona_fide_values"}
    assert {tuple(values) for values in body["bona_fide_values"].values()} == {("p5", "median", "p95")}


def test_a_report_holds_neither_pixels_nor_an_embedding(run: Callable[..., Result], config: Path) -> None:
    done = run("\n\n\n", "--json")
    assert json.loads(done.stdout) == json.loads((config.parent / "report.json").read_text())

    def longest(value: object) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if isinstance(value, list):
            numbers = len(value) if all(isinstance(item, float | int) for item in value) else 0
            return max([numbers, *map(longest, value)])
        return len(value) if isinstance(value, str) and len(value) != 64 else 0

    assert longest(json.loads(done.stdout)) < 120


@pytest.mark.parametrize(
    ("answers", "says", "written"),
    [("", "nothing was measured", False), ("q\n", "nothing was measured", False), ("\nq\n", "NOT COMPLETE", True)],
)
def test_a_calibration_that_is_ended_early_says_so(
    answers: str, says: str, written: bool, run: Callable[..., Result], config: Path
) -> None:
    done = run(answers)
    assert done.exit_code == 1
    assert says in done.output
    assert (config.parent / "report.json").exists() == (config.parent / "report.txt").exists() == written


def test_what_was_measured_is_kept_when_the_camera_goes(
    run: Callable[..., Result], config: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = stage.read

    def lost(timeout_s: float) -> Frame:
        if stage.index > 20:
            raise CameraError("cannot read from stage: it is unplugged")
        return read(timeout_s)

    monkeypatch.setattr(stage, "read", lost)
    done = run("\n\n\n")
    assert isinstance(done.exception, CameraError)
    assert done.exception.exit_code == 3
    body = json.loads((config.parent / "report.json").read_text())
    assert len(body["bona_fide"]["presentations"]) == 1
    assert not body["complete"]


def test_what_was_measured_is_kept_when_the_technician_interrupts(
    run: Callable[..., Result], config: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = stage.read

    def interrupted(timeout_s: float) -> Frame:
        if stage.index > 20:
            raise KeyboardInterrupt
        return read(timeout_s)

    monkeypatch.setattr(stage, "read", interrupted)
    done = run("\n\n\n")
    assert done.exit_code == 1
    assert "NOT COMPLETE" in (config.parent / "report.txt").read_text()


def test_while_the_agent_runs_the_command_says_how_to_stop_it(
    run: Callable[..., Result], config: Path, stage: Stage
) -> None:
    lock = StateLock(config.parent / "state")
    try:
        done = run("\n\n\n")
    finally:
        lock.release()
    assert isinstance(done.exception, AgentError)
    assert (done.exception.code, done.exception.exit_code) == ("agent_running", 3)
    assert "systemctl stop" in str(done.exception.hint)
    assert stage.opened == 0
    assert run("\n\n\n").exit_code == 0


def test_the_agent_cannot_start_while_somebody_calibrates(
    run: Callable[..., Result], config: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    StateLock(config.parent / "state").release()
    read = stage.read

    def while_filming(timeout_s: float) -> Frame:
        with pytest.raises(AgentError, match="the process"):
            StateLock(config.parent / "state")
        return read(timeout_s)

    monkeypatch.setattr(stage, "read", while_filming)
    assert run("\n\n\n").exit_code == 0
    StateLock(config.parent / "state").release()


@pytest.mark.parametrize("taken", ["report.json", "report.txt"])
def test_an_existing_report_is_never_overwritten(taken: str, run: Callable[..., Result], config: Path) -> None:
    (config.parent / taken).write_text("of last year")
    done = run("\n\n\n")
    assert isinstance(done.exception, AgentError)
    assert (done.exception.code, done.exception.exit_code) == ("file_exists", 2)
    assert (config.parent / taken).read_text() == "of last year"
    assert {file.name for file in config.parent.iterdir()} == {"config.yaml", "state", taken}


def test_a_report_that_cannot_be_written_is_known_before_anybody_is_filmed(
    run: Callable[..., Result], config: Path, stage: Stage
) -> None:
    done = run("\n\n\n", "--out", str(config.parent / "nowhere/report.json"))
    assert isinstance(done.exception, AgentError)
    assert done.exception.exit_code == 3
    assert stage.opened == 0


@pytest.mark.packs
def test_with_real_models_and_a_replay_a_portrait_held_up_is_measured(tmp_path: Path, open_pack_dir: Path) -> None:
    put(tmp_path / "portrait.png", person())
    (tmp_path / "state").mkdir()
    (tmp_path / "c.yaml").write_text(
        f"terminal_id: pos-0001\nstate_dir: {tmp_path}/state\n"
        f"camera: {{source: replay, path: {tmp_path}/portrait.png}}\nmodels: {{pack: open, dir: {open_pack_dir}}}\n"
        # a long gap and small faces: on a slow machine too the first frames qualify
        "session: {capture_window_s: 0.2, liveness_frames: 3}\ngate: {max_track_gap_s: 10, min_inter_eye_px: 40}\n"
        "cypherface: {base_url: 'https://staging.cypherface.com/', merchant_id: 0123456789abcdef01234567, "
        "api_key: {env: KEY}, upload_hosts: [uploads.example]}\noutbox: {key: {env: KEY}}\n"
    )
    plan = ["--bona-fide", "1", "--per-attack", "1", "--attack", "print", "--seconds", "120", "--json", "--out"]
    done = CliRunner().invoke(
        calibrate, ["--config", str(tmp_path / "c.yaml"), *plan, str(tmp_path / "report.json")], input="\n\n"
    )
    assert done.exit_code == 0, (done.output, done.exception)
    body = json.loads(done.stdout)
    assert body["attacks"][0]["presentations"][0]["answer"] == "live"
    assert body["attacks"][0]["apcer"]["rate"] == 1.0
