"""The demo, as the README promises it: six scenarios, all as expected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.packs
def test_the_demo_plays_six_scenarios_as_expected(open_pack_dir: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    environment = {**os.environ, "EDGE_AGENT_MODELS_DIR": str(open_pack_dir), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "edge_agent", "demo", "--json", "--pictures", str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["expected"], r["state"], r["ok"]) for r in results] == [
        ("verified", "verified", True),
        ("not_verified", "not_verified", True),
        ("rejected", "rejected", True),
        ("rejected", "rejected", True),
        ("pending", "pending", True),
        ("verified", "verified", True),
    ]
    assert [r["approved"] for r in results] == [True, False, False, False, False, False]
    assert ["too_blurry" in results[2]["reasons"], "too_dark" in results[3]["reasons"]] == [True, True]
    assert {"scenario", "expected", "state", "ok", "seconds"} <= results[0].keys()
    assert len(list(pictures.glob("*.jpg"))) == 5


def test_an_unknown_pack_is_an_environment_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "demo", "--pack", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "cannot find the model pack 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr
