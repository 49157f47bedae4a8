"""What is done in which order; a dry run says the same and does nothing."""

from __future__ import annotations

import grp
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.installer.hands import Hands
from scripts.installer.refusal import USAGE, CannotInstall
from tests.install.stage import Machine, Technician, sources_of

RELEASE = "/opt/edge-agent/releases/1.0.0"
PIP = f"{RELEASE}/bin/python -m pip --disable-pip-version-check --no-cache-dir -q install"
FIRST_INSTALLATION = f"""\
{sys.executable} -m venv {RELEASE}
{PIP} --no-index --find-links /media/usb/wheels --no-deps --require-hashes --only-binary :all: -r SOURCES/requirements.lock
{PIP} --no-index --no-deps --no-build-isolation SOURCES
copy systemd to {RELEASE}/systemd
copy install to {RELEASE}/scripts/install
copy installer to {RELEASE}/scripts/installer
copy docs to {RELEASE}/docs
copy README.md to {RELEASE}/docs/README.md
write {RELEASE}/release.json
write /usr/lib/sysusers.d/edge-agent.conf
write /usr/lib/tmpfiles.d/edge-agent.conf
systemd-sysusers /usr/lib/sysusers.d/edge-agent.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/edge-agent.conf
make /etc/edge-agent/
make /etc/edge-agent/credentials/
make /var/lib/edge-agent/
write /etc/edge-agent/credentials/edge-agent-key
write /etc/edge-agent/credentials/cypherface-api-key
write /etc/edge-agent/config.yaml
{RELEASE}/bin/edge-agent config check --config /etc/edge-agent/config.yaml
{RELEASE}/bin/edge-agent models fetch open --dir /var/lib/edge-agent/models
write /etc/systemd/system/edge-agent.service
write /etc/systemd/system/edge-agent-maintenance.service
write /etc/systemd/system/edge-agent-maintenance.timer
write /etc/systemd/system/edge-agent.service.d/10-board.conf
link /opt/edge-agent/current -> releases/1.0.0
systemctl daemon-reload
systemctl enable --quiet edge-agent.service
systemctl enable --quiet --now edge-agent-maintenance.timer
systemctl restart edge-agent.service""".splitlines()

UNINSTALLATION = """\
systemctl stop edge-agent-maintenance.timer
systemctl stop edge-agent-maintenance.service
systemctl stop edge-agent.service
systemctl disable --quiet edge-agent.service edge-agent-maintenance.timer
remove /etc/systemd/system/edge-agent.service
remove /etc/systemd/system/edge-agent-maintenance.service
remove /etc/systemd/system/edge-agent-maintenance.timer
remove /usr/lib/tmpfiles.d/edge-agent.conf
remove /opt/edge-agent/
remove /usr/lib/sysusers.d/edge-agent.conf
remove /etc/edge-agent/
remove /var/lib/edge-agent/
systemctl daemon-reload
userdel edge-agent""".splitlines()


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def brought(tmp_path: Path) -> dict[str, Any]:
    """What the technician of the golden steps has along."""
    (tmp_path / "config.yaml").write_text("terminal_id: pos-7\n")
    (tmp_path / "key").write_text("secret\n")
    return {
        "config": tmp_path / "config.yaml",
        "api_key": tmp_path / "key",
        "wheelhouse": Path("/media/usb/wheels"),
        "pack": "open",
        "board": "raspberry-pi",
    }


def test_a_dry_run_says_every_step_and_changes_nothing(bare: Technician, brought: dict[str, Any]) -> None:
    assert bare.install(dry=True, **brought) == FIRST_INSTALLATION
    assert everything(bare.machine.root) == {}
    assert [call for call in bare.machine.calls if "is-active" not in call] == []


def test_a_first_installation_does_what_the_dry_run_says(bare: Technician, brought: dict[str, Any]) -> None:
    assert bare.install(**brought) == FIRST_INSTALLATION
    assert bare.machine.active


def test_the_second_time_nothing_is_written(technician: Technician) -> None:
    there = everything(technician.machine.root)
    steps = technician.install()
    assert [step for step in steps if re.match(r"(write|copy|make|remove|link|systemctl restart) ", step)] == []
    assert everything(technician.machine.root) == there


def test_without_a_wheelhouse_pip_asks_its_own_registry(bare: Technician) -> None:
    libraries = next(step for step in bare.install() if "requirements.lock" in step)
    assert "--no-index" not in libraries
    assert "--require-hashes" in libraries


def test_secrets_are_for_root_and_programs_for_everybody(technician: Technician) -> None:
    places = technician.machine.places
    modes = {path.name: path.stat().st_mode & 0o777 for path in (places.device_key, places.api_key, places.config)}
    assert modes == {"edge-agent-key": 0o600, "cypherface-api-key": 0o600, "config.yaml": 0o640}
    assert places.credentials.stat().st_mode & 0o777 == 0o700
    assert places.api_key.read_bytes() == b"secret"
    assert re.fullmatch(r"[0-9a-f]{64}", places.device_key.read_text())


def test_what_is_there_already_stays(technician: Technician, tmp_path: Path) -> None:
    places = technician.machine.places
    key = places.device_key.read_bytes()
    places.config.write_text("terminal_id: edited\n")
    technician.install()
    assert (places.device_key.read_bytes(), places.config.read_text()) == (key, "terminal_id: edited\n")
    with pytest.raises(CannotInstall, match="is there already") as refused:
        technician.install(config=tmp_path / "config.yaml")
    assert refused.value.exit_code == USAGE


def test_no_key_is_made_for_a_queue_whose_key_is_lost(technician: Technician) -> None:
    places = technician.machine.places
    places.device_key.unlink()
    (places.state / "outbox.db").touch()
    with pytest.raises(CannotInstall, match="holds an outbox that another key encrypted"):
        technician.install()
    assert not places.device_key.exists()


def test_what_a_person_has_to_bring_is_told_and_nothing_is_started(bare: Technician) -> None:
    steps = bare.install()
    assert "edit /etc/edge-agent/config.yaml: it is the example" in bare.said()
    assert "put CypherFace's API key into /etc/edge-agent/credentials/cypherface-api-key" in bare.said()
    assert "systemctl enable --quiet edge-agent.service" in steps
    assert not bare.machine.active
    places = bare.machine.places
    places.config.write_text("terminal_id: pos-7\n")
    places.api_key.write_text("secret")
    assert bare.install()[-1] == "systemctl restart edge-agent.service"
    assert bare.machine.active


def test_the_example_of_an_older_release_is_no_configuration_either(bare: Technician, tmp_path: Path) -> None:
    bare.install()
    newer = sources_of(tmp_path / "newer", "2.0.0")
    with (newer.root / "docs/config.example.yaml").open("a") as example:
        example.write("# newer\n")
    (tmp_path / "key").write_text("secret")
    bare.install(sources=newer, api_key=tmp_path / "key")
    assert "it is the example" in bare.said()
    assert not bare.machine.active


def test_a_configuration_for_root_alone_is_opened_to_the_service(tmp_path: Path) -> None:
    out = io.StringIO()
    hands = Hands(dry=False, out=out)
    config, group = tmp_path / "config.yaml", grp.getgrgid(os.getegid()).gr_name
    config.touch()
    config.chmod(0o600)
    hands.let_read(config, group)
    hands.let_read(config, group)
    assert config.stat().st_mode & 0o777 == 0o640
    assert out.getvalue() == f"  let {group} read {config}\n"


def test_a_wrong_configuration_stops_before_the_running_release_is_touched(technician: Technician) -> None:
    technician.machine.config_ok = False
    with pytest.raises(CannotInstall, match="camra: unknown key") as refused:
        technician.install()
    assert refused.value.exit_code == USAGE
    assert [call for call in technician.machine.calls if "systemctl restart" in call] == []
    assert technician.machine.active


def test_another_board_takes_the_first_one_s_device_lines_away(technician: Technician) -> None:
    board = technician.machine.places.board
    technician.install(board="jetson")
    assert "nvhost" in board.read_text()
    assert technician.install(board="none")[-1] == "systemctl restart edge-agent.service"
    assert not board.exists()


def test_uninstalling_leaves_nothing(technician: Technician) -> None:
    before = technician.uninstall(dry=True)
    assert technician.machine.active
    assert technician.uninstall() == before == UNINSTALLATION
    files = [path for path in technician.machine.root.rglob("*") if not path.is_dir()]
    folders = list(technician.machine.root.rglob("edge-agent*"))
    assert (files, folders) == ([], [])
    assert (technician.machine.active, technician.machine.user) == (False, False)
    assert technician.uninstall() == ["systemctl daemon-reload"]


def test_uninstalling_with_the_data_kept_leaves_them_and_their_owner(technician: Technician) -> None:
    places = technician.machine.places
    (places.state / "outbox.db").write_text("queue")
    key = places.device_key.read_bytes()
    technician.uninstall(keep_data=True)
    assert (places.device_key.read_bytes(), (places.state / "outbox.db").read_text()) == (key, "queue")
    assert technician.machine.user
    assert not places.opt.exists()
    assert not (places.units / "edge-agent.service").exists()
    technician.install()
    assert places.device_key.read_bytes() == key


PIP_FAILURES = [
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "make it again"),
    ("ERROR: No matching distribution found for onnxruntime==1.31.1", "--platform ARCHITECTURE --python VERSION"),
    ("OSError: [Errno 28] No space left on device", "make room"),
    ("Temporary failure in name resolution", "when the network is back"),
]


@pytest.mark.parametrize(("said", "advice"), PIP_FAILURES)
def test_what_pip_says_becomes_advice(bare: Technician, said: str, advice: str) -> None:
    bare.machine.failing, bare.machine.says = "requirements.lock", said
    with pytest.raises(CannotInstall, match=r"cannot install the libraries of requirements\.lock") as refused:
        bare.install()
    assert said in refused.value.message
    assert advice in str(refused.value.hint)


def test_an_interrupted_release_is_made_anew(machine: Machine, bare: Technician) -> None:
    machine.failing = "--no-build-isolation"
    with pytest.raises(CannotInstall):
        bare.install()
    machine.failing = None
    assert f"remove {RELEASE}/" in bare.install()
    assert machine.current() == "1.0.0"
