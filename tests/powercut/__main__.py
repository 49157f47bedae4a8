"""``scripts/powercut``: the command line."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import AgentError
from tests.powercut.machine import Machine
from tests.powercut.report import NOT_COVERED, Result, Row, ending, heading, line
from tests.powercut.run import Run

DESCRIPTION = """Pulls the plug of an emulated machine, over and over, while it stores and forwards captures, and checks
after every cut that nothing that was acknowledged outside of the machine is lost, altered or judged wrongly."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/powercut", description=DESCRIPTION, epilog=NOT_COVERED)
    given = os.environ.get("POWERCUT_VM")
    parser.add_argument(
        "vm",
        type=Path,
        nargs="?" if given else None,
        default=given and Path(given),
        help="the program that boots the machine (or POWERCUT_VM), called as: "
        "VM --share DIR --out DIR --disk FILE --timeout SECONDS COMMAND; "
        "it keeps to its process group, and has a Debian with Python 3.11 on x86_64, /mnt/share and /mnt/out",
    )
    parser.add_argument("--cuts", type=int, default=20, help="cuts that fall into a phase that is driven (20)")
    parser.add_argument(
        "--synchronous", choices=("FULL", "OFF"), default="FULL", help="OFF must fail: it shows that the test can"
    )
    parser.add_argument(
        "--netem", type=int, metavar="PERCENT", help="no cuts: so many packets are lost while captures are forwarded"
    )
    parser.add_argument("--seed", default=None, help="decides when the plug is pulled; default: by chance")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the disk and everything that was told there")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of the table")
    options = parser.parse_args(arguments)
    if options.keep and options.keep.exists():
        parser.error(f"{options.keep} is there already: give a folder that can be made")
    return options


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 nothing was lost, 1 something was, 2 usage, 3 the machine could not be used, 130 stopped."""
    options = parse(arguments)
    boot = shutil.which(options.vm)
    if boot is None:
        print(f"powercut: cannot start {options.vm}: no such program", file=sys.stderr)
        return 3
    try:
        result = run(options, Path(boot).resolve())
    except AgentError as exc:
        print(f"powercut: {exc.message}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("powercut: stopped; the machine is gone", file=sys.stderr)
        return 130
    print(json.dumps(result.to_json(), indent=2) if options.json else ending(result))
    return 1 if result.problems else 0


def run(options: argparse.Namespace, boot: Path) -> Result:
    with tempfile.TemporaryDirectory(prefix="powercut-") as scratch:
        machine = Machine(boot, options.keep or Path(scratch) / "machine")
        progress("installing in the machine")
        machine.install()
        tell = no_row if options.json else print_row
        chance = random.Random(options.seed)
        prepared = Run(machine, options.synchronous, options.cuts, chance, tell, progress)
        if options.netem is not None:
            return prepared.under_loss(options.netem)
        if not options.json:
            print(heading(), flush=True)
        return prepared.all()


def print_row(row: Row) -> None:
    print(line(row), flush=True)


def no_row(_: Row) -> None:
    """The rows come in the JSON document."""


def progress(text: str) -> None:
    print(f"powercut: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the machine is stopped either way
    sys.exit(main(sys.argv[1:]))
