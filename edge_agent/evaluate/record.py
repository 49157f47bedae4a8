"""A calibration as it is written down: JSON for machines, text for people, in private files. No pixels, no embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from edge_agent import __version__
from edge_agent.errors import ConfigurationError, EnvironmentFault
from edge_agent.evaluate.calibration import Collected, spread
from edge_agent.evaluate.lines import pad_lines
from edge_agent.evaluate.models import ModelIds
from edge_agent.evaluate.pad import report_json
from edge_agent.evaluate.presentations import Rules
from edge_agent.evaluate.proposals import Proposal, proposals, unseparated
from edge_agent.evaluate.turn_rates import challenge_json, turn_lines, turn_report
from edge_agent.report import printable, rounded
from edge_agent.types import JsonObject


@dataclass(frozen=True, slots=True)
class Scene:
    """What the figures belong to."""

    terminal_id: str
    made_at: datetime
    """Aware UTC, by the terminal's clock."""
    camera: str
    frame_size: tuple[int, int]
    models: ModelIds
    rules: Rules
    lasts_s: float
    """How long a presentation lasted at most."""


def record_json(scene: Scene, collected: Collected) -> JsonObject:
    """The whole record (a stable contract, docs/evaluate.md)."""
    found = collected.report()
    return {
        "edge_agent": __version__,
        "terminal_id": scene.terminal_id,
        "made_at": scene.made_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "camera": scene.camera,
        "frame_size": list(scene.frame_size),
        **scene.models.as_json(),
        "gate": scene.rules.gate.model_dump(mode="json"),
        "session": scene.rules.session.model_dump(mode="json"),
        "presentation_s": scene.lasts_s,
        "complete": collected.complete,
        "discarded": collected.discarded,
        **report_json(found),
        "bona_fide_values": {
            measure: dict(zip(("p5", "median", "p95"), map(rounded, values), strict=True))
            for measure, values in spread(found.bona_fide).items()
        },
        **challenge_json(found, scene.rules),
        "unseparated": unseparated(found),
        "proposals": [asdict(proposal) for proposal in proposals(found, scene.rules.gate)],
    }


def record_lines(scene: Scene, collected: Collected) -> Iterator[str]:
    """The same for people."""
    found = collected.report()
    yield f"calibration of {scene.terminal_id}, {scene.made_at:%Y-%m-%d %H:%M} UTC, edge-agent {__version__}"
    yield f"camera {scene.camera}, {scene.frame_size[0]} x {scene.frame_size[1]} px; pack {scene.models.pack}"
    if not collected.complete:
        yield "NOT COMPLETE: it was ended before everything had been presented"
    if collected.discarded:
        yield f"{collected.discarded} presentations were taken back and are not counted"
    yield ""
    yield from pad_lines(found)
    yield ""
    turns = turn_report(found, scene.rules)
    if turns is not None:
        yield from turn_lines(turns)
        yield ""
    yield f"{'bona fide':<24}{'5 %':>10}{'median':>10}{'95 %':>10}"
    for measure, values in spread(found.bona_fide).items():
        yield f"{measure:<24}" + "".join(f"{value:>10.3g}" for value in values)
    yield ""
    if unseparated(found):
        yield "attacks were accepted, and no liveness threshold stops them without refusing most customers:"
        yield "these models do not tell them apart with this camera in this light; change one of the three"
    yield from proposal_lines(proposals(found, scene.rules.gate))


def proposal_lines(proposed: list[Proposal]) -> Iterator[str]:
    """What could be changed; that nothing was."""
    if not proposed:
        yield "no change is proposed; nothing was changed"
        return
    yield "proposed (nothing was changed):"
    for p in proposed:
        yield f"  {p.key}: {p.current:g} -> {p.proposed:g}"
        yield (
            f"    here: attacks accepted {p.attacks_accepted[0]} -> {p.attacks_accepted[1]}, "
            f"bona fide refused by it {p.bona_fide_refused[0]} -> {p.bona_fide_refused[1]}"
        )
        yield f"    {p.remark}"


class ReportFiles:
    """Two new files with mode 0600, ``PATH`` and ``PATH`` with the suffix .txt; they are there before anything is filmed."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError where one of them exists, EnvironmentFault where it cannot be made."""
        self.json, self.text = path, path.with_suffix(".txt")
        if self.json == self.text:
            raise ConfigurationError(
                f"cannot write the report {path}: its text goes beside it into a .txt", hint="name a .json file"
            )
        _create(self.json)
        try:
            _create(self.text)
        except (ConfigurationError, EnvironmentFault):
            self.json.unlink()
            raise

    def write(self, scene: Scene, collected: Collected) -> None:
        """Raises EnvironmentFault."""
        _fill(self.json, json.dumps(record_json(scene, collected), indent=1, allow_nan=False) + "\n")
        _fill(self.text, "".join(f"{printable(line)}\n" for line in record_lines(scene, collected)))

    def remove(self) -> None:
        """Nothing was measured."""
        self.json.unlink(missing_ok=True)
        self.text.unlink(missing_ok=True)


def _create(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError as exc:
        raise ConfigurationError(
            f"cannot write the report {path}: it exists", code="file_exists", hint="name a new file with --out"
        ) from exc
    except OSError as exc:
        raise _cannot_write(path, exc) from exc


def _fill(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise _cannot_write(path, exc) from exc


def _cannot_write(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot write the report {path}: {error.strerror}", hint="name a file in another folder with --out"
    )
