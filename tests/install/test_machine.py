"""Which machines are taken, and which are refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.installer.machine import Machine, accept, look
from scripts.installer.refusal import CannotInstall

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n# a comment\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian\n'
ARCH = 'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\n'
GOOD = Machine("debian", "12", "Debian 12", "aarch64", 64, "none", "", systemd=True, python="/usr")


def root_with(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


BOARDS = [
    ({"etc/os-release": DEBIAN}, ("debian", "12", "none")),
    (
        {"etc/os-release": DEBIAN, "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0"},
        ("debian", "12", "raspberry-pi"),
    ),
    (
        {"etc/os-release": DEBIAN, "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"},
        ("debian", "12", "raspberry-pi"),
    ),
    ({"etc/os-release": UBUNTU, "etc/nv_tegra_release": "# R36"}, ("ubuntu", "22.04", "jetson")),
    (
        {
            "etc/os-release": UBUNTU,
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
        },
        ("ubuntu", "22.04", "jetson"),
    ),
    ({"etc/os-release": ARCH}, ("arch", "", "none")),
    ({}, ("unknown", "", "none")),
]


@pytest.mark.parametrize(("files", "expected"), BOARDS)
def test_a_machine_is_known_by_its_files(tmp_path: Path, files: dict[str, str], expected: tuple[str, str, str]) -> None:
    found = look(root_with(tmp_path, files))
    assert (found.system, found.version, found.board) == expected


TAKEN = [
    GOOD,
    replace(GOOD, version="13"),
    replace(GOOD, system="ubuntu", version="22.04"),
    replace(GOOD, architecture="x86_64"),
    replace(GOOD, python="/usr/local"),
]


@pytest.mark.parametrize("machine", TAKEN)
def test_what_it_is_made_for_is_taken(machine: Machine) -> None:
    assert accept(machine, force=False) == []


REFUSED = [
    (replace(GOOD, system="arch", version="", name="Arch Linux"), "Arch Linux is none of the systems", "--force"),
    (replace(GOOD, version="11", name="Debian 11"), "Debian 11 is none of the systems", "--force"),
    (replace(GOOD, architecture="armv7l", bits=32), "32-bit userland on armv7l", "64-bit image"),
    (replace(GOOD, bits=32), "32-bit userland on aarch64", "Raspberry Pi OS 64-bit"),
    (replace(GOOD, systemd=False), "systemd does not run this machine", "--root DIR"),
    (replace(GOOD, python="/home/pi/python/3.11"), "cannot see the Python in /home/pi/python", "/usr/bin/python3"),
    (replace(GOOD, python="/root"), "cannot see the Python in /root", "/usr/bin/python3"),
]


@pytest.mark.parametrize(("machine", "reason", "advice"), REFUSED)
def test_what_it_is_not_made_for_is_refused_with_reason_and_advice(machine: Machine, reason: str, advice: str) -> None:
    with pytest.raises(CannotInstall, match=reason) as refused:
        accept(machine, force=False)
    assert advice in str(refused.value.hint)
    assert any(reason in overruled for overruled in accept(machine, force=True))


def test_all_reasons_are_given_at_once() -> None:
    with pytest.raises(CannotInstall, match=r"none of the systems.*; .*32-bit.*; systemd does not run"):
        accept(replace(GOOD, system="arch", bits=32, systemd=False), force=False)
