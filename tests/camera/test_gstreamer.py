"""The GStreamer camera: the real program for what it does, a script in its place for what it must not do."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.camera.child import Child
from edge_agent.camera.gstreamer import GstreamerCamera, tokens
from edge_agent.camera.guard import FrameGuard
from edge_agent.errors import CameraError
from tests.camera.gst import MOVING, Gst, needs_gstreamer
from tests.camera.processes import await_pictures, gone_within, reader_of
from tests.camera.sources import ManualClock


@pytest.fixture
def gst(tmp_path: Path) -> Gst:
    return Gst(tmp_path)


def script(tmp_path: Path, body: str, **more: Any) -> GstreamerCamera:
    """A camera whose gst-launch-1.0 is a script: ``out(data)`` writes to the descriptor it was given."""
    program = tmp_path / "gst-launch-1.0"
    program.write_text(
        f"#!{sys.executable} -I\n"
        "import os, sys, time\n"
        "fd = int(sys.argv[-1].removeprefix('fd='))\n"
        "def out(data):\n"
        "    while data:\n"
        "        data = data[os.write(fd, data):]\n"
        "def pictures(count, size=160 * 120 * 4):\n"
        "    for number in range(count):\n"
        "        out(bytes([50 + number % 200]) * size)\n" + body
    )
    program.chmod(0o755)
    return GstreamerCamera("fakesrc", size=(160, 120), fps=100.0, clock=ManualClock(), program=str(program), **more)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def error_of(camera: GstreamerCamera, *, reads: int = 50) -> CameraError:
    """Of opening and reading on."""
    try:
        camera.open()
        for _ in range(reads):
            camera.read(5)
    except CameraError as exc:
        return exc
    finally:
        camera.close()
    raise AssertionError("every read succeeded")


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("videotestsrc", ["videotestsrc"]),
        ("v4l2src device=/dev/video0 ! jpegdec", ["v4l2src", "device=/dev/video0", "!", "jpegdec"]),
        ("rtspsrc location='rtsp://u:p@h/a b' ! decodebin", ["rtspsrc", "location=rtsp://u:p@h/a b", "!", "decodebin"]),
        ('a ! "video/x-raw(memory:NVMM),width=64" ! b', ["a", "!", "video/x-raw(memory:NVMM),width=64", "!", "b"]),
        ("videotestsrc; rm -rf $HOME `id` | tee x", ["videotestsrc;", "rm", "-rf"]),
    ],
)
def test_a_pipeline_is_split_as_a_shell_would_quote_it_and_nothing_of_it_is_run(
    pipeline: str, expected: list[str]
) -> None:
    if "-rf" in expected:
        with pytest.raises(CameraError, match="-rf is an option"):
            tokens(pipeline)
    else:
        assert tokens(pipeline) == expected


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("videotestsrc pattern='ball", "no closing quotation"),
        ("--gst-plugin-load=/tmp/evil.so videotestsrc", "--gst-plugin-load=/tmp/evil.so is an option"),
        ("videotestsrc ! -e", "-e is an option"),
        ("! videotestsrc", "it begins or ends"),
        ("videotestsrc !", "it begins or ends"),
    ],
)
def test_a_pipeline_that_cannot_be_one_is_refused_before_anything_is_started(pipeline: str, why: str) -> None:
    with pytest.raises(CameraError, match=r"cannot use camera\.pipeline") as raised:
        GstreamerCamera(pipeline)
    assert why in raised.value.message
    assert "v4l2src" in str(raised.value.hint)


@needs_gstreamer
def test_shell_characters_reach_gstreamer_as_they_are_and_start_nothing(gst: Gst, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    error = error_of(gst.camera(f"videotestsrc ; touch {witness} $(touch {witness}) | touch {witness}"))
    assert error.code == "camera_unavailable"
    assert not witness.exists()


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "message", "hint"),
    [
        ("v4l2src device=/dev/video77", "v4l2src0: Cannot identify device '/dev/video77'", "by hand"),
        ("nosuchsrc", 'no element "nosuchsrc"', "gst-inspect-1.0 nosuchsrc"),
        ("videotestsrc nosuch=1", 'no property "nosuch" in element "videotestsrc"', "by hand"),
        ("filesrc location=/no/such/file ! decodebin", "filesrc0: Resource not found", "by hand"),
        (f"{MOVING} num-buffers=2", "it ended (exit status 0)", "by hand"),
    ],
)
def test_of_all_that_gstreamer_says_the_line_that_helps_is_told(
    gst: Gst, pipeline: str, message: str, hint: str
) -> None:
    error = error_of(gst.camera(pipeline))
    assert (error.code, error.retryable) == ("camera_unavailable", True)
    assert message in error.message
    assert hint in str(error.hint)


def test_a_password_in_an_address_is_in_no_message_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        error = error_of(script(tmp_path, "sys.exit('ERROR: from element /p/r:r0: no rtsp://admin:s3cret@h/x')"))
    assert error.message == "cannot read from gstreamer source fakesrc: r0: no rtsp://h/x"
    assert "rtsp://h/x" in caplog.text
    assert "s3cret" not in caplog.text
    camera = GstreamerCamera("rtspsrc location=rtsp://admin:s3cret@h/x")
    assert camera.description == "gstreamer source rtspsrc"


@needs_gstreamer
def test_size_and_rate_are_ours_whatever_the_source_delivers(gst: Gst) -> None:
    source = (
        "videotestsrc is-live=true horizontal-speed=3 ! video/x-raw,format=GRAY8,width=64,height=48,framerate=100/1"
    )
    with gst.camera(source, size=(320, 180), fps=20.0) as camera:
        image = camera.read(5).image
        first = reader_of(camera).newest.index
        time.sleep(0.5)
        came = reader_of(camera).newest.index - first
    assert image.shape == (180, 320, 3)
    assert 1 <= came <= 13  # 20 a second asked for, 100 offered


@needs_gstreamer
def test_a_slow_source_is_not_filled_up_with_copies_that_would_look_fresh(
    gst: Gst, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[bytes] = []
    monkeypatch.setattr(FrameGuard, "see", lambda _self, image, _now_s: came.append(image.tobytes()))
    with gst.camera(f"{MOVING} ! video/x-raw,framerate=100/1 ! identity drop-probability=0.9") as camera:
        await_pictures(camera, 6)
    assert len(set(came)) == len(came)


@needs_gstreamer
def test_colours_come_in_opencvs_order(gst: Gst) -> None:
    with gst.camera("videotestsrc pattern=solid-color foreground-color=0xff2040ff is-live=true") as camera:
        blue, green, red = camera.read(5).image[50, 50]
    assert (blue, green, red) == (pytest.approx(255, abs=6), pytest.approx(64, abs=6), pytest.approx(32, abs=6))


@needs_gstreamer
def test_closing_ends_the_whole_group_also_one_that_does_not_listen(gst: Gst) -> None:
    camera = gst.camera()
    camera.open()
    assert camera.process_id is not None
    pid = camera.process_id
    assert os.getpgid(pid) == pid
    camera.close()
    assert gone_within(pid, 2)
    assert camera.process_id is None


_ORPHAN = """
import os, sys
from edge_agent.camera.gstreamer import GstreamerCamera
camera = GstreamerCamera({pipeline!r}, size=(160, 120), fps=30.0)
camera.open()
print(camera.process_id, flush=True)
os.kill(camera.process_id, 19)  # it hangs: it will not notice that nobody reads
os.kill(os.getpid(), 9)
"""


@needs_gstreamer
def test_the_process_does_not_outlive_a_killed_agent() -> None:
    agent = subprocess.run(
        [sys.executable, "-c", _ORPHAN.format(pipeline=MOVING)], capture_output=True, text=True, check=False
    )
    assert agent.returncode == -9, agent.stderr
    assert gone_within(int(agent.stdout), 5)


def test_a_missing_program_is_told_with_the_packages_to_install_and_costs_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(3):
        error = error_of(GstreamerCamera("videotestsrc", program=str(tmp_path / "gst-launch-1.0")))
    assert descriptors() <= before
    assert error.code == "camera_unavailable"
    assert "it is not installed" in error.message
    assert "gstreamer1.0-tools" in str(error.hint)


def test_the_arguments_are_the_operators_part_and_then_ours(tmp_path: Path) -> None:
    camera = script(tmp_path, "sys.exit('ERROR: from element /x/y:z0: ' + ' '.join(sys.argv[1:-1]))")
    expected = (
        "-q fakesrc ! videorate drop-only=true max-rate=100 ! videoconvert ! videoscale ! "
        "video/x-raw,format=BGRx,width=160,height=120,pixel-aspect-ratio=1/1 ! "
        "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 ! fdsink sync=false"
    )
    assert expected[:300] in error_of(camera).message


@pytest.mark.parametrize("count", [0, 2])
def test_bytes_that_are_no_multiple_of_a_picture_are_a_wrong_format(tmp_path: Path, count: int) -> None:
    error = error_of(script(tmp_path, f"pictures({count}); out(b'x' * 1000)"))
    assert error.code == "camera_format"
    assert "no multiple of a 160x120 picture" in error.message


def test_a_program_that_gives_half_a_picture_and_no_more_is_ended_in_time(tmp_path: Path) -> None:
    camera = script(tmp_path, "pictures(3); out(b'x' * 1000); time.sleep(60)", silence_s=0.3)
    with camera:
        pid = camera.process_id
        error = error_of(camera)
    assert (error.code, error.retryable) == ("camera_unavailable", True)
    assert "no whole picture within 0.3 s" in error.message
    assert pid is not None
    assert gone_within(pid, 2)


def test_a_program_that_never_gives_a_picture_does_not_open_and_what_it_said_is_told(tmp_path: Path) -> None:
    error = error_of(script(tmp_path, "print('waiting for PLAY', file=sys.stderr); time.sleep(60)", open_timeout_s=0.5))
    assert "no whole picture within 0.5 s (it last said: waiting for PLAY)" in error.message


def test_a_program_that_talks_without_end_is_heard_a_little_and_does_not_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = "for n in range(5000): print('x' * 1000, file=sys.stderr)\npictures(3)\ntime.sleep(60)"
    with caplog.at_level(logging.DEBUG), script(tmp_path, body) as camera:
        assert camera.read(5).image.any()
    said = [r for r in caplog.records if "xxx" in r.getMessage()]
    assert 0 < len(said) <= 30
    assert max(len(r.getMessage()) for r in said) < 500


def test_opening_and_closing_leaves_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    camera = script(tmp_path, "pictures(1000000)")
    with camera:
        pass
    before, threads = descriptors(), threading.active_count()
    for _ in range(5):
        with camera:
            camera.read(5)
    assert descriptors() <= before
    assert threading.active_count() <= threads


def test_children_that_the_program_left_behind_end_with_it(tmp_path: Path) -> None:
    body = (
        "import signal, subprocess\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL)\n"
        "print('child', child.pid, file=sys.stderr, flush=True)\n"
        "pictures(1000000)"
    )
    with script(tmp_path, body) as camera:
        reader = reader_of(camera)
        child = int(said_by(reader.child, "child").split()[1])
    assert gone_within(child, 10)


def said_by(child: Child, beginning: str) -> str:
    """A line of its standard error, which a thread of its own reads: it may come after the first picture."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        for line in list(child.said):
            if line.startswith(beginning):
                return line
        time.sleep(0.01)
    raise AssertionError(f"it did not say {beginning}: {list(child.said)}")


def test_secrets_of_the_agent_are_not_handed_to_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYPHERFACE_KEY", "s3cret")
    monkeypatch.setenv("GST_DEBUG", "1")
    seen = tmp_path / "seen"
    error_of(script(tmp_path, f"open({str(seen)!r}, 'w').write(' '.join(sorted(os.environ)))"))
    names = shlex.split(seen.read_text())
    assert "CYPHERFACE_KEY" not in names
    assert {"PATH", "GST_DEBUG", "LC_ALL"} <= set(names)


def test_pictures_from_before_a_pause_of_ours_are_not_news(tmp_path: Path) -> None:
    """Stopped and continued, this process would find a picture in the pipe that looks as if it had just come."""
    with script(tmp_path, "n = 0\nwhile True:\n    pictures(200); time.sleep(0.01)") as camera:
        reader = reader_of(camera)
        camera.read(5)
        reader._pipe._ran_s -= 10
        before = reader._count
        camera.read(5)
        camera.read(5)
        assert not reader._pipe.paused
        assert reader._count > before


def test_at_ease_the_program_waits_and_what_grew_old_meanwhile_is_thrown_away(tmp_path: Path) -> None:
    """Each picture is as bright as its number, so it shows which were passed over."""
    with script(tmp_path, "pictures(100000)") as camera:
        camera.ease(2.0)
        camera.read(5)
        before, began_s = camera.read(5), time.monotonic()
        camera.ease(None)
        after = camera.read(5)
        assert time.monotonic() - began_s < 5, "it does not wait for its turn"
    numbers = [int(frame.image[0, 0, 0]) for frame in (before, after)]
    assert (numbers[1] - numbers[0]) % 200 >= 3, "two old pictures were dropped"
