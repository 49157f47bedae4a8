"""The page at ``/metrics``: Prometheus' text format, made anew at most once a second.

The state is read in the event loop (a fraction of a millisecond); the text is made in a thread, where the library is
imported too, at the first scrape. However often and by however many it is asked for, one page a second is the cost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from edge_agent.agent import Agent
from edge_agent.metrics.catalogue import METRICS, PROCESS, Metric
from edge_agent.metrics.values import Counted, Histogram, Value, values_of
from edge_agent.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
KEPT_S: Final = 1.0
"""A page serves for so long."""


class MetricsPage:
    """One per agent; no registry of the library's is global. Used from the event loop's thread."""

    def __init__(
        self,
        agent: Agent,
        settings: Settings,
        counted: Counted,
        *,
        kept_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept_s = KEPT_S if kept_s is None else kept_s
        self._agent, self._settings, self._counted = agent, settings, counted
        self._clock = clock
        self._making = asyncio.Lock()
        self._page = b""
        self._made_s = float("-inf")

    async def text(self) -> bytes:
        """The present page. Whoever asks while it is being made waits for that one."""
        async with self._making:
            if self._clock() - self._made_s >= self._kept_s:
                values = await values_of(self._agent, self._settings, self._counted)
                self._page = await asyncio.to_thread(render, values)
                self._made_s = self._clock()
            return self._page


def render(values: Iterable[Value]) -> bytes:
    """The values, and those of this process, as text.

    Raises KeyError for a name that the catalogue does not have, ValueError for a wrong number of labels.
    """
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    of: dict[str, list[Value]] = {metric.name: [] for metric in METRICS}
    for value in values:
        of[f"edge_agent_{value[0]}"].append(value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot([_family(metric, of[metric.name]) for metric in METRICS if of[metric.name]]))
    registry.register(_process())
    return generate_latest(registry)


class _Snapshot:
    """Families as a collector."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _family(metric: Metric, values: list[Value]) -> Family:
    from prometheus_client import metrics_core

    kinds: dict[str, Any] = {
        "gauge": metrics_core.GaugeMetricFamily,
        "counter": metrics_core.CounterMetricFamily,
        "histogram": metrics_core.HistogramMetricFamily,
    }
    family: Any = kinds[metric.kind](metric.name, metric.text, labels=metric.labels)
    for _, labels, value in values:
        if len(labels) != len(metric.labels):
            raise ValueError(f"cannot show {metric.name}: it has {len(metric.labels)} labels, not {len(labels)}")
        if isinstance(value, Histogram):
            bounds = [("+Inf" if bound == math.inf else str(bound), count) for bound, count in value.at_most]
            family.add_metric(labels, bounds, value.sum)
        else:
            family.add_metric(labels, value)
    return cast("Family", family)


@cache
def _process() -> Collector:
    """Memory, CPU time and descriptors of this process, out of /proc; it holds no state of an agent."""
    from prometheus_client.process_collector import ProcessCollector

    return ProcessCollector(namespace=PROCESS.removesuffix("_process_"), registry=None)
