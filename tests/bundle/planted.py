"""What must never leave a terminal, put wherever it could come from, and the search for it in every form."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edge_agent.api.wire_outbox import AuditCheck
from edge_agent.bundle.collecting import Bundle, collect
from edge_agent.bundle.part import Surroundings
from edge_agent.camera.ladder import ExitRecord
from edge_agent.camera.last_exit import save
from edge_agent.doctor.examination import run_checks, to_json
from edge_agent.errors import EnvironmentFault
from edge_agent.outbox.records import Consent
from edge_agent.types import JsonObject
from tests.doctor.patient import API_KEY, KEY, MERCHANT, STATUS, TOKEN, Patient
from tests.outbox.fakes import ENVIRONMENT, capture, picture

USER, SHORT_USER, PHONE_USER = "customer-4711-jane-roe", "zoe7", "4915112345678"
"""In the outbox."""
REFERENCE, CONSENT = "order-0815-of-jane", "consent-form-jane"
GUEST = "guest-of-nobody"
"""A user id that the outbox does not know: an enrolment's, one of long ago."""
MAIL = "jane.roe@mail.example"
LIVE_KEY = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
OTHER_SECRET = "correct-horse-battery"
INLINE = "inline-secret-of-a-beginner"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01" + picture("planted", 3000) + b"\xff\xd9"
EMBEDDING = np.random.default_rng(4711).normal(size=128).astype(np.float32)
FLOATS = [round(float(value), 7) for value in EMBEDDING]
PRESIGNED = (
    f"https://bucket.example/faces/{USER}.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE"
    "&X-Amz-Signature=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)
SIGNATURE = PRESIGNED.rpartition("=")[2]
WORDS = (
    USER, SHORT_USER, PHONE_USER, REFERENCE, CONSENT, GUEST, MAIL, LIVE_KEY, OTHER_SECRET, INLINE, API_KEY, KEY, TOKEN,
    MERCHANT, SIGNATURE, "AKIAIOSFODNN7EXAMPLE",
)  # fmt: skip
BLOBS = {"picture": JPEG, "embedding": EMBEDDING.tobytes(), "doubles": struct.pack("<128d", *FLOATS)}


def in_words(word: str) -> set[bytes]:
    """A word as it may stand somewhere: in clear, hex, base64 wherever it begins."""
    data = word.encode()
    found = {data.lower(), data.hex().encode()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).rstrip(b"=")
        inner = encoded[4 if before else 0 : -2]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in found if len(form) >= 4}


def in_slices(blob: bytes) -> set[bytes]:
    """Pieces of 15 bytes, each in clear, hex and base64; as numbers and escapes too."""
    pieces = [blob[i : i + 15] for i in range(0, len(blob) - 15, 15)]
    found = {form for piece in pieces for form in (piece, piece.hex().encode(), base64.b64encode(piece))}
    found |= {", ".join(map(str, piece)).encode() for piece in pieces}
    return (
        found
        | {ascii(piece)[2:-1].encode() for piece in pieces}
        | {piece.decode("latin-1").encode() for piece in pieces}
    )


def found_in(content: bytes) -> list[str]:
    """What of all that is in there."""
    lower = content.lower()
    words = [word for word in WORDS if any(form in (content, lower)[form == form.lower()] for form in in_words(word))]
    blobs = [name for name, blob in BLOBS.items() if any(piece in content for piece in in_slices(blob))]
    numbers = [str(value) for value in FLOATS if str(value).lstrip("-").encode() in content]
    return [*words, *blobs, *numbers]


def texts() -> Iterator[str]:
    """Sentences of our own program and of others that hold it."""
    yield f"cannot forward: no such user: {USER} ({REFERENCE}, {CONSENT})"
    yield f'user_id={GUEST} user: {GUEST}, "userId": "{GUEST}" for {SHORT_USER}, {PHONE_USER} and {MAIL}'
    yield f"HTTP Request: PUT {PRESIGNED} with Authorization: Bearer {TOKEN}"
    yield f"x-api-key: {API_KEY}; token={TOKEN} {LIVE_KEY} password={OTHER_SECRET} {OTHER_SECRET} {INLINE} {KEY} {MERCHANT}"
    yield f"key {KEY.upper()} {base64.b64encode(KEY.encode()).decode()} {base64.b64encode(bytes.fromhex(KEY)).decode()}"
    yield f"in base64 {base64.b64encode(('user ' + USER).encode()).decode()} in hex {USER.encode().hex()}"
    for blob in BLOBS.values():
        yield f"sent {blob!r}"
        yield f"sent {blob.hex()} and {blob[:60].hex(' ')}"
        yield f"sent {base64.b64encode(blob).decode()} and {base64.urlsafe_b64encode(blob).decode()}"
        yield f"sent {list(blob)}"
        yield blob.decode("latin-1")
    yield f"embedding: {FLOATS}"
    yield f"numpy says {np.array(FLOATS[:40])}"
    yield f"model gave {json.dumps({'values': FLOATS})}"


TEXTS = tuple(texts())
ALL = "\n".join(TEXTS)


def entry(message: object, **fields: str) -> str:
    """A record as ``journalctl -o json`` gives it."""
    at = str(int(datetime(2030, 6, 1, tzinfo=UTC).timestamp() * 1e6))
    return json.dumps({"__REALTIME_TIMESTAMP": at, "PRIORITY": "4", "_PID": "77", "MESSAGE": message, **fields})


def journal() -> Iterator[str]:
    yield entry(
        "camera lost: made up", LOGGER="edge_agent.camerakeeper", EDGE_AGENT_EVENT="camera_lost", EDGE_AGENT_CODE="gone"
    )
    for text in TEXTS:
        if GUEST not in text or "user" in text:
            yield entry(text, LOGGER="edge_agent.forwarder", EDGE_AGENT_EVENT="forward_failed", EDGE_AGENT_CODE=text,
                        EDGE_AGENT_VERIFICATION="5f1b9a7e77b04c119e1c1f0c2a1f9d10", EDGE_AGENT_USER=USER)  # fmt: skip
        yield entry(f"{text} {GUEST}", LOGGER="httpx")
        yield entry(f"{text} {GUEST}", SYSLOG_IDENTIFIER="edge-agent")
        yield entry(f"INFO httpcore.{text}: {GUEST}")
        yield entry(f"INFO edge_agent.forwarder: {text}")
        yield entry(json.dumps({"logger": "edge_agent.x", "level": "error", "message": text, "traceback": GUEST}))
        yield entry(json.dumps({"logger": "urllib3", "level": "error", "message": f"{text} {GUEST}"}))
        yield entry(text, _PID="1", UNIT="edge-agent.service")
    yield entry(list(JPEG), LOGGER="edge_agent.forwarder")
    yield f"{ALL}: no JSON at all"


UNIT = f"""# /etc/systemd/system/edge-agent.service
[Service]
ExecStart=/opt/edge-agent/current/bin/edge-agent run --config /etc/edge-agent/config.yaml --token {GUEST}
# a comment about {GUEST}
ProtectSystem=strict
Environment=OMP_NUM_THREADS=1 "PASSWORD={OTHER_SECRET}" WHO={GUEST} \\
    KEY={LIVE_KEY}
SetCredential=api-key:{INLINE}
X-Whatever={GUEST}
ExecStartPre=/usr/bin/curl {PRESIGNED}
# /etc/systemd/system/edge-agent.service.d/{USER}.conf
[Service]
DeviceAllow=char-video4linux rw
{GUEST} is no directive
"""


class TalkativeAgent:
    """An agent whose every text says too much."""

    def __enter__(self) -> TalkativeAgent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self) -> JsonObject:
        fault = {"part": "camera", "code": "camera_unavailable", "detail": ALL, "hint": ALL, "who": GUEST}
        return {
            **STATUS, "terminal_id": "pos-0001", "uptime_s": 4711.0, "faults": [fault], "who": GUEST,
            "configuration": {"file": f"/home/{GUEST}", "last_reload": {"at": "now", "ok": False, "problems": [GUEST]},
                              "restart_needed": ["camera.device"]},
            "network": {"state": "online", "stopped_code": None, "last_error": f"no such user: {GUEST}", "last_success_at": None},
            "storage": {"takes_captures": True, "problem": ALL, "salvaged": {"kept": 1, "lost": [GUEST]}},
            "camera": {"state": "lost", "detail": ALL, "code": "gone", "hint": ALL, "steps_taken": {"reopen": 1}},
        }  # fmt: skip

    def metrics(self) -> str:
        return (
            f"# HELP edge_agent_ready {GUEST}\nedge_agent_ready 1.0\n"
            f'edge_agent_fault{{part="camera",code="{USER}"}} 1.0\nother_total{{user="{GUEST}"}} 1.0\n{GUEST}\n'
        )

    def audit_verify(self) -> AuditCheck:
        return AuditCheck(ok=False, records=3, head=f"3:{KEY}", first_bad=1, problem=ALL, gaps=[])


def fill(patient: Patient) -> None:
    """The outbox, the files beside it, the credentials, the configuration and what the programs say."""
    with patient.open_store() as store:
        consent = Consent(CONSENT, ("verification",))
        for user in (USER, SHORT_USER, PHONE_USER):
            capture(store, user, jpeg=JPEG, reference=REFERENCE, consent=consent, environment=ENVIRONMENT)
    (patient.state / f"{GUEST}.jpg").write_bytes(JPEG)
    (patient.state / "aside").mkdir()
    save(patient.state, ExitRecord(patient.clock.boot_id(), 42.0))
    patient.put(patient.folder / "credentials/else", OTHER_SECRET)
    patient.put(patient.folder / "os-release", f'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\nWHO={GUEST}\n')
    patient.put(patient.proc / "cpuinfo", f"model name\t: A CPU\nSerial\t\t: {GUEST}\nModel\t\t: A board\n")
    patient.put(patient.proc / "mounts", f"//server / cifs rw,username={GUEST},password={OTHER_SECRET} 0 0\n")
    patient.put(patient.sys / "block/mmcblk0/size", "1000")
    patient.put(patient.sys / "block/mmcblk0/device/serial", GUEST)
    patient.changes["camera"] = {
        "source": "gstreamer", "pipeline": f"rtspsrc location=rtsp://{GUEST}:{OTHER_SECRET}@10.0.0.1/{GUEST} user-id={GUEST} ! x",
    }  # fmt: skip
    patient.changes["api"] = {"roles": {"pos": {"users": [GUEST]}}}
    patient.status = TalkativeAgent().status()


def run(patient: Patient, *lines: str) -> Any:
    """The programs of the terminal."""

    def program(command: Sequence[str], limit_s: float) -> str:
        if command[0] == "journalctl":
            return "\n".join(lines)
        if command[:2] == ("systemctl", "cat"):
            return UNIT
        return patient._run(command, limit_s)

    return program


def surroundings(patient: Patient, *lines: str) -> Surroundings:
    """As ``fill`` left it; the doctor says too much as well."""
    doctors = replace(patient.sources(), client=lambda *_: TalkativeAgent())  # type: ignore[arg-type]

    def examine(config_path: Path, socket: Path | None) -> JsonObject:
        told = to_json(run_checks(config_path, socket=socket, sources=doctors))
        extra = [{"id": "made.up", "status": "fail", "detail": t, "mend": t, "value": t, "limit": 1.0} for t in TEXTS]
        return {**told, "checks": [*told["checks"], *extra], "who": GUEST}

    return Surroundings(
        sources=replace(doctors, run=run(patient, *lines)),
        os_release=patient.folder / "os-release",
        credential_folders=(patient.folder / "credentials",),
        environment={
            "SOME_TOKEN": TOKEN,
            "LIVE_KEY": LIVE_KEY,
            "WHO": GUEST,
            "OTHER_SECRET": INLINE,
            "CREDENTIALS_DIRECTORY": str(patient.folder),
            "AUTH_MODE": "cypherface",
        },
        examine=examine,
    )


def planted(patient: Patient) -> Bundle:
    fill(patient)
    file = patient.config_file()
    file.write_text(f"# of {GUEST}\n{file.read_text()}")
    return collect(file, surroundings(patient, *journal()))


def silent(_: Path, __: float) -> Any:
    raise EnvironmentFault("cannot reach the agent", code="agent_unreachable")


def yaml_of(patient: Patient) -> Any:
    return yaml.safe_load(patient.config_file().read_text())


def decoded(content: bytes) -> list[Any]:
    """JSON, or JSON lines."""
    return [json.loads(line) for line in content.splitlines()]
