"""What scripts/vm-check needs of the product, tried where a mistake does not cost an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.camera.replay import ReplayCamera
from edge_agent.config import parse
from edge_agent.packs.manifest import load_pack
from edge_agent.screening import Screener
from edge_agent.vision.opening import open_pipeline
from scripts import vm_check
from tests.project.tree import ROOT


class Hours:
    """A clock that waiting turns on."""

    now_s = 0.0

    def read(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("camera", vm_check.CAMERAS)
def test_its_configurations_have_no_mistake(camera: str) -> None:
    assert parse(vm_check.configuration(camera)).camera.source == camera


def test_its_pictures_are_brought_along() -> None:
    script = (ROOT / "scripts/vm-check").read_text()
    for picture in (vm_check.CUSTOMER, vm_check.SOURCE, vm_check.SOMEBODY_ELSE):
        assert Path(picture).stem in script


@pytest.mark.parametrize("picture", [vm_check.CUSTOMER, vm_check.SOMEBODY_ELSE])
def test_its_people_qualify_before_the_replay_camera_of_a_machine_that_takes_minutes_for_a_frame(
    picture: str, assets: Path, models_dir: Path
) -> None:
    config, hours = parse(vm_check.configuration("replay")), Hours()
    camera = ReplayCamera(
        assets / "images" / picture,
        size=config.camera.size,
        fps=config.camera.fps,
        stale_after_s=config.camera.stale_after_s,
        clock=hours.read,
        sleep=hours.sleep,
    )
    camera.open()
    screener = Screener(open_pipeline(load_pack(config.models.pack), models_dir), config.gate)
    judged = []
    for _ in range(config.session.liveness_frames):
        hours.sleep(120)
        judged.append(screener.screen(camera.read(1)))
    assert [(a.accepted, a.track_id) for a in judged] == [(True, 1)] * len(judged)
