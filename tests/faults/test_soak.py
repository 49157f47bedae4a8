"""``scripts/soak``, briefly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.oracle import Finding, Kind
from tests.faults.soak import Result
from tests.faults.zygote import ROOT

COMMAND = [sys.executable, str(ROOT / "scripts/soak.py"), "--json"]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def test_a_short_soak_plays_faults_finds_nothing_wrong_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*COMMAND, "--minutes", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["findings"] == []
    assert told["captures acknowledged"] > 20
    assert told["comparisons by the service"] > 20
    assert sum(number for name, number in told.items() if name.startswith("fault: ")) >= 10
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_it_in_order_with_the_table(tmp_path: Path) -> None:
    command = [*COMMAND, "--minutes", "60", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path)) as process:
        while not any(tmp_path.glob("soak-*/state/outbox.db")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert (told["seed"], told["findings"]) == (7, [])
    assert process.returncode == (0 if told["captures acknowledged"] else 1)
    assert list(tmp_path.iterdir()) == []


def test_anything_wrong_is_counted_in_its_row_and_makes_the_result_bad() -> None:
    assert Result(seed=1, acknowledged=9).good
    result = Result(seed=1, acknowledged=9, findings=[Finding(kind, "id", "why") for kind in Kind])
    assert not result.good
    rows = result.rows()
    counted = ("lost", "altered", "duplicated verdicts", "wrong verdicts", "still open", "other findings of the oracle")
    assert all(rows[name] for name in counted)
    assert sum(rows[name] for name in counted) == len(Kind)
