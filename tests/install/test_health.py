"""Is it well, and for how long."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.installer.health import CALM_S, Doctor, Health, look
from tests.install.stage import NO_CAMERA, READY, STARTING


class Patient:
    """Shows its conditions one a second; the last one stays."""

    def __init__(self, *conditions: Health | None) -> None:
        self._conditions = conditions
        self.now_s = 0.0

    def look(self) -> Health | None:
        return self._conditions[min(int(self.now_s), len(self._conditions) - 1)]

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def wait(self, before: Health | None, within_s: float = 60.0) -> str | None:
        return Doctor(self.look, clock=lambda: self.now_s, sleep=self.sleep).wait(before, within_s)


def test_it_must_be_well_for_a_while() -> None:
    patient = Patient(None, STARTING, READY)
    assert patient.wait(READY) is None
    assert patient.now_s >= 2 + CALM_S


def test_one_that_dies_after_its_first_answer_is_not_well() -> None:
    assert Patient(READY, READY, None).wait(None) == "its API did not answer within 60 s"


def test_dying_again_and_again_is_not_well() -> None:
    assert Patient(*([READY, READY, READY, None] * 20)).wait(None) is not None


def test_what_is_worse_than_before_is_told() -> None:
    assert Patient(NO_CAMERA).wait(READY, 20) == "it is degraded (missing: camera) after 20 s, and was ready before"


def test_after_a_start_from_nothing_an_answer_is_enough() -> None:
    assert Patient(NO_CAMERA).wait(None) is None


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """A socket whose server gives the answers of a list, one a connection."""
    path, answers = tmp_path / "api.sock", list[bytes]()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                if not answers:
                    return
                connection.sendall(answers.pop(0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, answers
    answers.clear()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
        last.connect(str(path))
        last.sendall(b"end")
    thread.join()
    server.close()


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


ANSWERS = [
    (http(200, json.dumps({"ready": True, "missing": {}}).encode()), READY),
    (http(503, json.dumps({"ready": False, "missing": {"camera": "x"}}).encode()), NO_CAMERA),
    (http(403, json.dumps({"code": "forbidden"}).encode()), None),
    (http(200, b"<html>"), None),
    (http(200, b"[]"), None),
    (b"", None),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
def test_the_agent_is_asked_over_its_socket(
    answering: tuple[Path, list[bytes]], answer: bytes, expected: Health | None
) -> None:
    path, answers = answering
    answers.append(answer)
    assert look(path) == expected


def test_nobody_there_is_no_answer(tmp_path: Path) -> None:
    assert look(tmp_path / "api.sock") is None
