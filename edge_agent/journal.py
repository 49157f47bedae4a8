"""Where log records go, and in which form: text for people, JSON lines, or the journal's own fields.

Under systemd stderr is the journal (``JOURNAL_STREAM`` says so); then a record is sent as its native protocol takes it
(systemd.io, "Native Journal Protocol"): the level as ``PRIORITY``, the event and its fields as fields of their own, to
be asked for with ``journalctl EDGE_AGENT_EVENT=forward_failed``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final

from edge_agent.config import LogSection

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "edge-agent"
PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""syslog(3): critical, error, warning, informational, debug."""


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The event's key, the code of ours and the event's fields, as far as there are some."""
    found = {name: value for name in ("event", "code") if (value := getattr(record, name, None))}
    return {**found, **getattr(record, "fields", {})}


class JsonLines(logging.Formatter):
    """One JSON object a line: when, level, logger, message, and what ``fields_of`` gives."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class JournalHandler(logging.Handler):
    """Sends to the journal; what it does not take goes to ``instead``. Never waits: a journal that hangs must not."""

    def __init__(self, instead: logging.Handler, address: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._instead = instead
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(b"".join(self._lines(record)), self._address)
        except OSError:  # no journal, a full one, or a record that is too long for a datagram
            self._instead.handle(record)
        except Exception:  # a message that cannot be formatted must not end what it tells of
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _lines(self, record: logging.LogRecord) -> Iterator[bytes]:
        priority = next(number for level, number in PRIORITIES if record.levelno >= level)
        yield _field("MESSAGE", self.format(record))
        yield _field("PRIORITY", str(priority))
        yield _field("SYSLOG_IDENTIFIER", IDENTIFIER)
        yield _field("LOGGER", record.name)
        for name, value in fields_of(record).items():
            yield _field(
                f"EDGE_AGENT_{name.upper()}", value if isinstance(value, str) else json.dumps(value, default=str)
            )


def _field(name: str, value: str) -> bytes:
    """Always in the form for values of several lines: nothing in a value can pass for a field of its own."""
    data = value.encode(errors="replace")
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def setup_logging(settings: LogSection) -> None:
    """Logs go to stderr, or as fields to the journal. Pre-signed URLs are secrets: the HTTP library is kept quiet."""
    logging.basicConfig(level=settings.level.upper(), handlers=[_handler(settings.format)], force=True)
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are a line for each bad request


def _handler(form: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    return JournalHandler(handler) if form == "auto" and is_journal(sys.stderr) else handler


def is_journal(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``stream`` is the one that systemd connected with the journal: a pipe put in between is not."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or none of the system's
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
