"""The alert rules name metrics, labels and values that there are, and say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from edge_agent.api.problems import CATALOGUE
from edge_agent.camera.guard import CameraFrozen, FrameLoop
from tests.metrics.scrapes import BY_NAME, Scrape, of_sample
from tests.project.tree import ROOT

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs/alerts.rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
SELECTOR = re.compile(r"\b([a-z_]\w*)\s*(?:\{([^}]*)\})?\s*(?=[\[ )><=]|$)")
FUNCTIONS = {"sum", "without", "increase", "rate", "changes", "resets", "histogram_quantile", "ignoring", "or", "and"}
VALUES: dict[tuple[str, str], set[str]] = {
    ("edge_agent_verification_failures_total", "code"): {CameraFrozen.code, FrameLoop.code},
    ("edge_agent_api_refused_total", "code"): set(CATALOGUE),
    ("edge_agent_terminal_info", "simulator"): {"true", "false"},
}
"""Label values that a rule may name, where a terminal without trouble does not show them all."""


def selectors(expression: str) -> Iterator[tuple[str, dict[str, set[str]]]]:
    """Metric names of a rule, and the values that it asks of each label."""
    for name, matchers in SELECTOR.findall(expression):
        if name.startswith(("edge_agent_", "up")):
            found = re.findall(r'(\w+)=~?"([^"]*)"', matchers)
            yield name, {label: set(values.split("|")) for label, values in found}


def test_every_rule_names_metrics_labels_and_values_that_there_are(everything: Scrape) -> None:
    asked = [(rule["alert"], *selector) for rule in RULES for selector in selectors(rule["expr"])]
    assert {alert for alert, _, _ in asked} == {rule["alert"] for rule in RULES}
    for alert, name, labels in asked:
        if name == "up":
            continue
        metric = of_sample(name)
        assert labels.keys() <= set(metric.labels), alert
        for label, values in labels.items():
            shown = {dict(found)[label] for sample, found in everything.values if of_sample(sample) is metric}
            assert values <= VALUES.get((metric.name, label), shown), alert


def test_no_name_in_a_rule_escapes_the_check() -> None:
    for rule in RULES:
        named = set(re.findall(r"\bedge_agent_\w+", rule["expr"]))
        assert named == {name for name, _ in selectors(rule["expr"])} - {"up"}, rule["alert"]
        words = set(re.findall(r"\b[a-z]\w*\b", re.sub(r"\{[^}]*\}|\[[^]]*\]|\([a-z, ]+\)", " ", rule["expr"])))
        assert words - named - FUNCTIONS - {"up"} == set(), rule["alert"]


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 20
    for rule in RULES:
        assert rule["alert"].startswith("EdgeAgent")
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert len(rule["annotations"]["action"]) > 10
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            metrics = [BY_NAME[name] for name, _ in selectors(rule["expr"]) if name in BY_NAME]
            assert label == "instance" or any(label in metric.labels for metric in metrics), rule["alert"]
