"""``edge-agent bench``: that it runs, what it prints, and its arithmetic; never how fast this machine is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_agent.bench import claim, ground
from edge_agent.bench.claim import Depth
from edge_agent.bench.drain import Drain
from edge_agent.bench.enqueue import Enqueue
from edge_agent.bench.figures import Spread, break_even_ms, spread
from edge_agent.bench.outbox import QUICK, Plan, Report
from edge_agent.bench.queue import BATCH, ENVIRONMENT, BenchStore
from edge_agent.cli import cli
from edge_agent.cli.bench import _lines
from edge_agent.errors import EnvironmentFault
from edge_agent.types import State

KEY = bytes(range(32))
TINY = ["--quick", "--rows", "20", "--pictures", "3", "--drain", "5"]
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "outbox.db").write_bytes(b"somebody's queue")
    result = CliRunner().invoke(cli, ["bench", "outbox", "--dir", str(folder), *TINY, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    report: dict[str, Any] = json.loads(result.stdout)
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("outbox.db", b"somebody's queue")]
    return report


def flat(value: Any, prefix: str = "") -> set[str]:
    """The paths of a JSON value; those of a list's items are one."""
    if isinstance(value, dict):
        return {path for key, inner in value.items() for path in flat(inner, f"{prefix}.{key}" if prefix else key)}
    if isinstance(value, list):
        return {path for inner in value for path in flat(inner, f"{prefix}[]")}
    return {prefix}


def test_the_json_holds_the_documented_keys(found: dict[str, Any]) -> None:
    section = (
        (DOCS / "cli.md").read_text(encoding="utf-8").partition("## `edge-agent bench outbox`")[2].partition("\n## ")[0]
    )
    documented = set(re.findall(r"`([a-z_0-9.\[\]]+)`", " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    spread_keys = {"median_ms", "p10_ms", "p90_ms", "worst_ms", "samples"}
    short = {path.rpartition(".")[0] if path.rpartition(".")[2] in spread_keys else path for path in flat(found)}
    assert short == documented


def test_the_ratios_follow_from_the_figures(found: dict[str, Any]) -> None:
    enqueue, drain = found["enqueue"], found["drain"]
    capture, append = enqueue["capture"]["median_ms"], enqueue["append"]["median_ms"]
    assert enqueue["ratio"] == pytest.approx(capture / append)
    assert enqueue["ratio_new_file"] == pytest.approx(capture / enqueue["new_file"]["median_ms"])
    assert enqueue["break_even_ms"] == pytest.approx(max(0.0, capture - append))
    assert drain["ratio"] == pytest.approx(drain["forwarder_per_s"] / drain["bare_per_s"])
    for depth in found["claim"]:
        assert depth["ratio"] == pytest.approx(depth["claim"]["median_ms"] / depth["short"]["median_ms"])
    assert found["memory_growth_mb"] == found["claim"][-1]["resident_mb"] - found["claim"][0]["resident_mb"]


def test_as_much_is_measured_as_was_asked_for(found: dict[str, Any]) -> None:
    assert found["enqueue"]["capture"]["samples"] == 3
    assert found["enqueue"]["picture_bytes"] == 100_000
    assert [depth["rows"] for depth in found["claim"]] == [10, 20]
    assert (found["drain"]["rows"], found["drain"]["users"]) == (5, 5)


def test_the_table_shows_every_figure_beside_its_goal(tmp_path: Path) -> None:
    two, four = spread([0.002]), spread([0.004])
    report = Report(
        ground.machine(tmp_path),
        sync=spread([0.001]),
        enqueue=Enqueue(100_000, append=two, new_file=two, create=two, capture=four),
        claims=[Depth(10, two, two, two, 0.1, 60.0), Depth(20, four, two, two, 0.1, 63.5)],
        drain=Drain(10, 5, 5, forwarder_per_s=60.0, bare_per_s=80.0, bare_together_per_s=120.0),
    )
    table = "\n".join(_lines(report))
    for part in (
        "sync of one page            1.000 ms",
        "2.00 (append), 2.00 (file); goal 2.00",
        "20 rows 4.000 ms",
        "2.00 of ten rows' 2.000 ms",
        "+3.5 MB; goal within 10",
        "0.75; three at once 0.50; goal 0.60",
    ):
        assert part in table


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([0.002], Spread(2.0, 2.0, 2.0, 2.0, 1)),
        ([0.003, 0.001], Spread(2.0, 1.0, 3.0, 3.0, 2)),
        ([n / 1000 for n in range(11)], Spread(5.0, 1.0, 9.0, 10.0, 11)),
    ],
)
def test_a_spread_has_the_median_and_the_outer_deciles(seconds: list[float], expected: Spread) -> None:
    assert spread(seconds) == expected


@pytest.mark.parametrize(
    ("bare_ms", "ours_ms", "goal", "expected"), [(1.0, 4.0, 2.0, 3.0), (1.0, 2.0, 1.5, 2.0), (2.0, 1.0, 2.0, 0.0)]
)
def test_the_break_even_is_where_the_extra_just_fits(
    bare_ms: float, ours_ms: float, goal: float, expected: float
) -> None:
    at_ms = break_even_ms(bare_ms, ours_ms, goal)
    assert at_ms == pytest.approx(expected)
    assert at_ms + (ours_ms - bare_ms) <= goal * at_ms + 1e-9


def test_the_ratios_are_of_the_medians() -> None:
    one = spread([0.001])
    enqueue = Enqueue(100_000, append=one, new_file=spread([0.002]), create=one, capture=spread([0.004]))
    assert (enqueue.ratio, enqueue.ratio_new_file, enqueue.break_even_ms) == pytest.approx((4.0, 2.0, 3.0))
    drain = Drain(10, 5, 5, forwarder_per_s=60.0, bare_per_s=80.0, bare_together_per_s=120.0)
    assert (drain.ratio, drain.ratio_together) == (0.75, 0.5)


def test_the_depths_lead_from_ten_rows_to_all() -> None:
    assert Plan().depths == [10, 1_000, 10_000, 100_000]
    assert QUICK.depths == [10, 1_000]
    assert replace(Plan(), rows=5_000).depths == [10, 1_000, 5_000]


def test_a_filled_queue_is_a_real_one_in_few_transactions(tmp_path: Path) -> None:
    rows = BATCH + 10
    with BenchStore.begin(tmp_path / "state", KEY) as store:
        commits: list[str] = []
        store._database._connection.set_trace_callback(
            lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None
        )
        store.fill(rows, 7, 100)
        store._database._connection.set_trace_callback(None)
        assert len(commits) == 2
        assert store.counts()[State.PENDING] == rows == store.verify().payloads
        assert store.verify().ok and store.verify_audit().ok
        leased = store.lease_next(ENVIRONMENT, lease_s=60.0)
        assert leased is not None and leased.record.user_id == "bench-user-0"
        assert len(store.payload(leased.record.id)) == 100


def test_a_queue_with_nothing_to_claim_is_not_measured(tmp_path: Path) -> None:
    with BenchStore.begin(tmp_path / "state", KEY) as store, pytest.raises(AssertionError, match="nothing to claim"):
        claim._claim(store)


def test_a_folder_that_cannot_be_used_is_said_so() -> None:
    with pytest.raises(EnvironmentFault, match="cannot measure in /proc"), ground.own_folder(Path("/proc")):
        pass


def test_the_machine_is_described(tmp_path: Path) -> None:
    found = ground.machine(tmp_path)
    assert found.cores > 0 and found.processor and found.file_system != "unknown"
    assert ground.resident_mb() > 5
