"""The doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator

from edge_agent.bundle.part import Found, Terminal, as_json
from edge_agent.bundle.picking import NUMBER, WORD, Shape, picked
from edge_agent.types import JsonObject

CHECK: Shape = {
    "id": WORD, "status": WORD, "value": WORD, "limit": WORD, "unit": WORD, "detail": WORD, "mend": WORD, "took_s": NUMBER,
}  # fmt: skip
REPORT: Shape = {"version": NUMBER, "status": WORD, "counts": {"*": NUMBER}, "checks": (CHECK,)}


def checks(terminal: Terminal) -> Iterator[Found]:
    """``doctor.json``, as ``edge-agent doctor --json`` gives it."""
    told: JsonObject = picked(
        terminal.around.examine(terminal.config_path, terminal.given_socket), REPORT, terminal.cleaner
    )
    for check in told["checks"]:
        if check["id"] == "config.file" and check["status"] != "pass":
            check["detail"] = "see configuration.json"  # it may quote what stands in the file
    yield as_json("doctor.json", told, "what works and what does not: edge-agent doctor --json")
