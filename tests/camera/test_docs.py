"""docs/cameras.md says what is so."""

from __future__ import annotations

import re

import pytest
import yaml

from edge_agent.camera.gstreamer import GstreamerCamera
from edge_agent.camera.guard import FROZEN_AFTER_S, LOOP_WITHIN_S, MIN_REPEATS, SAMPLE_PX
from edge_agent.camera.ladder import ALL_STEPS, Pace
from edge_agent.camera.recovery import SILENT_S
from edge_agent.config import CameraSection
from tests.project.tree import ROOT

TEXT = (ROOT / "docs/cameras.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^camera: .*$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_a_pipeline_is_valid(example: str) -> None:
    settings = CameraSection.model_validate(yaml.safe_load(example)["camera"])
    assert settings.pipeline is not None
    assert GstreamerCamera(settings.pipeline).description


def test_every_source_has_its_row() -> None:
    sources = CameraSection.model_json_schema()["properties"]["source"]["enum"]
    assert [source for source in sources if f"| `{source}` |" not in TEXT] == []
    assert len(EXAMPLES) >= 5


def test_the_limits_are_those_of_the_code() -> None:
    pace = Pace()
    reopen = ", ".join(f"{pace.reopen_pause_s * 2**n:g}" for n in range(pace.reopen_tries))
    for words in (
        f"{pace.reopen_tries} times | {reopen} s |",
        f"{pace.respawn_pause_s:g}, {2 * pace.respawn_pause_s:g}, {4 * pace.respawn_pause_s:g} … at most ",
        f"at most {pace.longest_pause_s:g} s",
        f"after {pace.respawn_tries} respawns and {pace.exit_after_s / 60:g} minutes; at most once an hour",
        f"well again after {pace.settled_s:g} s of pictures",
        f"the same picture for {FROZEN_AFTER_S:g} s, {['', '', 'three'][MIN_REPEATS]} times in a row or more",
        f"was there before, within {LOOP_WITHIN_S:g} s and not directly before",
        f"about {SAMPLE_PX // 1000} {SAMPLE_PX % 1000} pixels",
        f"no whole picture for {SILENT_S:g} to 5 s",
        *(f"| `{step.value}` |" for step in ALL_STEPS),
    ):
        assert words in TEXT
    assert pace.exit_every_s == 3600
