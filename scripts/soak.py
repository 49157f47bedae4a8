"""Body of ``scripts/soak``: see there."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults import oracle, strace
from tests.faults.soak import Result, Soak


def main() -> int:
    """Returns 0 when nothing was lost or wrong, 1 otherwise."""
    options = _options()
    soak = Soak(options.seed, options.minutes * 60.0, _progress)

    def stop(*_: object) -> None:
        soak.stopped.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it at once
        _progress("stopping: the queue is drained and looked at first")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    _progress(f"seed {options.seed}; {strace.why_not() or 'disk faults by strace'}")
    result = soak.run()
    print(as_json(result) if options.json else as_table(result))
    return 0 if result.good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="Plays every fault at random and counts what is lost."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, in minutes (default 10)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 1_000_000, help="decides the faults, not their timing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args()


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_table(result: Result) -> str:
    """Two columns, then the findings."""
    lines = [f"{'seed':36} {result.seed:>8}", f"{'minutes':36} {result.seconds / 60:8.1f}"]
    lines += [f"{name:36} {number:>8}" for name, number in result.rows().items()]
    return "\n".join([*lines, oracle.table(result.findings)]).rstrip()


def as_json(result: Result) -> str:
    findings = [{"kind": f.kind, "subject": f.subject, "detail": f.detail} for f in result.findings]
    return json.dumps({"seed": result.seed, "seconds": result.seconds, **result.rows(), "findings": findings})


if __name__ == "__main__":
    sys.exit(main())
