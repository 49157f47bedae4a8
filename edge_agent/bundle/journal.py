"""The unit's newest log records: fields of ours by their names, messages cleaned, and messages of others not at all.

A message of ours holds no user id, token or URL (docs/logging.md); one of a library may quote what it was given, so it
is told only that there was one. The journal's own list of fields (``--output-fields``) is a first sieve.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edge_agent.bundle.part import Found, Gap, Member, Terminal, as_json
from edge_agent.camera import last_exit
from edge_agent.doctor.systemd import UNIT
from edge_agent.moments import EVENTS
from edge_agent.types import JsonObject

RECORDS: Final = 5000
JOURNAL_BYTES: Final = 2 << 20
"""Of ``journal.jsonl``; the oldest are left out."""
LIMIT_S: Final = 30.0
CAMERA_EVENTS: Final = 50
_PREFIX: Final = "EDGE_AGENT_"
_BASIC = ("MESSAGE", "PRIORITY", "LOGGER", "SYSLOG_IDENTIFIER", "_PID")
_OF_EVENTS = sorted({f"{_PREFIX}{name.upper()}" for fields in EVENTS.values() for name in (*fields, "event", "code")})
COMMAND: Final = (
    "journalctl", "--unit", UNIT, "--lines", str(RECORDS), "--no-pager", "--quiet", "--output", "json",
    f"--output-fields={','.join((*_BASIC, *_OF_EVENTS))}",
)  # fmt: skip
_TEXT = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<logger>[\w.]+): (?P<message>.*)", re.DOTALL)
_FRAME = re.compile(r'\s+File "[^"]+", line \d+, in [\w<>]+')
_LEVELS = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_OURS: Final = "edge_agent"


@dataclass(frozen=True, slots=True)
class Record:
    """A log record as it came, whatever the form of the log."""

    source: str | None
    """The logger, ``systemd``, or None where nobody says."""
    priority: int | None
    message: str
    event: str | None
    fields: dict[str, Any]


def journal(terminal: Terminal) -> Iterator[Found]:
    """``journal.jsonl``, the newest last, and ``camera.json``: what became of the camera."""
    said = terminal.around.sources.run(COMMAND, LIMIT_S).splitlines()
    told, left_out = _newest(said, terminal)
    yield from _camera(terminal, [record for record in told if str(record.get("event", "")).startswith("camera_")])
    if not told:
        yield Gap("journal", "it has no record of the service, or this user may not read it: call as root")
        return
    if left_out:
        yield Gap("journal", f"the oldest {left_out} of {len(said)} records were left out for their size")
    content = "".join(f"{_line(record)}\n" for record in told).encode()
    yield Member("journal.jsonl", content, f"the newest log records of {UNIT}, one a line", JOURNAL_BYTES)


def _newest(lines: list[str], terminal: Terminal) -> tuple[list[JsonObject], int]:
    """As many as there is room for, and how many are left out; those are not even looked at."""
    told: list[JsonObject] = []
    room = JOURNAL_BYTES
    for looked_at, line in enumerate(reversed(lines)):
        entry = _parsed(line)
        if entry is None:
            continue
        record = _told(entry, terminal)
        room -= len(_line(record).encode()) + 1
        if room < 0:
            return told[::-1], len(lines) - looked_at
        told.append(record)
    return told[::-1], 0


def _line(record: JsonObject) -> str:
    return json.dumps(record, ensure_ascii=False)


def _camera(terminal: Terminal, events: list[JsonObject]) -> Iterator[Found]:
    state_dir = terminal.config.state_dir if terminal.config is not None else None
    hidden = state_dir is not None and state_dir.exists() and not os.access(state_dir, os.R_OK | os.X_OK)
    if hidden:
        yield Gap("camera", "this user may not read when the agent last ended for its camera's sake")
    exit_ = None if hidden or state_dir is None else last_exit.read(state_dir)
    here = exit_ is not None and exit_.boot_id == terminal.around.sources.clock.boot_id()
    told = {
        "last_exit": None if exit_ is None else {"this_boot": here, "boottime_s": exit_.boottime_s},
        "events": events[-CAMERA_EVENTS:],
    }
    yield as_json("camera.json", told, "when the agent ended for its camera's sake, and the journal's camera records")


def _parsed(line: str) -> JsonObject | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _told(entry: JsonObject, terminal: Terminal) -> JsonObject:
    record = _record(entry)
    return {
        "at": _when(entry.get("__REALTIME_TIMESTAMP")),
        "priority": record.priority,
        "source": terminal.cleaner.text(record.source) if record.source else None,
        **_moment(record, terminal),
        "message": _message(record, terminal),
    }


def _record(entry: JsonObject) -> Record:
    """From the journal's fields, or from a line on stderr in one of our two other forms."""
    message = entry.get("MESSAGE")
    text = message if isinstance(message, str) else ""
    priority = entry.get("PRIORITY")
    number = int(priority) if isinstance(priority, str) and priority.isdigit() else None
    identifier = entry.get("SYSLOG_IDENTIFIER")
    if entry.get("_PID") == "1" or (isinstance(identifier, str) and re.fullmatch(r"\(.+\)", identifier)):
        # the second: what systemd says between its fork and the program, such as "Failed to set up credentials"
        return Record("systemd", number, text, None, {})
    if isinstance(entry.get("LOGGER"), str):
        fields = {name.removeprefix(_PREFIX).lower(): v for name, v in entry.items() if name.startswith(_PREFIX)}
        return Record(entry["LOGGER"], number, text, _word(fields.get("event")), fields)
    return _from_json(text) or _from_text(text) or Record(None, number, text, None, {})


def _from_json(text: str) -> Record | None:
    line = _parsed(text) if text.startswith("{") else None
    if line is None or not isinstance(line.get("logger"), str):
        return None
    priority = _LEVELS.get(str(line.get("level")))
    return Record(line["logger"], priority, str(line.get("message", "")), _word(line.get("event")), line)


def _from_text(text: str) -> Record | None:
    if _FRAME.fullmatch(text):  # of a traceback: every line of it is a record
        return Record(_OURS, None, text, None, {})
    found = _TEXT.fullmatch(text)
    return (
        None if found is None else Record(found["logger"], _LEVELS[found["level"].lower()], found["message"], None, {})
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _moment(record: Record, terminal: Terminal) -> JsonObject:
    """The event and the fields that it has by docs/logging.md; a verification by the beginning of its id."""
    if record.event not in EVENTS or not _is_ours(record):
        return {}
    names = dict.fromkeys((*EVENTS[record.event], "code"))
    fields = {name: _field(name, record.fields[name], terminal) for name in names if name in record.fields}
    return {"event": record.event, "fields": fields}


def _field(name: str, value: Any, terminal: Terminal) -> Any:
    if name == "verification" and isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value):
        return f"{value[:8]}…"
    return terminal.cleaner.value(value)


def _message(record: Record, terminal: Terminal) -> str:
    if _is_ours(record) or record.source == "systemd":
        return terminal.cleaner.text(record.message)
    return f"[withheld: {len(record.message)} characters that are not of this program]"


def _is_ours(record: Record) -> bool:
    return record.source is not None and record.source.split(".")[0] == _OURS


def _when(microseconds: object) -> str | None:
    if not isinstance(microseconds, str) or not microseconds.isdigit() or len(microseconds) > 17:
        return None
    return datetime.fromtimestamp(int(microseconds) / 1e6, UTC).isoformat(timespec="milliseconds")
