"""A newer release runs only when it is no worse than the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.installer.health import Health
from scripts.installer.refusal import UNHEALTHY, CannotInstall
from tests.install.stage import NO_CAMERA, READY, STARTING, Machine, Technician, sources_of


def releases(machine: Machine) -> list[str]:
    return sorted(path.name for path in machine.places.releases.iterdir())


def newer(technician: Technician, folder: Path, version: str) -> dict[str, Any]:
    """The order's change that brings another version, whose unit is another one, too."""
    sources = sources_of(folder / version, version)
    unit = sources.root / "systemd/edge-agent.service"
    unit.write_text(unit.read_text() + f"# {version}\n")
    return {"sources": sources}


def unit_of(machine: Machine) -> str:
    return (machine.places.units / "edge-agent.service").read_text().splitlines()[-1]


def test_a_newer_release_goes_beside_the_old_one_and_runs(technician: Technician, tmp_path: Path) -> None:
    steps = technician.install(**newer(technician, tmp_path, "2.0.0"))
    assert technician.machine.current() == "2.0.0"
    assert unit_of(technician.machine) == "# 2.0.0"
    assert releases(technician.machine) == ["1.0.0", "2.0.0"]
    assert steps.index("link /opt/edge-agent/current -> releases/2.0.0") < steps.index("systemctl daemon-reload")
    assert "systemctl restart edge-agent.service" in steps


def test_two_releases_are_kept(technician: Technician, tmp_path: Path) -> None:
    (technician.machine.places.releases / "0.9.0-interrupted").mkdir()
    technician.install(**newer(technician, tmp_path, "2.0.0"))
    technician.install(**newer(technician, tmp_path, "3.0.0"))
    assert releases(technician.machine) == ["2.0.0", "3.0.0"]


def test_going_back_by_hand_takes_the_release_that_is_there(technician: Technician, tmp_path: Path) -> None:
    technician.install(**newer(technician, tmp_path, "2.0.0"))
    steps = technician.install()
    assert [step for step in steps if "pip" in step or "venv" in step] == []
    assert (technician.machine.current(), unit_of(technician.machine)) == ("1.0.0", "WantedBy=multi-user.target")


def test_other_sources_of_the_same_version_are_another_release(technician: Technician, tmp_path: Path) -> None:
    changed = sources_of(tmp_path / "changed", "1.0.0")
    (changed.root / "edge_agent/__init__.py").write_text("# changed\n")
    technician.install(sources=changed)
    assert technician.machine.current() == f"1.0.0+{changed.fingerprint()[:8]}"


OUTCOMES: list[tuple[str, Health | None, Health | None, bool]] = [
    ("ready before, ready after", READY, READY, True),
    ("ready before, no camera after", READY, NO_CAMERA, False),
    ("ready before, still starting after", READY, STARTING, False),
    ("ready before, no answer after", READY, None, False),
    ("no camera before, no camera after", NO_CAMERA, NO_CAMERA, True),
    ("no camera before, ready after", NO_CAMERA, READY, True),
    ("no camera before, no models after", NO_CAMERA, Health(ready=False, missing=frozenset({"models"})), False),
    (
        "no camera before, nor models after",
        NO_CAMERA,
        Health(ready=False, missing=frozenset({"camera", "models"})),
        False,
    ),
]


@pytest.mark.parametrize(("before", "after", "stays"), [o[1:] for o in OUTCOMES], ids=[o[0] for o in OUTCOMES])
def test_an_upgrade_that_makes_it_worse_is_taken_back(
    technician: Technician, tmp_path: Path, before: Health, after: Health | None, stays: bool
) -> None:
    machine = technician.machine
    machine.health = {"1.0.0": before, "2.0.0": after}
    if stays:
        technician.install(**newer(technician, tmp_path, "2.0.0"))
        assert machine.current() == "2.0.0"
        return
    with pytest.raises(CannotInstall, match=r"cannot upgrade to 2\.0\.0: .*; 1\.0\.0 runs again") as refused:
        technician.install(**newer(technician, tmp_path, "2.0.0"))
    assert refused.value.exit_code == UNHEALTHY
    assert (machine.current(), releases(machine), unit_of(machine)) == (
        "1.0.0",
        ["1.0.0"],
        "WantedBy=multi-user.target",
    )
    assert machine.active


def test_an_upgrade_that_does_not_start_is_taken_back(technician: Technician, tmp_path: Path) -> None:
    technician.machine.does_not_start = {"2.0.0"}
    with pytest.raises(CannotInstall, match=r"2\.0\.0: it did not start; 1\.0\.0 runs again"):
        technician.install(**newer(technician, tmp_path, "2.0.0"))
    assert technician.machine.active


def test_when_the_old_release_is_not_well_either_that_is_said(technician: Technician, tmp_path: Path) -> None:
    technician.machine.does_not_start = {"1.0.0", "2.0.0"}
    with pytest.raises(CannotInstall, match=r"1\.0\.0 is not well either: it did not start"):
        technician.install(**newer(technician, tmp_path, "2.0.0"))
    assert technician.machine.current() == "1.0.0"


def test_a_first_installation_that_is_not_well_stays_and_says_so(technician: Technician) -> None:
    technician.uninstall()
    machine = technician.machine
    machine.does_not_start = {"1.0.0"}
    machine.places.etc.mkdir(parents=True)
    machine.places.config.write_text("terminal_id: pos-7\n")
    machine.places.credentials.mkdir()
    machine.places.api_key.write_text("secret")
    with pytest.raises(CannotInstall, match="is installed and not healthy: it did not start") as refused:
        technician.install()
    assert refused.value.exit_code == UNHEALTHY
    assert machine.current() == "1.0.0"


def test_a_failure_while_the_release_is_made_leaves_the_running_one_alone(
    technician: Technician, tmp_path: Path
) -> None:
    technician.machine.failing = "requirements.lock"
    with pytest.raises(CannotInstall):
        technician.install(**newer(technician, tmp_path, "2.0.0"))
    assert (technician.machine.current(), technician.machine.active) == ("1.0.0", True)
    assert unit_of(technician.machine) == "WantedBy=multi-user.target"
