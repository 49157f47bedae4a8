"""Imports point one way: who may import whom, on one screen."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.project.tree import ROOT

pytestmark = pytest.mark.arm

# Everyone may import types, errors, the log's moments and the version. A part that is not in the table has no place yet: give it one.
MAY_IMPORT = {
    "types": "",
    "moments": "",
    "errors": "",
    "config": "evidence",
    "evidence": "",
    "picture": "",
    "events": "",
    "texts": "",
    "report": "",
    "retry": "config",
    "workers": "",
    "packs": "config",
    "gate": "config",
    "challenge": "config session texts",
    "outbox": "config",
    "cypherface": "config",
    "tracking": "config gate",
    "camera": "config picture swap",
    "vision": "config packs picture",
    "session": "config gate tracking",
    "screening": "config gate tracking vision",
    "filming": "config camera challenge vision screening session workers",
    "storekeeper": "outbox workers",
    "waiting": "events outbox",
    "reload": "config",
    "swap": "",
    "trial": "config outbox reload swap",
    "availability": "retry",
    "tally": "outbox",
    "links": "",
    "timeservice": "",
    "offline": "config evidence gate outbox packs picture storekeeper workers",
    "forwarder": "config cypherface offline outbox retry availability storekeeper",
    "services": "config cypherface availability forwarder offline outbox storekeeper",
    "announcer": "events texts outbox availability camera challenge",
    "enrolment": "config picture vision cypherface outbox screening storekeeper workers",
    "tasks": "",
    "camerakeeper": "config camera outbox workers",
    "lookout": "camera camerakeeper config outbox",
    "enrolling": "config announcer camera enrolment filming screening workers",
    "parts": "config enrolment forwarder reload screening services storekeeper workers",
    "verifications": "config announcer camera camerakeeper challenge enrolling filming forwarder outbox parts screening storekeeper tally tasks "
    "workers",
    "enrolments": "announcer cypherface enrolling parts screening storekeeper verifications",
    "condition": "availability config offline outbox storekeeper",
    "agent": "config challenge cypherface enrolling enrolments events camera vision outbox workers screening aiming "
    "announcer availability camerakeeper condition forwarder health links lookout offline parts reload services storekeeper tally tasks timeservice "
    "verifications waiting",
    "decommission": "config outbox",
    "looking": "config camera report screening session texts vision workers",
    "aiming": "announcer camera camerakeeper looking outbox parts screening storekeeper verifications",
    "current": "config agent outbox reload trial",
    "trial_health": "agent reload trial",
    "settings": "config agent outbox reload trial current trial_health",
    "metrics": "agent availability forwarder outbox settings tally",
    "journal": "config",
    "health": "",
    "supervision": "health",
    "listening": "config",
    "api": "config events texts outbox announcer agent enrolment metrics settings trial aiming",
    "daemon": "config screening agent settings supervision api journal listening trial",
    "client": "api",
    "doctor": "config api camera client cypherface outbox packs screening timeservice vision",
    "aim": "camera config client gate listening looking outbox screening vision workers",
    "bundle": "config camera doctor metrics outbox packs reload",
    "sandbox": "config packs picture vision",
    "simulator": "config picture camera cypherface offline outbox forwarder screening agent daemon",
    "demo": "config packs camera vision screening api client",
    "bench": "config camera cypherface evaluate outbox forwarder packs picture screening storekeeper vision",
    "cli": "config offline picture report packs camera vision gate screening session outbox reload swap trial api daemon client texts "
    "aim bundle decommission doctor journal listening sandbox demo bench simulator evaluate",
    "evaluate": "challenge config packs picture report gate screening session camera",
    "__main__": "cli",
}
ANYBODY = {"types", "errors", "moments", "__version__"}


def imports_of(file: Path) -> set[str]:
    """Modules of edge_agent that the file imports, without the package's name: ``outbox.store``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            found |= (
                {f"{node.module}.{a.name}" for a in node.names} if node.module == "edge_agent" else {str(node.module)}
            )
    return {name.removeprefix("edge_agent.") for name in found if name.startswith("edge_agent.")}


def part_of(file: Path) -> str:
    """``camera`` for edge_agent/camera/port.py, ``config`` for edge_agent/config.py, "" for the package itself."""
    first = file.relative_to(ROOT / "edge_agent").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


FILES = sorted((ROOT / "edge_agent").rglob("*.py"))


def test_every_import_is_one_that_the_table_allows() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in FILES
        for module in sorted(imports_of(file))
        if (target := module.split(".")[0]) != part_of(file)
        and target not in ANYBODY | set(MAY_IMPORT.get(part_of(file), "").split())
    ]
    assert wrong == []


def test_every_part_has_its_place_in_the_table() -> None:
    assert {part_of(file) for file in FILES} - {""} <= set(MAY_IMPORT)


def test_the_table_has_no_cycle() -> None:
    order = list(TopologicalSorter({part: set(may.split()) for part, may in MAY_IMPORT.items()}).static_order())
    assert set(order) == set(MAY_IMPORT)


def test_the_client_knows_nothing_of_the_daemon_but_the_wire() -> None:
    modules = {m for file in FILES if part_of(file) == "client" for m in imports_of(file) if m.startswith("api")}
    assert modules <= {"api.wire", "api.wire_events", "api.wire_outbox"}


def test_one_camera_or_one_model_library_is_imported_from_one_place() -> None:
    """A foreign library's exceptions are translated where it is imported, so that has to be one place."""
    places = {
        "cv2": {"camera", "picture", "vision", "demo", "cli", "sandbox", "evaluate"},
        "onnxruntime": {"vision"},
        "onnx": {"packs"},
    }
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in _top_level(node)
        if name in places and part_of(file) not in places[name]
    ]
    assert wrong == []


def _top_level(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {str(node.module).split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
