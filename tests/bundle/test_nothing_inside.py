"""Tokens, keys, user ids, references, pictures, embeddings and signed URLs, planted everywhere: none is in a bundle."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from edge_agent.bundle.archive import packed
from edge_agent.bundle.collecting import Bundle, collect
from edge_agent.bundle.journal import RECORDS
from tests.bundle.planted import (
    ALL,
    BLOBS,
    FLOATS,
    GUEST,
    INLINE,
    OTHER_SECRET,
    TEXTS,
    UNIT,
    USER,
    WORDS,
    decoded,
    fill,
    found_in,
    journal,
    planted,
    surroundings,
)
from tests.doctor.certificates import Authority
from tests.doctor.patient import Patient

MEMBERS = {
    "manifest.json", "configuration.json", "doctor.json", "status.json", "metrics.txt", "outbox.json", "camera.json",
    "journal.jsonl", "service.json", "unit.txt", "versions.json", "hardware.json", "models.json",
}  # fmt: skip


def test_the_search_finds_everything_where_it_was_planted() -> None:
    everything = found_in(f"{ALL}\n{UNIT}".encode())
    assert set(everything) == {*WORDS, *BLOBS, *map(str, FLOATS)}
    for text in TEXTS:
        assert found_in(text.encode()), text[:80]


@pytest.fixture(scope="module")
def bundle(trusted: tuple[Authority, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    issuer, port = trusted
    with ExitStack() as stack:
        yield planted(Patient(tmp_path_factory.mktemp("terminal"), port, issuer, stack))


def test_nothing_of_it_is_in_any_byte_of_any_member(bundle: Bundle) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(bundle)), mode="r:gz") as tar:
        files = {entry.name.rpartition("/")[2]: tar.extractfile(entry) for entry in tar.getmembers()}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    assert set(contents) == MEMBERS
    assert {name: found for name, content in contents.items() if (found := found_in(content + name.encode()))} == {}
    assert [(gap.part, gap.why) for gap in bundle.gaps] == [("metrics", "2 lines are none of ours and were left out")]


def test_what_helps_is_in_it_all_the_same(bundle: Bundle) -> None:
    told = {member.name: member.content.decode() for member in bundle.members}
    config = json.loads(told["configuration.json"])
    assert config["cypherface.merchant_id"]["value"] == "24 hex digits that end in ffee"
    assert config["cypherface.api_key"]["value"]["file"].endswith("/api.key")
    assert config["outbox.reserve_bytes"]["value"] == 0
    assert config["outbox.reserve_bytes"]["line"] > 1
    assert config["gate.max_yaw_deg"] == {"value": 20.0, "line": None}
    assert config["api.roles.pos.users"]["value"] == "1 entries"
    assert config["camera.pipeline"]["value"].startswith("rtspsrc location=[redacted] user-id=[redacted] ! x")
    outbox = json.loads(told["outbox.json"])
    assert (outbox["waiting"], outbox["states"]["captured"], outbox["states"]["pending"]) == (4, 3, 1)
    assert outbox["captures"]["by_age"] == {"under_1_min": 4}
    assert outbox["captures"]["by_error"] == {"waiting: none": 4}
    assert outbox["files"]["others"]["files"] >= 1
    assert json.loads(told["status.json"])["uptime_s"] == 4711.0
    assert told["metrics.txt"].splitlines()[0] == "edge_agent_ready 1.0"
    camera = json.loads(told["camera.json"])
    assert camera["last_exit"] == {"this_boot": True, "boottime_s": 42.0}
    assert camera["events"][0]["fields"] == {"code": "gone"}
    assert "DeviceAllow=char-video4linux rw" in told["unit.txt"]
    assert "Environment=OMP_NUM_THREADS=1 " in told["unit.txt"]
    assert json.loads(told["hardware.json"])["disks"] == {"mmcblk0": {"bytes": 512_000}}
    assert json.loads(told["hardware.json"])["processor"] == ["A CPU", "A board"]
    assert json.loads(told["versions.json"])["os"] == {"id": "debian", "version_id": "12", "pretty_name": "Debian"}
    assert {file["state"] for file in json.loads(told["models.json"])["files"]} == {"ok"}
    ids = {check["id"]: check["status"] for check in json.loads(told["doctor.json"])["checks"]}
    assert ids["config.file"] == "warn"  # the agent goes on with the old one
    assert ids["audit.chain"] == "fail"


def test_the_journal_keeps_moments_and_messages_of_ours(bundle: Bundle) -> None:
    member = bundle.member("journal.jsonl")
    assert member is not None
    records = decoded(member.content)
    assert len(records) == len(list(journal())) - 1 < RECORDS
    assert records[0] == {
        "at": "2030-06-01T00:00:00.000+00:00", "priority": 4, "source": "edge_agent.camerakeeper", "event": "camera_lost",
        "fields": {"code": "gone"}, "message": "camera lost: made up",
    }  # fmt: skip
    failed = next(record for record in records if record.get("event") == "forward_failed")
    assert failed["fields"]["verification"] == "5f1b9a7e…"
    assert set(failed["fields"]) == {"verification", "code"}
    assert failed["message"].startswith("cannot forward: no such user: [redacted] ")
    assert {r["message"][:10] for r in records if r["source"] in {None, "httpx", "urllib3"}} == {"[withheld:"}


@pytest.mark.parametrize("text", [f"cypherface: {{api_key: {INLINE}}}\n{USER}: {GUEST}\ncamera: {{fps: '{OTHER_SECRET}'}}\n",
                                  f"{INLINE}: [{USER}\n", f"- {INLINE}\n"])  # fmt: skip
def test_a_configuration_that_cannot_be_used_is_not_quoted(patient: Patient, text: str) -> None:
    fill(patient)
    patient.broken_config = text
    found = collect(patient.config_file(), surroundings(patient))
    # without the outbox its names are not known: what is not ours is still withheld, and no key or value is quoted
    told = {
        m.name: m.content for m in found.members if m.name in {"manifest.json", "configuration.json", "doctor.json"}
    }
    assert all(word.encode() not in content for word in (INLINE, OTHER_SECRET) for content in told.values())
    assert USER.encode() not in told["configuration.json"]
    assert {"configuration", "names", "outbox", "models"} <= {gap.part for gap in found.gaps}
