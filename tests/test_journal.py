"""Where the log goes and in which form; nobody's id or secret is in any of them."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.config import LogSection
from edge_agent.errors import report
from edge_agent.journal import JournalHandler, JsonLines, is_journal, setup_logging
from edge_agent.moments import EVENTS, told
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE, raw
from tests.metrics.conftest import PATIENT
from tests.project.tree import ROOT
from tests.terminal import Terminal, terminal

LOGGING = (ROOT / "docs/logging.md").read_text(encoding="utf-8")
log = logging.getLogger("edge_agent.test_journal")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, quiet = logging.getLogger(), ("httpx", "httpcore", "uvicorn.access", "uvicorn.error")
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in quiet}
    root.handlers = []  # setup_logging closes what it finds
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    for name in quiet:
        logging.getLogger(name).setLevel(levels[name])


class Journal:
    """Reads what systemd-journald would, by its protocol's own words."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "journal.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(20)

    def read(self) -> dict[str, str]:
        """One message: NAME=value lines, or NAME, newline, 8 bytes of length, the value, newline."""
        data, found = self._socket.recv(1 << 20), {}
        while data:
            line, _, rest = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                length = int.from_bytes(rest[:8], "little")
                value, rest = rest[8 : 8 + length], rest[8 + length :]
                assert rest[:1] == b"\n"
                rest = rest[1:]
            assert name.decode() not in found
            found[name.decode()], data = value.decode(), rest
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path)
    yield found
    found.close()


@pytest.fixture
def here(listening: Journal, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """As under systemd: stderr is what JOURNAL_STREAM names, and the journal listens."""
    found = os.fstat(sys.__stderr__.fileno()) if sys.__stderr__ else None
    assert found is not None
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    monkeypatch.setitem(os.environ, "JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(JournalHandler.__init__, "__defaults__", (listening.address,))
    return listening


def test_under_systemd_a_message_has_its_level_its_event_and_its_fields(here: Journal) -> None:
    setup_logging(LogSection())
    log.warning(
        "cannot forward %s", "v-1", extra=told("forward_failed", verification="v-1", code="timeout", status=504)
    )
    assert here.read() == {
        "MESSAGE": "cannot forward v-1",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "edge-agent",
        "LOGGER": "edge_agent.test_journal",
        "EDGE_AGENT_EVENT": "forward_failed",
        "EDGE_AGENT_VERIFICATION": "v-1",
        "EDGE_AGENT_CODE": "timeout",
        "EDGE_AGENT_STATUS": "504",
    }


def test_nothing_in_a_value_can_pass_for_a_field_of_its_own(here: Journal) -> None:
    setup_logging(LogSection())
    log.error("first\nPRIORITY=7\n", extra=told("audit_head", head="1\nMESSAGE=forged"))
    found = here.read()
    assert (found["MESSAGE"], found["PRIORITY"]) == ("first\nPRIORITY=7\n", "3")
    assert found["EDGE_AGENT_HEAD"] == "1\nMESSAGE=forged"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_form_that_is_asked_for_is_kept_under_systemd_too(here: Journal, form: str) -> None:
    setup_logging(LogSection(format=form))
    assert [type(handler) for handler in logging.getLogger().handlers] == [logging.StreamHandler]


@pytest.mark.parametrize(
    ("address", "message"),
    [("nobody.sock", "still told"), ("journal.sock", "x" * (4 << 20))],
    ids=["nobody", "too long"],
)
def test_what_the_journal_does_not_take_goes_to_stderr(
    tmp_path: Path, listening: Journal, capsys: pytest.CaptureFixture[str], address: str, message: str
) -> None:
    with closing(JournalHandler(logging.StreamHandler(sys.stderr), str(tmp_path / address))) as handler:
        handler.handle(record_of(message))
    assert capsys.readouterr().err == message + "\n"


def test_a_message_that_cannot_be_formatted_ends_nothing(
    listening: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(JournalHandler(logging.NullHandler(), listening.address)) as handler:
        handler.handle(record_of("%d", "no number"))
    assert "Logging error" in capsys.readouterr().err


def record_of(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("edge_agent", logging.INFO, "", 1, message, args, None)


@pytest.mark.parametrize("stream", ["", "8", "8:15", "nonsense:x"])
def test_a_stream_that_systemd_does_not_name_is_no_journal(tmp_path: Path, stream: str) -> None:
    with (tmp_path / "file").open("w") as file:
        assert not is_journal(file, {"JOURNAL_STREAM": stream})
        found = os.fstat(file.fileno())
        assert is_journal(file, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert not is_journal(file, {"JOURNAL_STREAM": stream})


def test_a_json_line_has_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSection(format="json"))
    log.info("taken", extra=told("configuration_taken", changed=["log.level"], restart_needed=[]))
    log.error("old", extra={"code": "tampered"})
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["changed"], first["restart_needed"]) == ("configuration_taken", ["log.level"], [])
    assert (second["code"], second["level"], "event" in second) == ("tampered", "error", False)


class Everything(logging.Handler):
    """Every record in every form."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text, self.events = "", list[str]()
        self._journal = JournalHandler(logging.NullHandler())

    def emit(self, record: logging.LogRecord) -> None:
        lines = b"".join(self._journal._lines(record))
        self.text += JsonLines().format(record) + record.getMessage() + lines.decode(errors="replace")
        self.events.append(getattr(record, "event", ""))

    def close(self) -> None:
        self._journal.close()
        super().close()


def test_no_user_and_no_secret_is_in_any_form_of_the_log(tmp_path: Path) -> None:
    user, nobody, reference, token = "alice-planted-4711", "mallory-planted-0815", "order-planted-42", "planted" * 8
    heard = Everything()
    ours = logging.getLogger("edge_agent")
    level = ours.level
    ours.addHandler(heard)
    ours.setLevel(logging.DEBUG)
    try:
        with SandboxServer() as sandbox, terminal(tmp_path, sandbox, **PATIENT) as t:
            sandbox.enrol(user, SOURCE)
            secret = (tmp_path / "api.key").read_text()
            _live(t, user, nobody, reference, token)
    finally:
        ours.removeHandler(heard)
        ours.setLevel(level)
        heard.close()
    assert {"verification_state", "forward_failed", "network_changed", "access_refused"} <= set(heard.events)
    assert {"unexpected_error", "storage_opened", "configuration_taken"} <= set(heard.events)
    for planted in (user, nobody, reference, token, "planted", secret, "eyJ", "Bearer"):
        assert planted not in heard.text


def _live(t: Terminal, user: str, nobody: str, reference: str, token: str) -> None:
    """What can go well and badly with a user, a reference and a token in the request."""
    with t.client() as client, raw(t) as http:
        assert client.verify(user, wait_s=60, reference=reference).approved
        assert client.verify(nobody, wait_s=60).state == "failed"
        http.get(f"/v1/verifications/{user}")
        http.get("/v1/health", headers={"Origin": f"http://{user}", "Authorization": f"Bearer {token}"})
        http.put(f"/v1/users/{user}/source", content=b"no picture", headers={"Content-Type": "image/jpeg"})
        http.delete(f"/v1/users/{user}")
        client.reload()
    report(log, ValueError(f"a library quotes {user}"), "the test ended unexpectedly")


# -- the log's moments ------------------------------------------------------------------------------------------------


def calls_of_told() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(file, event, fields) of every call in the code."""
    for file in sorted((ROOT / "edge_agent").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "told":
                event = ast.literal_eval(node.args[0])
                yield file.name, event, tuple(keyword.arg or "**" for keyword in node.keywords)


def test_every_moment_of_the_log_is_listed_with_its_fields_and_happens() -> None:
    called = list(calls_of_told())
    assert [(file, event, fields) for file, event, fields in called if EVENTS.get(event) != fields] == []
    assert {event for _, event, _ in called} == EVENTS.keys()


def test_the_page_on_logging_has_every_moment_with_its_fields() -> None:
    table = LOGGING.partition("\n## The moments\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)
    assert [(event, tuple(re.findall(r"`(\w+)`", fields))) for event, fields in rows] == list(EVENTS.items())
