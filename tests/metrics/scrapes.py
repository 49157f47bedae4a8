"""A scrape, taken apart as Prometheus would."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.metrics.catalogue import METRICS, Metric
from tests.api.calls import raw
from tests.terminal import Terminal

SUFFIXES = ("_bucket", "_sum", "_count")
BY_NAME = {metric.name: metric for metric in METRICS}
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """``values``: by the sample's name and its labels."""

    text: str
    kinds: dict[str, str]
    """Type by the family's name, as in the exposition."""
    values: dict[tuple[str, Labels], float]

    def get(self, name: str, **labels: str) -> float | None:
        return self.values.get((f"edge_agent_{name}", frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def parse(text: str) -> Scrape:
    kinds: dict[str, str] = {}
    values: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        kinds[family.name + ("_total" if family.type == "counter" else "")] = family.type
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in values, f"twice: {key}"
            values[key] = sample.value
    return Scrape(text, kinds, values)


def scrape(t: Terminal) -> Scrape:
    with raw(t) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return parse(answer.text)


def over(address: str) -> httpx.Client:
    return httpx.Client(base_url=f"http://{address}", timeout=20)


def of_sample(name: str) -> Metric:
    """The metric that a sample or a selector is of. Raises KeyError."""
    for suffix in SUFFIXES:
        if (found := BY_NAME.get(name.removesuffix(suffix))) is not None and found.kind == "histogram":
            return found
    return BY_NAME[name]
