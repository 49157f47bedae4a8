"""What the running agent says of itself: its status and its metrics, without what could name a person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from edge_agent.bundle.part import Found, Gap, Member, Terminal, as_json
from edge_agent.bundle.picking import HOW_MANY, NUMBER, WORD, Shape, picked
from edge_agent.metrics.catalogue import METRICS, PROCESS

ANSWER_S: Final = 20.0
STATUS: Final[Shape] = {
    "version": WORD, "simulator": NUMBER, "started_at": WORD, "uptime_s": NUMBER, "started": NUMBER, "ready": NUMBER,
    "searching": NUMBER, "aiming": NUMBER, "pack": WORD, "frames": {"*": NUMBER}, "first_frame_after_s": NUMBER,
    "faults": ({"part": WORD, "code": WORD, "detail": WORD, "hint": WORD},),
    "configuration": {
        "last_reload": {"at": WORD, "ok": NUMBER, "problems": HOW_MANY}, "reloads": {"*": NUMBER},
        "restart_needed": (WORD,), "trial": {"phase": WORD, "left_s": NUMBER},
    },
    "camera": {"state": WORD, "step": WORD, "failures": NUMBER, "code": WORD, "detail": WORD, "hint": WORD,
               "steps_taken": {"*": NUMBER}},
    "network": {"state": WORD, "stopped_code": WORD, "last_success_at": WORD},
    "queue": {"error": WORD, "depth": NUMBER, "parked": NUMBER, "bytes": NUMBER, "oldest_age_s": NUMBER,
              "states": {"*": NUMBER}},
    "storage": {"error": WORD, "takes_captures": NUMBER, "problem": WORD, "free_bytes": NUMBER, "reserve_bytes": NUMBER,
                "rotation": WORD, "reopened": NUMBER, "salvaged": {"kept": NUMBER, "lost": HOW_MANY}},
    "offline": {
        "policy": WORD, "matches": {"verified": NUMBER, "not_verified": NUMBER, "newest_at": WORD},
        "provisional": {"threshold": NUMBER, "measured": NUMBER, "templates": NUMBER, "users": NUMBER, "blocked": NUMBER,
                        "unconfirmed": NUMBER, "answers": NUMBER, "offline_s": NUMBER, "counts": {"*": NUMBER}},
    },
    "access": {"refused": {"*": NUMBER}, "tokens": (WORD,)},
}  # fmt: skip
"""Of ``GET /v1/status``. ``network.last_error`` is not: it is what the service said, and may name a user."""
_NAMES = {metric.name for metric in METRICS}
_SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>[0-9.eE+-]+|[+-]Inf|NaN)")
_LABEL = re.compile(r'(?P<name>[a-z_]+)="(?P<value>(?:[^"\\]|\\.)*)"')
METRICS_BYTES: Final = 512 * 1024


def status(terminal: Terminal) -> Iterator[Found]:
    """``status.json``."""
    with terminal.around.sources.client(terminal.socket, ANSWER_S) as client:
        told = client.status()
    yield as_json("status.json", picked(told, STATUS, terminal.cleaner), "what the running agent says of itself")


def metrics(terminal: Terminal) -> Iterator[Found]:
    """``metrics.txt``: the samples that docs/metrics.md lists."""
    with terminal.around.sources.client(terminal.socket, ANSWER_S) as client:
        page = client.metrics()
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    kept = [clean for line in lines if (clean := _sample(line, terminal)) is not None]
    yield Member("metrics.txt", "".join(f"{line}\n" for line in kept).encode(), "the agent's metrics", METRICS_BYTES)
    if len(kept) < len(lines):
        yield Gap("metrics", f"{len(lines) - len(kept)} lines are none of ours and were left out")


def _sample(line: str, terminal: Terminal) -> str | None:
    found = _SAMPLE.fullmatch(line)
    if found is None or not (_is_ours(found["name"]) or found["name"].startswith(PROCESS)):
        return None
    labels = ",".join(
        f'{label["name"]}="{terminal.cleaner.text(label["value"])}"' for label in _LABEL.finditer(found["labels"] or "")
    )
    return f"{found['name']}{{{labels}}} {found['value']}" if labels else f"{found['name']} {found['value']}"


def _is_ours(name: str) -> bool:
    return name in _NAMES or any(name.removesuffix(end) in _NAMES for end in ("_bucket", "_sum", "_count"))
