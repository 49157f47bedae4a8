"""The table of docs/metrics.md, the catalogue and what is exported agree."""

from __future__ import annotations

import re

import pytest

from edge_agent.metrics.catalogue import METRICS, Metric
from tests.metrics.scrapes import BY_NAME, Scrape, of_sample
from tests.project.tree import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")


def test_the_table_is_the_catalogue() -> None:
    rows = re.findall(r"^\| `(edge_agent_\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), unit.replace("-", ""), text)
        for name, kind, labels, unit, text in rows
    ] == [(m.name, m.kind, m.labels, m.unit, m.text) for m in METRICS]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"edge_agent_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") is (metric.kind == "counter")
    stem = metric.name.removesuffix("_total")
    assert (metric.unit == "s") is stem.endswith("_seconds")
    assert (metric.unit == "bytes") is stem.endswith("_bytes")
    assert metric.text.endswith(".")


def test_everything_that_is_exported_is_in_the_table_and_the_other_way_round(everything: Scrape) -> None:
    for name, labels in everything.values:
        metric = of_sample(name)
        assert {key for key, _ in labels} - {"le"} == set(metric.labels), name
    assert {of_sample(name).name for name in everything.names()} == set(BY_NAME)
    assert {name: BY_NAME[name].kind for name in everything.kinds} == everything.kinds
