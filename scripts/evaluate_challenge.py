"""Body of ``scripts/evaluate-challenge``: how many rendered presentations pass the head turn cue, by species and angle.

Every still is printed in its own size, held 40 cm before a camera and turned to one side and then to the other as the
prompts say. The counts are those of a simulation with the pictures at hand: they compare species and find mistakes, they
are no error rate of a terminal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edge_agent.vision.detect import Detector  # noqa: E402
from tests.challenge.plane import Camera  # noqa: E402
from tests.challenge.presentations import SPECIES, presented, shared_detector, stills_of  # noqa: E402

ASSETS = ROOT / "../shared/assets"
ANGLES_DEG = (15.0, 25.0, 35.0, 45.0, 55.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt."""

    still: Path
    species: str
    angle_deg: float
    seed: int
    fps: float


@dataclass(frozen=True, slots=True)
class Row:
    """What became of the attempts with one species at one angle."""

    species: str
    angle_deg: float
    attempts: int
    no_neutral_pose: int
    one_turn: int
    """The first turn was seen, the second was not; after a first that is not seen the attempt is over."""
    passed: int


class _Worker:
    """What a process keeps between its cases."""

    detector: Detector
    camera: Camera


def _prepare(assets: Path) -> None:
    _Worker.detector, _Worker.camera = shared_detector(assets), Camera()


def _attempt(case: Case) -> tuple[Case, bool, int]:
    """(case, a neutral pose was found, how many turns were made)."""
    outcome = presented(
        case.still,
        _Worker.detector,
        case.species,
        case.angle_deg,
        fps=case.fps,
        seed=case.seed,
        camera=_Worker.camera,
    )
    return case, outcome.neutral, sum(outcome.turned)


def rows_of(results: Iterable[tuple[Case, bool, int]]) -> list[Row]:
    table: dict[tuple[str, float], list[tuple[bool, int]]] = {}
    for case, neutral, turns in results:
        table.setdefault((case.species, case.angle_deg), []).append((neutral, turns))
    return [
        Row(
            species,
            angle,
            len(found),
            sum(not neutral for neutral, _ in found),
            sum(turns == 1 for _, turns in found),
            sum(turns == 2 for _, turns in found),
        )
        for (species, angle), found in table.items()
    ]


def _table(rows: list[Row]) -> str:
    lines = [f"{'species':<14}{'angle':>6}{'attempts':>10}{'no neutral':>12}{'one turn':>10}{'passed':>8}"]
    lines += [
        f"{row.species:<14}{row.angle_deg:>5g}°{row.attempts:>10}{row.no_neutral_pose:>12}{row.one_turn:>10}{row.passed:>8}"
        for row in rows
    ]
    for species in dict.fromkeys(row.species for row in rows):
        of_it = [row for row in rows if row.species == species]
        lines.append(f"{species}: {sum(r.passed for r in of_it)} of {sum(r.attempts for r in of_it)} attempts passed")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/evaluate-challenge", description=__doc__)
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--species", nargs="+", choices=list(SPECIES), default=list(SPECIES))
    parser.add_argument("--angles", nargs="+", type=float, default=ANGLES_DEG, metavar="DEG")
    parser.add_argument("--stills", type=int, default=None, metavar="N", help="only the first N pictures")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = parser.parse_args()
    if not (options.assets / "manifest.json").is_file():
        parser.error(f"cannot find {options.assets}/manifest.json: name the folder with --assets")
    return options


def main() -> None:
    options = _options()
    stills = stills_of(options.assets, shared_detector(options.assets))[: options.stills]
    cases = [
        Case(still, species, angle, seed, options.fps)
        for species in options.species
        for angle in options.angles
        for seed, still in enumerate(stills)
    ]
    print(f"{len(stills)} pictures, {len(cases)} attempts at {options.fps:g} frames/s", file=sys.stderr)
    with get_context("spawn").Pool(options.processes, _prepare, (options.assets,)) as pool:
        rows = rows_of(pool.imap(_attempt, cases))
    print("\n".join(json.dumps(asdict(row)) for row in rows) if options.json else _table(rows))


if __name__ == "__main__":
    main()
