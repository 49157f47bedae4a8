"""The configuration: every problem at once, with its line, and secrets only by reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import InvalidConfiguration, SecretRef, load, parse
from edge_agent.errors import ConfigurationError

pytestmark = pytest.mark.arm

GOOD = """
cypherface:
  base_url: https://staging.cypherface.com
  merchant_id: 0123456789abcdef01234567
  api_key: {env: CYPHERFACE_KEY}
  upload_hosts: [uploads.example.com]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(text, "config.yaml")
    return [str(p) for p in caught.value.problems]


def test_everything_but_cypherface_has_a_default() -> None:
    config = parse(GOOD)
    assert config.cypherface.base_url == "https://staging.cypherface.com/"
    assert config.models.pack == "open"
    assert config.session.liveness_frames == 5
    assert config.offline.policy == "queue"


def test_models_follow_a_state_directory_elsewhere() -> None:
    assert parse("state_dir: /srv/agent\n" + GOOD).models.dir == Path("/srv/agent/models")
    assert parse("state_dir: /srv/agent\nmodels: {dir: /m}\n" + GOOD).models.dir == Path("/m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1, column 1: cypherface: is required"),
        ("- a\n", "line 1, column 1: must be a mapping of sections"),
        ("a: [1,\n", "line 2, column 1: is not valid YAML"),
        (GOOD + "gate: {max_yaw: 3}\n", "line 7, column 8: gate.max_yaw: unknown key (did you mean max_yaw_deg?)"),
        (GOOD + "gates: {}\n", "line 7, column 1: gates: unknown key (did you mean gate?)"),
        (
            GOOD + "liveness: {challenge: on}\n",
            "line 7, column 23: liveness.challenge: input should be 'off' or 'head_t",
        ),
        (
            GOOD + "liveness: {turn_threshold: 0.2}\n",
            "liveness.turn_threshold: input should be less than or equal to 0.15",
        ),
        (GOOD + "liveness: {steps: 4}\n", "liveness.steps: input should be 2 or 3"),
        (GOOD + "liveness: {unavailable: allow}\n", "liveness.unavailable: input should be 'reject' or 'accept'"),
        (
            GOOD + "liveness: {step_timeout_s: 8, total_timeout_s: 6}\n",
            "total_timeout_s must not be shorter than step_t",
        ),
        (GOOD + "session:\n  liveness_frames: 0\n", "line 8, column 20: session.liveness_frames: input should be gr"),
        (GOOD + "session:\n  liveness_frames: many\n", "line 8, column 20: session.liveness_frames: input should be a"),
        (GOOD + "gate: {min_luminance: 0.9}\n", "line 7, column 1: gate: min_luminance must be below max_luminance"),
        (GOOD + "gate: {min_luminance: .nan}\n", "line 7, column 23: gate.min_luminance: input should be a finite"),
        (GOOD + "camera: {source: replay}\n", "line 7, column 1: camera: source: replay needs path"),
        (GOOD + "camera: {source: webcam}\n", "line 7, column 18: camera.source: input should be 'auto'"),
        (GOOD + "camera: {source: gstreamer}\n", "line 7, column 1: camera: source: gstreamer needs pipeline"),
        (GOOD + "camera: {source: gstreamer, pipeline: ' '}\n", "camera: source: gstreamer needs pipeline"),
        (GOOD + "camera: {pipeline: v4l2src}\n", "line 7, column 1: camera: pipeline is for source: gstreamer, not a"),
        (GOOD + "camera: {source: picamera, device: /dev/video0}\n", "camera: device of source: picamera is a number"),
        (GOOD + "state_dir: var\n", "line 7, column 12: state_dir: must be an absolute path"),
        (GOOD + "terminal_id: a b\n", "line 7, column 14: terminal_id: string should match"),
        (GOOD + "outbox: {key: secret}\n", "line 7, column 15: outbox.key: a secret is never written in the file"),
        (GOOD + "outbox: {key: {}}\n", "line 7, column 10: outbox.key: give exactly one of credential, file and env"),
        (GOOD + "outbox: {key: {env: A, file: /b}}\n", "outbox.key: give exactly one of"),
        (GOOD + "log: {level: info}\nlog: {level: debug}\n", "line 8, column 1: log: given twice (first in line 7)"),
        (GOOD.replace("https:", "http:"), "line 3, column 13: cypherface.base_url: plain http:// is accepted for"),
        (GOOD.replace("https:", "ftp:"), "line 3, column 13: cypherface.base_url: must be an https:// URL"),
        (GOOD.replace("https://", "https://u:p@"), "cypherface.base_url: must not hold credentials"),
        (GOOD.replace("0123456789abcdef01234567", "abc"), "line 4, column 16: cypherface.merchant_id: string should"),
        (GOOD.replace("[uploads.example.com]", "[]"), "cypherface.upload_hosts: list should have at least 1 item"),
        (GOOD.replace("uploads.example.com", "'*'"), "cypherface.upload_hosts.0: must be a host name"),
        (GOOD.replace("uploads.example.com", "'*.com'"), "a wildcard over a whole top-level domain"),
        (GOOD.replace("uploads.example.com", "'*.s3.amazonaws.com'"), "would be anybody's bucket"),
        (GOOD.replace("uploads.example.com", "a/b"), "cypherface.upload_hosts.0: must be a host name"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, expected: str) -> None:
    listed = problems(text)
    assert any(expected in problem for problem in listed), listed


@pytest.mark.parametrize(("text", "expected"), [("", "off"), ("liveness: {challenge: off}\n", "off"),
                                              ("liveness: {challenge: 'off'}\n", "off"),
                                              ("liveness: {challenge: head_turn}\n", "head_turn")])  # fmt: skip
def test_no_challenge_is_asked_unless_the_file_says_so(text: str, expected: str) -> None:
    found = parse(GOOD + text).liveness
    assert (found.challenge, found.unavailable, found.cannot_turn) == (expected, "reject", "blink")


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    listed = problems("terminal_id: 'a b'\ncypherface: {base_url: x}\nsesion: {}\n")
    lines = [int(problem.split(",")[0].removeprefix("line ")) for problem in listed]
    assert len(listed) == 6
    assert lines == sorted(lines)


def test_loopback_may_be_plain_http() -> None:
    url = "http://127.0.0.1:8799/"
    assert parse(GOOD.replace("https://staging.cypherface.com", url)).cypherface.base_url == url


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration .*: No such file"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(tmp_path / "c.yaml")


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    assert SecretRef(env="SECRET").read() == b"s3cret"


def test_a_secret_is_read_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    assert SecretRef(file=path).read() == b"s3cret"


def test_a_systemd_credential_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api").write_text("s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert SecretRef(credential="api").read() == b"s3cret"


@pytest.mark.parametrize(("mode", "content", "code"), [(0o644, "x", "secret_exposed"), (0o600, "\n", "secret_missing")])
def test_an_unusable_secret_file_is_refused(tmp_path: Path, mode: int, content: str, code: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        SecretRef(file=path).read()
    assert caught.value.code == code


@pytest.mark.parametrize("reference", [SecretRef(env="NOT_SET_ANYWHERE"), SecretRef(credential="none"),
                                       SecretRef(file=Path("/does/not/exist"))])  # fmt: skip
def test_a_missing_secret_says_what_to_try(reference: SecretRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        reference.read()
    assert caught.value.code == "secret_missing"
    assert caught.value.hint
