"""What a bundle has, what it lacks and why: with a real agent, without anything, with parts that hang or break."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent.api.wire_status import StatusBody
from edge_agent.bundle import hidden, journal
from edge_agent.bundle.agent import STATUS
from edge_agent.bundle.cleaning import Cleaner
from edge_agent.bundle.collecting import PARTS, Bundle, collect
from edge_agent.bundle.journal import COMMAND
from edge_agent.bundle.part import Gap, Member, Part, Surroundings, Terminal
from edge_agent.client import AgentClient
from edge_agent.doctor.sources import Sources
from edge_agent.errors import CameraError
from edge_agent.sandbox.server import SandboxServer
from tests.api.calls import SOURCE
from tests.bundle.planted import decoded, entry
from tests.doctor.patient import nobody
from tests.metrics.conftest import PATIENT
from tests.project.tree import ROOT
from tests.terminal import terminal

USER = "nobody-else-4711"
PAGE = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")


def nothing(*_: object) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def bare(folder: Path, **sources: Any) -> Surroundings:
    """A machine with nothing on it."""
    return Surroundings(
        sources=Sources(**{"run": nothing, "client": nobody, "proc": folder, "sys": folder, **sources}),
        os_release=folder / "os-release",
        examine=lambda *_: {"version": 1, "status": "pass", "counts": {"pass": 0}, "checks": []},
    )


def told(bundle: Bundle, name: str) -> Any:
    member = bundle.member(name)
    assert member is not None, bundle.gaps
    return json.loads(member.content)


def why(bundle: Bundle) -> dict[str, str]:
    return {gap.part: gap.why for gap in bundle.gaps}


def test_beside_a_running_agent_it_has_status_metrics_and_the_outbox_in_numbers(tmp_path: Path) -> None:
    def says(command: Sequence[str], _: float) -> str:
        return entry(f"{USER} came", LOGGER="edge_agent.x") if command == COMMAND else ""

    with SandboxServer() as sandbox:
        sandbox.enrol(USER, SOURCE)
        with terminal(tmp_path, sandbox, **PATIENT) as running:
            with running.client() as client:
                assert client.verify(USER, wait_s=60.0).approved
            around = bare(tmp_path, run=says, client=lambda socket, limit_s: AgentClient(socket, timeout_s=limit_s))
            bundle = collect(running.file, around)
    assert told(bundle, "status.json")["ready"] is True
    assert told(bundle, "outbox.json")["states"]["verified"] == 1
    metrics = bundle.member("metrics.txt")
    assert metrics is not None
    assert b'edge_agent_verifications_total{state="verified"} 1.0' in metrics.content
    assert b"edge_agent_process_" in metrics.content
    records = bundle.member("journal.jsonl")
    assert records is not None
    assert decoded(records.content)[0]["message"] == "[redacted] came", "the names were read beside the agent"
    assert set(why(bundle)) == {"service"}
    assert all(USER.encode() not in member.content for member in bundle.members)


def test_a_machine_without_anything_gives_a_bundle_that_says_so(tmp_path: Path) -> None:
    bundle = collect(tmp_path / "none.yaml", bare(tmp_path))
    assert set(why(bundle)) == {
        "names", "configuration", "status", "metrics", "outbox", "journal", "service", "models",
    }  # fmt: skip
    assert why(bundle)["journal"] == "No such file or directory"
    assert why(bundle)["status"] == "cannot reach the agent"
    assert [member.name for member in bundle.members] == [
        "manifest.json", "doctor.json", "versions.json", "hardware.json",
    ]  # fmt: skip
    assert {gap["part"]: gap["why"] for gap in told(bundle, "manifest.json")["gaps"]} == why(bundle)
    assert told(bundle, "manifest.json")["terminal_id"] == "unknown"


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    over = threading.Event()
    yield over
    over.set()


def test_a_part_that_hangs_breaks_or_is_too_large_is_a_gap_and_the_rest_is_there(
    tmp_path: Path, hung: threading.Event
) -> None:
    def hangs(_: Terminal) -> Iterator[Member]:
        assert hung.wait(60)
        yield Member("late", b"", "")

    def breaks(_: Terminal) -> Iterator[Member]:
        yield Member("half", b"", "")
        raise KeyError(USER)

    def refuses(_: Terminal) -> Iterator[Member]:
        raise CameraError("cannot open rtsp://jane:word@10.0.0.1/x: unplugged")

    def large(_: Terminal) -> Iterator[Member]:
        yield Member("large", bytes(11), "", limit_bytes=10)

    def well(_: Terminal) -> Iterator[Member | Gap]:
        yield Member("well", b"fine", "a sentence")

    looks = {"hangs": hangs, "breaks": breaks, "refuses": refuses, "large": large, "well": well}
    parts = [Part(name, look, 0.05 if name == "hangs" else 60.0) for name, look in looks.items()]
    bundle = collect(tmp_path / "none.yaml", bare(tmp_path), parts=parts)
    gaps = why(bundle)
    del gaps["names"]
    assert gaps == {
        "hangs": "it was not done within 0.05 s",
        "breaks": "it broke: KeyError",
        "refuses": "cannot open rtsp://10.0.0.1/[redacted]: unplugged",
        "large": "it has 11 bytes, more than 10: left out",
    }
    assert [member.name for member in bundle.members] == ["manifest.json", "well"]


def test_a_disk_that_hangs_leaves_the_names_unknown(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "cleaner", lambda *_: hung.wait(60))
    bundle = collect(tmp_path / "none.yaml", bare(tmp_path), parts=[], names_s=0.05)
    assert why(bundle) == {"names": "texts were not compared with the user ids in the outbox: not read within 0.05 s"}


def test_a_member_that_holds_a_secret_after_all_is_left_out_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/key").write_text("a-secret-of-it\n")
    parts = [Part("mistake", lambda _: [Member("mistake.json", b'{"x": "A-SECRET-OF-IT"}', "")], 60.0)]
    bundle = collect(tmp_path / "none.yaml", bare(tmp_path), parts=parts)
    assert why(bundle)["mistake.json"] == "it would have held a secret or a user id: left out"


def test_of_a_long_journal_the_newest_records_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_BYTES", 20_000)
    lines = [entry(f"{number} " + "word " * 40, LOGGER="edge_agent.x") for number in range(300)]
    terminal_ = Terminal(
        config_path=tmp_path, config=None, config_error=None, given_socket=None, socket=tmp_path,
        around=bare(tmp_path, run=lambda *_: "\n".join(lines)), cleaner=Cleaner(),
    )  # fmt: skip
    found = {type(one): one for one in journal.journal(terminal_)}
    member, gap = found[Member], found[Gap]
    assert isinstance(member, Member)
    assert isinstance(gap, Gap)
    assert 19_500 < len(member.content) <= 20_000
    records = decoded(member.content)
    assert records[-1]["message"].startswith("299 ")
    assert gap.why == f"the oldest {300 - len(records)} of 300 records were left out for their size"


def test_the_status_is_picked_from_fields_that_there_are() -> None:
    """A field that was renamed would be lost without a word."""

    def missing(shape: Any, schema: Any, definitions: Any, path: str) -> list[str]:
        if isinstance(shape, tuple):
            return missing(shape[0], schema.get("items", {}), definitions, path)
        if not isinstance(shape, dict) or "*" in shape:
            return []
        choices = [
            definitions[part["$ref"].rpartition("/")[2]] for part in schema.get("anyOf", [schema]) if "$ref" in part
        ]
        known = {key: value for choice in choices or [schema] for key, value in choice.get("properties", {}).items()}
        return [
            f"{path}{key}" if key not in known else lost
            for key, part in shape.items()
            for lost in (missing(part, known[key], definitions, f"{path}{key}.") if key in known else [""])
        ]

    schema = StatusBody.model_json_schema()
    assert missing(STATUS, schema, schema["$defs"], "") == []
    assert "last_error" not in repr(STATUS)


def test_the_page_names_every_part_and_every_member() -> None:
    names = {
        "manifest.json", "configuration.json", "doctor.json", "status.json", "metrics.txt", "outbox.json", "camera.json",
        "journal.jsonl", "service.json", "unit.txt", "versions.json", "hardware.json", "models.json",
    }  # fmt: skip
    assert [name for name in names if f"| `{name}` |" not in PAGE] == []
    parts = {part.name: part.limit_s for part in PARTS}
    assert [name for name, limit_s in parts.items() if f"| {name}, {limit_s:g} s |" not in PAGE] == []
