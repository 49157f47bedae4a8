"""Body of ``scripts/load``: see there."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2

from edge_agent.cli.models import terminal_progress
from edge_agent.client import AgentClient, ApiError
from edge_agent.demo.pictures import fetch_people
from edge_agent.demo.stage import Stage
from edge_agent.types import State
from tests.load.clients import Load, Tally
from tests.load.running import Running, resident_bytes

MAX_RATIO = 1.2
"""Time to verdict with the load, of that without."""
MAX_GROWTH = 1.05
"""Resident memory at the end of the load, of that after its first round."""
USER = "alice"
PATIENCE_S = 60.0
SLOW = 2.0
"""Of the demo's clocks: about those of the default configuration."""


@dataclass(slots=True)
class Measured:
    """Seconds from the request to the verdict, in the order in which they were measured."""

    quiet_s: list[float] = field(default_factory=list)
    loaded_s: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """Bytes, after each round of load."""
    tallies: list[Tally] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.loaded_s) / statistics.median(self.quiet_s)

    @property
    def growth(self) -> float:
        return self.resident[-1] / self.resident[0]

    @property
    def undocumented(self) -> list[str]:
        return [line for tally in self.tallies for line in tally.undocumented]

    @property
    def good(self) -> bool:
        return self.ratio <= MAX_RATIO and self.growth <= MAX_GROWTH and not self.undocumented


def main() -> int:
    """Returns 0 when everything stayed within its limit, 1 otherwise."""
    options = _options()
    cache = Path.home() / ".cache" / "edge-agent"
    picture = (
        cv2.imread(options.picture) if options.picture else fetch_people(cache / "pictures", terminal_progress())[USER]
    )
    if picture is None:
        print(f"load: cannot read {options.picture}", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage(Path(folder) / "stage", Path(options.models), pack=options.pack, slow=SLOW) as stage,
        AgentClient(stage.socket) as client,
    ):
        stage.show(picture)
        client.enrol(USER, cv2.imencode(".png", picture)[1].tobytes(), "image/png")
        _verify(client)  # everything is loaded now
        measured = _measure(options, stage, client)
    print(_as_json(measured) if options.json else _as_table(measured))
    return 0 if measured.good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/load", description="Loads the API while it verifies real faces.")
    parser.add_argument("--pack", default="open")
    parser.add_argument("--models", default=str(Path.home() / ".cache" / "edge-agent" / "models"), help="their folder")
    parser.add_argument("--picture", help="of a face; default: the demo's")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load in all, over the rounds (default 30)")
    parser.add_argument("--rounds", type=int, default=3, help="quiet and loaded in turns (default 3)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second in all (default 300)")
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _measure(options: argparse.Namespace, stage: Stage, client: AgentClient) -> Measured:
    measured = Measured()
    seconds = options.seconds / options.rounds
    for number in range(options.rounds):
        quiet_until_s = time.monotonic() + seconds
        while time.monotonic() < quiet_until_s:
            measured.quiet_s.append(_verify(client))
        load = Load(connections=options.connections, rate=options.rate, seconds=seconds, seed=number)
        with Running(stage.socket, load) as running:
            loaded_until_s = time.monotonic() + seconds - 3.0
            while time.monotonic() < loaded_until_s:
                measured.loaded_s.append(_verify(client))
            measured.tallies.append(running.tally())
        measured.resident.append(resident_bytes(stage.socket))
    return measured


def _verify(client: AgentClient) -> float:
    """Seconds from the request that was taken to the verdict. Raises RuntimeError when that is not positive."""
    while True:
        began_s = time.monotonic()
        try:
            record = client.verify(USER, wait_s=60.0)
        except ApiError as exc:
            if exc.code != "busy":  # a session of the load, about to be cancelled
                raise
            time.sleep(0.002)
            continue
        while not record.final and time.monotonic() < began_s + PATIENCE_S:  # a late verdict is one that took long
            record = client.get(record.id, wait_s=5.0)
            time.sleep(0.05)
        took_s = time.monotonic() - began_s
        if record.state is not State.VERIFIED:
            raise RuntimeError(f"cannot measure: the verification is {record.state.value}: {record.reasons}")
        return took_s


def _as_json(measured: Measured) -> str:
    return json.dumps(
        {
            "quiet_s": measured.quiet_s,
            "loaded_s": measured.loaded_s,
            "ratio": measured.ratio,
            "resident_bytes": measured.resident,
            "growth": measured.growth,
            "answers": {f"{kind} {status}": n for (kind, status), n in sorted(_answers(measured).items())},
            "events": sum(tally.events for tally in measured.tallies),
            "undocumented": measured.undocumented,
            "good": measured.good,
        }
    )


def _answers(measured: Measured) -> Counter[tuple[str, int]]:
    return sum((tally.answers for tally in measured.tallies), Counter())


def _as_table(measured: Measured) -> str:
    lines = [
        f"{name:8} {len(times):3} verifications, median {statistics.median(times):6.3f} s, "
        f"{min(times):6.3f} - {max(times):6.3f} s"
        for name, times in (("quiet", measured.quiet_s), ("loaded", measured.loaded_s))
    ]
    lines.append(f"ratio    {measured.ratio:.2f} (limit {MAX_RATIO})")
    megabytes = ", ".join(f"{size / 1e6:.1f}" for size in measured.resident)
    lines.append(f"memory   {megabytes} MB after each round, growth {measured.growth:.3f} (limit {MAX_GROWTH})")
    lines += [f"  {kind:8} {status or 'closed'}: {n}" for (kind, status), n in sorted(_answers(measured).items())]
    lines.append(f"events   {sum(tally.events for tally in measured.tallies)} read")
    lines += ["undocumented answers:", *measured.undocumented[:20]] if measured.undocumented else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
