"""Who may see the page, when its camera is on, and why it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket as sockets
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.aim import server, sources
from edge_agent.aim.door import COOKIE
from edge_agent.aim.gauges import GAUGES
from edge_agent.aim.show import TEXTS, Ended, ended
from edge_agent.aim.sources import FromAgent, OwnCamera, agent_answers
from edge_agent.aiming import Reason
from edge_agent.cli.aim import ENDS, _own_camera, aim
from edge_agent.config import GateSection, load
from edge_agent.errors import CameraError, EnvironmentFault, ModelError
from edge_agent.gate import _rules, check_frame, check_liveness
from edge_agent.listening import bind, bind_tcp
from edge_agent.outbox.database import StateLock
from edge_agent.types import Check, JsonObject
from tests.aim.stage import Clock, MadeUp, Page
from tests.api.test_camera import until
from tests.faces import GOOD, measurement, scores
from tests.terminal import Eyes, NoiseCamera
from tests.test_daemon import write_config

LIMITS = GateSection()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every second is looked at more often."""
    monkeypatch.setattr(server, "LOOK_S", 0.01)
    monkeypatch.setattr(server, "LAST_WORDS_S", 0.05)
    monkeypatch.setattr(sources, "LOOK_FOR_AGENT_S", 0.0)


def test_the_link_opens_once_in_one_browser_and_only_that_one_sees_anything() -> None:
    source = MadeUp()
    with Page(source) as page, page.browser() as first, page.browser() as second:
        assert first.get("/look").status_code == 403, "nobody has come yet"
        assert first.get("/", params={"token": "x"}).status_code == 403
        assert first.head(page.link).status_code == 200
        assert source.opened == 0, "the camera waits for the page"
        opened = first.get(page.link)
        assert (opened.status_code, opened.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
        assert page.door.token not in opened.text
        assert first.get("/look").json()["ended"] is None
        assert first.get("/").status_code == first.get(page.link).status_code == 200, "it may load the page again"
        for path in (page.link, "/", "/look"):
            assert second.get(path).status_code == 403, path
        assert second.get("/look", headers={b"Cookie": f"{COOKIE}=".encode() + b"\xe4"}).status_code == 403
        assert second.post("/stop").status_code == 403
        assert source.is_open


SENT: tuple[tuple[dict[str, str], bool], ...] = (
    ({}, True),
    ({"Host": "localhost:9000"}, True),
    ({"Host": "[::1]:8473"}, True),
    ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Host": "evil.example"}, False),
    ({"Host": "127.0.0.1.evil.example:8473"}, False),
    ({"Host": "[:"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "null"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
)


def test_what_another_page_has_the_browser_send_is_refused() -> None:
    with Page(MadeUp()) as page, page.browser() as browser:
        browser.get(page.link)
        cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
        for headers, fine in SENT:
            assert (browser.get("/look", headers=headers | cookie).status_code == 200) is fine, headers
            assert fine or browser.post("/stop", headers=headers | cookie).status_code == 403, headers
        assert not page.show.stop.is_set()
        assert browser.get("/stop").status_code == 405


def test_nothing_is_kept_in_a_cache_and_the_page_can_ask_nobody_else() -> None:
    with Page(MadeUp()) as page, page.browser() as browser:
        opened = browser.get(page.link)
        for answer in (opened, browser.get("/look"), browser.get("/look", headers={"Host": "evil.example"})):
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'nonce-")
        nonce = re.search(r"script-src 'nonce-([^']+)'", opened.headers["content-security-policy"])
        assert nonce is not None
        assert opened.text.count(f'nonce="{nonce[1]}"') == 2
        assert "{{" not in opened.text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", opened.text)
        assert browser.get(page.link).headers["content-security-policy"] != opened.headers["content-security-policy"]


def stop(page: Page, source: MadeUp, clock: Clock) -> None:
    with page.browser() as browser:
        browser.get(page.link)
        assert browser.post("/stop").status_code == 200
        assert browser.get("/look", params={"after": "999999"}).json()["ended"]["reason"] == "stopped"


def let_time_pass(seconds: float, *, opened: bool) -> Callable[[Page, MadeUp, Clock], None]:
    def act(page: Page, source: MadeUp, clock: Clock) -> None:
        if opened:
            with page.browser() as browser:
                browser.get(page.link)
            until(lambda: source.is_open, "the camera does not open")
        clock.now_s += seconds

    return act


def give_way(page: Page, source: MadeUp, clock: Clock) -> None:
    with page.browser() as browser:
        browser.get(page.link)
        source.reason = "verification"
        told: JsonObject = {"number": 0, "ended": None}
        while told["ended"] is None:
            told = browser.get("/look", params={"after": told["number"]}).json()
        assert told["ended"]["text"].startswith("A verification has begun")
        assert told["look"] is None, "the last picture is forgotten"


@pytest.mark.parametrize(
    ("reason", "act"),
    [
        ("stopped", stop),
        ("verification", give_way),
        ("not_opened", let_time_pass(601, opened=False)),
        ("time", let_time_pass(601, opened=True)),
        ("closed", let_time_pass(server.UNREAD_S + 1, opened=True)),
    ],
)
def test_it_ends_by_itself_and_with_it_the_camera(
    reason: str, act: Callable[[Page, MadeUp, Clock], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if act in {stop, give_way}:
        monkeypatch.setattr(server, "LAST_WORDS_S", 20.0)
    source, clock = MadeUp(), Clock()
    with Page(source, clock=clock) as page:
        act(page, source, clock)
        page.join()
        assert page.end == ended(reason)
        assert not source.is_open


def test_a_camera_that_cannot_be_had_is_told_to_the_page_and_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LAST_WORDS_S", 20.0)
    error = CameraError("cannot open it: busy", hint="look who has it")
    with Page(MadeUp(error)) as page, page.browser() as browser:
        browser.get(page.link)
        told = browser.get("/look").json()["ended"]
        assert told == {"reason": "camera_unavailable", "text": "cannot open it: busy (try: look who has it)"}
        page.join()
        assert page.error is error


def test_every_reason_has_its_words() -> None:
    assert set(Reason.__args__) <= TEXTS.keys()  # type: ignore[attr-defined]
    assert ended("of a newer agent").text == "The agent ended it (of a newer agent)."


def test_every_check_of_the_gate_has_a_gauge_that_passes_on_the_same_side() -> None:
    sides = {"face_score": True, "live": True, "out_of_bounds": False}
    for rule in _rules(GOOD, LIMITS, motion=1.0, second=0.0):
        name = f"{rule.code.value}:{rule.measure}"
        sides[name if name in GAUGES else rule.measure] = rule.at_least
    assert {name: gauge.at_least for name, gauge in GAUGES.items()} == sides
    checks: tuple[Check, ...] = check_frame(measurement(), LIMITS) + check_liveness(scores(0.9, 0.9), LIMITS)
    for check in checks:
        measure = check.measure.rpartition(".")[2]
        gauge = GAUGES.get(f"{check.code.value}:{measure}") or GAUGES[measure]
        assert check.limit is None or gauge.low <= check.limit < gauge.high


# -- the camera itself, where no agent runs ---------------------------------------------------------------------------


@pytest.mark.parametrize("models", ["there", "missing"])
def test_without_an_agent_the_camera_is_opened_here_until_an_agent_starts(tmp_path: Path, models: str) -> None:
    camera, config = NoiseCamera(), load(write_config(tmp_path))

    def open_vision(_: object) -> Eyes:
        if models == "missing":
            raise ModelError("cannot find the pack")
        return Eyes()

    with (
        Page(OwnCamera(config, make=lambda: camera, open_vision=open_vision)) as page,
        page.browser() as browser,
    ):
        browser.get(page.link)
        look = browser.get("/look").json()["look"]
        assert look["jpeg"]
        assert (look["judged"] is not None, look["problem"] is None) == (
            (True, True) if models == "there" else (False, False)
        )
        with bind(config.api.socket):
            page.join()
        assert page.end is not None
        assert (page.end.reason, camera.is_open) == ("agent", False)


def test_a_camera_that_is_lost_meanwhile_is_shown(tmp_path: Path) -> None:
    camera, config = NoiseCamera(), load(write_config(tmp_path))
    with Page(OwnCamera(config, make=lambda: camera, open_vision=lambda _: Eyes())) as page, page.browser() as browser:
        browser.get(page.link)
        camera.broken = "camera_stalled"
        told = browser.get("/look").json()
        while told["look"]["problem"] is None:
            told = browser.get("/look", params={"after": told["number"]}).json()
        assert told["look"]["problem"]["detail"] == "cannot read noise: unplugged"
    assert not camera.is_open


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "code"), [("stopped", 0), ("time", 0), ("closed", 0), ("verification", 1), ("agent", 1), ("left", 3)]
)
def test_the_command_prints_the_link_and_why_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, code: int
) -> None:
    given: list[object] = []

    async def served(source: object, listener: object, show: object, door: object, terminal: str) -> Ended:
        given.append(source)
        return ended(reason)

    monkeypatch.setattr(server, "serve", served)
    config = write_config(tmp_path)
    if code == 1:
        with bind(load(config).api.socket):
            done = CliRunner().invoke(aim, ["--config", str(config), "--port", "0"])
    else:
        done = CliRunner().invoke(aim, ["--config", str(config), "--port", "0"])
    assert done.exit_code == code, done.output
    assert isinstance(given[0], FromAgent if code == 1 else OwnCamera)
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/\?token=[\w-]{32}\n", done.stdout)
    assert "ssh -L " in done.stderr
    assert done.stderr.endswith(f"off: {ended(reason).text}\n")


@pytest.mark.parametrize("number", ENDS)
def test_ctrl_c_ctrl_z_and_a_broken_connection_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("edge_agent.cli.aim._say", lambda *_: os.kill(os.getpid(), number))
    done = CliRunner().invoke(aim, ["--config", str(write_config(tmp_path)), "--port", "0"])
    assert (done.exit_code, done.stderr) == (0, "off: You stopped it.\n"), done.output


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with bind_tcp("127.0.0.1:0") as taken, pytest.raises(EnvironmentFault, match="cannot listen") as refused:
        CliRunner().invoke(
            aim, ["--config", str(write_config(tmp_path)), "--port", str(taken.getsockname()[1])],
            catch_exceptions=False,
        )  # fmt: skip
    assert refused.value.hint == "another program may have the port: try --port 0"


UNSURE: tuple[tuple[OSError, bool | str], ...] = (
    (FileNotFoundError(errno.ENOENT, "none"), False),
    (ConnectionRefusedError(errno.ECONNREFUSED, "none"), False),
    (PermissionError(errno.EACCES, "denied"), "this user may not"),
    (OSError("AF_UNIX path too long"), "path too long"),
    (TimeoutError(), True),
    (BlockingIOError(errno.EAGAIN, "full"), True),
)


def test_only_a_socket_that_nobody_listens_at_means_that_no_agent_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected in UNSURE:

        def connect(*_: object, error: OSError = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(sockets.socket, "connect", connect)
            if isinstance(expected, bool):
                assert agent_answers(tmp_path / "s") is expected, error
                continue
            with pytest.raises(EnvironmentFault, match=f"cannot ask the agent at .*: .*{expected}") as refused:
                CliRunner().invoke(aim, ["--config", str(write_config(tmp_path))], catch_exceptions=False)
        assert refused.value.exit_code == 3
        assert (refused.value.hint == "sudo edge-agent aim") is isinstance(error, PermissionError)


def test_the_camera_is_left_alone_while_a_daemon_has_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that starts between the command and the page."""
    config, made = write_config(tmp_path), NoiseCamera()
    monkeypatch.setattr(sources, "make_camera", lambda _: made)
    state = load(config).state_dir
    state.mkdir(exist_ok=True)
    source = _own_camera(config)
    lock = StateLock(state)
    try:
        with pytest.raises(EnvironmentFault, match="cannot open the camera: the agent runs") as told:
            CliRunner().invoke(aim, ["--config", str(config), "--port", "0"], catch_exceptions=False)
        with pytest.raises(EnvironmentFault, match="cannot open the camera: the agent runs"):
            asyncio.run(asyncio.wait_for(source.follow(lambda _: None, 1.0), 20.0))
    finally:
        lock.release()
    assert (told.value.code, told.value.exit_code, made.is_open) == ("agent_running", 3, False)
    StateLock(state).release()
