"""``edge-agent screen``: the JSON contract, bad input of every kind, exit codes, clips, annotated pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from edge_agent import cli
from edge_agent.errors import ModelError
from edge_agent.packs.manifest import load_pack, model_path
from edge_agent.report import line
from edge_agent.types import GateCode, Image
from edge_agent.vision.pipeline import Pipeline
from edge_agent.vision.runtime import load_session
from tests.picture.test_picture import png_claiming, with_orientation

CONTRACT = {"file", "accepted", "reasons", "faces", "box", "landmarks", "checks", "liveness", "timings_ms"}
EXTRAS = {"quality_score", "annotated", "error", "frames", "frame", "votes"}
CHECK_KEYS = {"code", "measure", "value", "limit", "unit", "passed"}
OPEN = load_pack("open")
PACK_FILES = sorted({OPEN.detector.file, *(member.file for model in OPEN.liveness for member in model.members)})
pytestmark = pytest.mark.packs


def person() -> Image:
    """A 1024 x 1024 picture that the gate accepts: the face is 82 px between the eyes."""
    astronaut = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    return np.asarray(cv2.resize(astronaut, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)


def png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def jpeg(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def transparent(image: Image) -> np.ndarray:
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def twenty_megapixels() -> np.ndarray:
    canvas = np.full((4000, 5100, 3), 90, np.uint8)
    canvas[:4000, 550:4550] = cv2.resize(person(), (4000, 4000), interpolation=cv2.INTER_LINEAR)
    return canvas


def lying() -> bytes:
    """A picture stored on its side whose EXIF tag says how to turn it upright."""
    return with_orientation(jpeg(np.ascontiguousarray(np.rot90(person()))), 6)


def clip(path: Path, frames: list[Image], fps: float = 10.0) -> Path:
    size = (frames[0].shape[1], frames[0].shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def swaying(count: int) -> list[Image]:
    """Frames of one person who moves by a pixel a frame."""
    return [np.ascontiguousarray(np.roll(person(), i, axis=1)) for i in range(count)]


def half(data_: bytes) -> bytes:
    return data_[: len(data_) // 2]


CONTENT: dict[str, Callable[[], bytes]] = {
    "colour.png": lambda: png(person()),
    "colour.jpg": lambda: jpeg(person()),
    "grey.png": lambda: png(cv2.cvtColor(person(), cv2.COLOR_BGR2GRAY)),
    "rgba.png": lambda: png(transparent(person())),
    "sixteen-bit.png": lambda: png(person().astype(np.uint16) * 257),
    "lying.jpg": lying,
    "twenty-megapixels.jpg": lambda: jpeg(twenty_megapixels()),
    "empty-room.png": lambda: png(np.full((480, 640, 3), 120, np.uint8)),
    "16-px.png": lambda: png(np.zeros((16, 16, 3), np.uint8)),
    "very-wide.png": lambda: png(np.zeros((16, 20000, 3), np.uint8)),
    "very-tall.png": lambda: png(np.zeros((20000, 16, 3), np.uint8)),
    "text.jpg": lambda: b"this is no picture",
    "zero-bytes.jpg": lambda: b"",
    "truncated.jpg": lambda: half(jpeg(person())),
    "truncated.png": lambda: half(png(person())),
    "one-pixel.png": lambda: png(np.zeros((1, 1, 3), np.uint8)),
    "bomb.png": lambda: png_claiming(100_000, 100_000),
    "zero-bytes.mp4": lambda: b"",
    "text.mp4": lambda: b"this is no clip",
    "picture.gif": lambda: b"GIF89a",
}
ACCEPTED = {"colour.png", "colour.jpg", "grey.png", "rgba.png", "sixteen-bit.png", "lying.jpg", "twenty-megapixels.jpg"}
WITHOUT_A_FACE = {"empty-room.png", "16-px.png", "very-wide.png", "very-tall.png"}
UNUSABLE = {
    "text.jpg": "not_an_image",
    "zero-bytes.jpg": "not_an_image",
    "truncated.jpg": "picture_truncated",
    "truncated.png": "picture_truncated",
    "one-pixel.png": "picture_too_small",
    "bomb.png": "picture_too_large",
    "zero-bytes.mp4": "camera_format",
    "text.mp4": "camera_format",
    "picture.gif": "camera_format",
    "nobody.jpg": "picture_unreadable",
    "nobody.mp4": "camera_unavailable",
    "folder": "picture_unreadable",
    "folder.mp4": "camera_unavailable",
    "pipe": "picture_unreadable",
    f"{'long' * 100}.jpg": "picture_unreadable",
    f"{'long' * 100}.mp4": "picture_unreadable",
}


@dataclass(frozen=True)
class Run:
    """What one call left behind."""

    code: int
    out: str
    err: str

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.out.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of CONTENT, two folders and a pipe that nobody writes to."""
    place = tmp_path_factory.mktemp("pictures")
    for name, content in CONTENT.items():
        (place / name).write_bytes(content())
    (place / "folder").mkdir()
    (place / "folder.mp4").mkdir()
    os.mkfifo(place / "pipe")
    return place


@pytest.fixture(scope="module")
def everything(folder: Path, open_pack_dir: Path) -> Run:
    """One run of the real command over every file there is, good and bad mixed."""
    files = [str(folder / name) for name in sorted(CONTENT.keys() | UNUSABLE)]
    command = [sys.executable, "-m", "edge_agent", "screen", "--json", "--models-dir", str(open_pack_dir), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def result(everything: Run) -> Callable[[str], dict[str, Any]]:
    by_name = {Path(r["file"]).name: r for r in everything.results}
    return lambda name: by_name[name]


@pytest.fixture
def screen(
    open_pack_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    """Runs ``edge-agent screen ARGUMENTS`` in this process, as the console script does."""

    def run(*arguments: object) -> Run:
        monkeypatch.setenv("EDGE_AGENT_MODELS_DIR", str(open_pack_dir))
        monkeypatch.setattr(sys, "argv", ["edge-agent", "screen", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capfd.readouterr()
        return Run(int(caught.value.code or 0), printed.out, printed.err)

    return run


def test_every_file_gets_one_json_line_in_order_and_stdout_nothing_else(everything: Run, folder: Path) -> None:
    names = [Path(r["file"]).name for r in everything.results]
    assert names == sorted(CONTENT.keys() | UNUSABLE)
    assert everything.results[0]["file"] == str(folder / names[0])


def test_nothing_ends_in_a_traceback_and_one_bad_file_makes_the_exit_code_1(everything: Run) -> None:
    assert "Traceback" not in everything.err
    assert everything.code == 1


def test_the_json_keys_are_the_contract(everything: Run) -> None:
    for found in everything.results:
        assert found.keys() >= CONTRACT
        assert found.keys() <= CONTRACT | EXTRAS
        assert all(check.keys() == CHECK_KEYS for check in found["checks"])
        assert set(found["reasons"]) <= {code.value for code in GateCode}


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_a_person_is_accepted_whatever_the_pixels_are_stored_as(name: str, result: Any) -> None:
    found = result(name)
    assert (found["accepted"], found["reasons"], found["faces"]) == (True, [], 1)
    assert (len(found["box"]), len(found["landmarks"])) == (4, 5)
    assert found["liveness"]["passed"] is True
    assert found["timings_ms"]["total"] > 0


def test_an_exif_rotation_is_applied_before_anything_is_measured(result: Any) -> None:
    assert np.allclose(result("lying.jpg")["box"], result("colour.jpg")["box"], atol=8)


@pytest.mark.parametrize("name", sorted(WITHOUT_A_FACE))
def test_a_picture_without_a_face_is_refused_and_nothing_else_assessed(name: str, result: Any) -> None:
    found = result(name)
    assert (found["accepted"], found["reasons"], found["faces"], found["box"]) == (False, ["no_face"], 0, None)
    assert {c["passed"] for c in found["checks"][1:]} == {None}
    assert found["liveness"] is None


@pytest.mark.parametrize(("name", "code"), sorted(UNUSABLE.items()), ids=lambda value: value[:20])
def test_a_file_that_cannot_be_used_says_why(name: str, code: str, result: Any) -> None:
    found = result(name)
    assert found["accepted"] is False
    assert found["error"]["code"] == code
    assert found["error"]["detail"].startswith("cannot ")


def test_all_accepted_is_exit_code_0_and_a_line_for_people(screen: Callable[..., Run], folder: Path) -> None:
    done = screen(folder / "colour.png")
    assert (done.code, done.out) == (0, f"accepted    {folder / 'colour.png'}\n")


def test_a_refusal_names_the_value_and_the_limit(screen: Callable[..., Run], tmp_path: Path) -> None:
    far = tmp_path / "far.png"
    far.write_bytes(png(cv2.resize(person(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)))
    done = screen(far, far)
    assert done.code == 1
    assert done.out.startswith(f"refused     {far}: too_far (inter_eye 4")
    assert "limit 60 px)" in done.out
    assert done.err == "0 of 2 accepted\n"


def test_a_limit_of_the_configuration_counts(screen: Callable[..., Run], folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "gate: {min_inter_eye_px: 100}\n"
        "cypherface: {base_url: https://staging.cypherface.com/, merchant_id: 0123456789abcdef01234567, api_key: {env: KEY}, "
        "upload_hosts: [uploads.example.com]}\n"
    )
    done = screen("--config", config, folder / "colour.png")
    assert (done.code, "too_far" in done.out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--pack", "nonsense"], 3, "edge-agent models list"),
        (["--pack", "nonsense.yaml"], 3, "edge-agent models list"),
        (["--models-dir", "empty folder"], 3, "edge-agent models fetch open --dir 'empty folder'"),
        (["--config", "nobody.yaml"], 2, "--config"),
        (["--nonsense"], 2, "--nonsense"),
        (["--threads", "many"], 2, "--threads"),
        (["--annotate", "/proc/nowhere"], 3, "--annotate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_call_that_cannot_work_says_what_to_do(
    arguments: list[str], code: int, says: str, screen: Callable[..., Run], folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = screen(*arguments, folder / "colour.png")
    assert (done.code, done.out) == (code, "")
    assert says in done.err


def test_without_files_the_usage_is_shown(screen: Callable[..., Run]) -> None:
    done = screen()
    assert (done.code, "Missing argument" in done.err) == (2, True)


@pytest.mark.parametrize("tampered", PACK_FILES)
def test_a_tampered_model_is_never_loaded(
    tampered: str, screen: Callable[..., Run], open_pack_dir: Path, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    models = tmp_path / "models"
    shutil.copytree(open_pack_dir, models)
    path = model_path(models, tampered, load_pack("open").files[tampered])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    loaded: list[str] = []
    real = load_session

    def spy(model: bytes, **options: Any) -> Any:
        loaded.append(options["name"])
        return real(model, **options)

    monkeypatch.setattr("edge_agent.vision.runtime.load_session", spy)
    done = screen("--models-dir", models, folder / "colour.png")
    assert (done.code, done.out) == (3, "")
    assert f"edge-agent models fetch open --dir {models}" in done.err
    assert tampered not in loaded


def test_a_model_that_fails_on_one_picture_leaves_the_others_alone(
    screen: Callable[..., Run], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pipeline.measure

    def measure(self: Pipeline, frame: Any) -> Any:
        if frame.image.shape[:2] == (480, 640):
            raise ModelError("cannot run the model: it answered nonsense", code="inference_failed")
        return real(self, frame)

    monkeypatch.setattr(Pipeline, "measure", measure)
    done = screen("--json", folder / "empty-room.png", folder / "colour.png")
    assert done.code == 3
    assert done.results[0]["error"]["code"] == "inference_failed"
    assert done.results[1]["accepted"] is True


def test_a_clip_of_one_person_gives_its_best_shot(screen: Callable[..., Run], tmp_path: Path) -> None:
    done = screen("--json", clip(tmp_path / "person.avi", swaying(15)))
    (found,) = done.results
    assert (done.code, found["accepted"]) == (0, True)
    assert found["votes"] >= 5
    assert 0 <= found["frame"] < found["frames"] <= 15


def test_a_clip_that_ends_too_early_is_refused_without_a_made_up_reason(
    screen: Callable[..., Run], tmp_path: Path
) -> None:
    short = clip(tmp_path / "short.avi", swaying(3))
    (found,) = screen("--json", short).results
    assert (found["accepted"], found["reasons"], found["votes"], found["faces"]) == (False, [], 0, 1)
    assert "ended before enough frames" in screen(short).out


def test_a_still_shown_as_a_clip_is_one_picture_and_never_qualifies(screen: Callable[..., Run], tmp_path: Path) -> None:
    (found,) = screen("--json", clip(tmp_path / "frozen.avi", [person()] * 15)).results
    assert (found["accepted"], found["votes"]) == (False, 0)


def test_a_clip_without_a_face_is_refused(screen: Callable[..., Run], tmp_path: Path) -> None:
    done = screen("--json", clip(tmp_path / "room.avi", [np.full((240, 320, 3), 120, np.uint8)] * 4))
    (found,) = done.results
    assert (done.code, found["reasons"], found["frames"]) == (1, ["no_face"], 4)


def test_a_refused_clip_shows_the_frame_that_came_nearest(screen: Callable[..., Run], tmp_path: Path) -> None:
    empty = np.full((1024, 1024, 3), 120, np.uint8)
    (found,) = screen("--json", clip(tmp_path / "leaves.avi", [empty, empty, person(), empty, empty])).results
    assert (found["accepted"], found["frame"], found["faces"]) == (False, 2, 1)
    assert found["reasons"] == ["no_face"]


def test_annotated_pictures_are_wider_than_the_picture_and_never_overwrite_one_another(
    screen: Callable[..., Run], folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "empty-room.png", other / "colour.png")
    done = screen("--json", "--annotate", tmp_path / "look", folder / "colour.png", other / "colour.png")
    written = [Path(found["annotated"]) for found in done.results]
    assert [p.name for p in written] == ["colour-png.annotated.jpg", "colour-png-2.annotated.jpg"]
    assert sorted(written) == sorted((tmp_path / "look").iterdir())
    shown = cv2.imread(str(written[0]))
    assert shown is not None
    assert shown.shape[0] == 900
    assert shown.shape[1] > 1200


@pytest.mark.parametrize("name", ["n\udcff.png", "zwei\nzeilen.png", "bell\x07.png", "größe.png"])
def test_any_file_name_is_printed_on_one_line(name: str, screen: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    done = screen(tmp_path / name)
    assert done.code == 1
    assert done.out.count("\n") == 1
    assert "\x07" not in done.out
    assert json.loads(screen("--json", tmp_path / name).out)["file"] == str(tmp_path / name)


def test_a_value_that_is_no_number_is_printed_too() -> None:
    check = {"code": "too_far", "measure": "inter_eye", "value": None, "limit": 60.0, "unit": "px", "passed": False}
    shown = line({"file": "a.png", "accepted": False, "reasons": ["too_far"], "checks": [check]})
    assert shown == "refused     a.png: too_far (inter_eye none, limit 60 px)"


ACCEPTED_ASSETS = {
    "attack_bust3d_miniai.jpg",  # known: no pack resists masks and busts (docs/gate.md)
    "frame_1280x720_obama.jpg", "id_altman_1.jpg", "id_aniston_1.jpg", "id_aniston_2.jpg", "id_biden_1.jpg",
    "id_biden_2.jpg", "id_clooney_1.jpg", "id_clooney_2.jpg", "id_damon_1.jpg", "id_damon_2.jpg", "id_damon_3.jpg",
    "id_jolie_1.jpg", "id_jolie_2.jpg", "id_jolie_3.jpg", "id_musk_1.jpg", "id_musk_2.jpg", "id_musk_3.jpg",
    "id_obama_1.jpg", "id_obama_3.jpg", "id_pichai_1.jpg", "id_pichai_2.jpg", "id_zuckerberg_1.jpg",
    "id_zuckerberg_2.jpg", "id_zuckerberg_3.jpg", "live_minivision_old_T2.jpg", "q_jpeg8_obama.jpg",
    "q_sidelight_obama.jpg", "single_ardern.jpg", "single_carell.jpg", "single_woman_stock.jpg",
}  # fmt: skip
"""What the pack ``open`` accepts of the shared pictures; a change is to be explained, not only written down here."""


@pytest.fixture(scope="module")
def assets_screened(assets: Path, open_pack_dir: Path) -> list[dict[str, Any]]:
    media = json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]
    files = [str(assets / item["file"]) for item in media]
    command = [sys.executable, "-m", "edge_agent", "screen", "--json", "--models-dir", str(open_pack_dir), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in done.stderr
    return [{**item, **json.loads(text)} for item, text in zip(media, done.stdout.splitlines(), strict=True)]


@pytest.mark.assets
def test_the_shared_pictures_are_judged_as_before(assets_screened: list[dict[str, Any]]) -> None:
    stills = [r for r in assets_screened if r["kind"] == "image"]
    assert {Path(r["file"]).name for r in stills if r["accepted"]} == ACCEPTED_ASSETS
    assert not [r["file"] for r in assets_screened if "error" in r]


@pytest.mark.assets
def test_no_clip_of_an_attack_is_accepted_and_the_live_one_is_refused_for_what_it_shows(
    assets_screened: list[dict[str, Any]],
) -> None:
    clips = {Path(r["file"]).name: r for r in assets_screened if r["kind"] == "video"}
    assert [name for name, r in clips.items() if r["accepted"]] == []
    # its face is 57 px between the eyes and turned by 22 degrees at its nearest
    assert set(clips["sim_live_T1.mp4"]["reasons"]) <= {"too_far", "turn_right", "no_face"}
    assert "spoof_suspected" in clips["sim_attack_monitor.mp4"]["reasons"]
