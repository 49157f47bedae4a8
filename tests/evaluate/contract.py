"""The JSON contracts as docs/evaluate.md lists them, and the keys of what a command printed."""

from __future__ import annotations

import re
from typing import Any

from tests.project.tree import ROOT
from tests.test_bench import flat

RATE = {"errors", "trials", "rate", "low", "high"}
BY_NAME = {"files", "liveness_thresholds", "scores", "values"}
"""Objects whose keys are names of models or measures."""


def documented(heading: str) -> set[str]:
    """The keys in the first column of the JSON table of that section of docs/evaluate.md."""
    page = (ROOT / "docs/evaluate.md").read_text(encoding="utf-8")
    title = f"## {heading}\n" if f"## {heading}\n" in page else f"## `{heading}`"
    section = page.partition(title)[2].partition("\n## ")[0].partition("### JSON")[2]
    return set(re.findall(r"`([a-z_.\[\]0-9]+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))


def keys(body: Any, prefix: str = "") -> set[str]:
    """As ``flat``, but a rate and an object that is keyed by names count as one key."""
    if isinstance(body, dict) and (body.keys() == RATE or prefix.rpartition(".")[2] in BY_NAME):
        return {prefix}
    if isinstance(body, dict):
        return {path for key, inner in body.items() for path in keys(inner, f"{prefix}.{key}" if prefix else key)}
    if isinstance(body, list) and body:
        return {path for inner in body for path in keys(inner, f"{prefix}[]")}
    return flat(body, prefix)
