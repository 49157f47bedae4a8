"""What this machine is, and what speaks against installing on it."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.installer.refusal import CannotInstall

KNOWN_SYSTEMS = {
    "debian": ("12", "13"),
    "raspbian": ("12", "13"),
    "ubuntu": ("22.04", "24.04"),
}
ARCHITECTURES = ("x86_64", "aarch64")
HOMES = ("/home", "/root", "/run/user")
"""What ProtectHome= hides from the service."""
BOARDS = ("raspberry-pi", "jetson", "none")


@dataclass(frozen=True, slots=True)
class Machine:
    """As its own files describe it."""

    system: str
    """ID of os-release: debian, ubuntu."""
    version: str
    """VERSION_ID of os-release; empty where there is none."""
    name: str
    architecture: str
    bits: int
    """Of the userland: a 64-bit kernel may run a 32-bit one."""
    board: str
    """One of BOARDS."""
    model: str
    """The board in the device tree's words; empty on a PC."""
    systemd: bool
    """systemd runs it."""
    python: str
    """Where the interpreter that runs this is at home; the releases are made of it."""


def look(root: Path = Path("/")) -> Machine:
    """What the files below ``root`` say of this machine."""
    release = _os_release(root)
    model = _device_tree(root / "proc/device-tree/model")
    return Machine(
        system=release.get("ID", "unknown"),
        version=release.get("VERSION_ID", ""),
        name=release.get("PRETTY_NAME", "an unknown system"),
        architecture=platform.machine(),
        bits=64 if sys.maxsize > 2**32 else 32,
        board=_board(root, model),
        model=model,
        systemd=(root / "run/systemd/system").is_dir(),
        python=sys.base_prefix,
    )


def _os_release(root: Path) -> dict[str, str]:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: next(iter(shlex.split(value)), "") for name, _, value in pairs}


def _device_tree(path: Path) -> str:
    """Its strings end in NUL; several are separated by it."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _board(root: Path, model: str) -> str:
    if model.startswith("Raspberry Pi"):
        return "raspberry-pi"
    compatible = _device_tree(root / "proc/device-tree/compatible")
    if (root / "etc/nv_tegra_release").exists() or "nvidia,tegra" in compatible:
        return "jetson"
    return "none"


def objections(machine: Machine) -> Iterator[tuple[str, str]]:
    """What speaks against it, each with what to do."""
    if machine.version not in KNOWN_SYSTEMS.get(machine.system, ()):
        tried = "Debian and Raspberry Pi OS 12 and 13, Ubuntu 22.04 and 24.04"
        yield (
            f"{machine.name} is none of the systems this is made for ({tried})",
            "--force, if it has systemd 247 or newer and glibc 2.28 or newer",
        )
    if machine.architecture not in ARCHITECTURES or machine.bits != 64:
        found = f"a {machine.bits}-bit userland on {machine.architecture}"
        yield (
            f"the libraries exist for 64-bit x86_64 and aarch64 only, and this is {found}",
            "install the 64-bit image of the system (Raspberry Pi OS 64-bit); --force needs wheels that you built",
        )
    if any(Path(machine.python).is_relative_to(home) for home in HOMES):
        yield f"the service cannot see the Python in {machine.python}", "PYTHON=/usr/bin/python3 scripts/install …"
    if not machine.systemd:
        yield "systemd does not run this machine", "--root DIR installs into a folder, without a service"


def accept(machine: Machine, *, force: bool) -> list[str]:
    """What was overruled by ``force``. Raises CannotInstall with every objection otherwise."""
    found = list(objections(machine))
    if found and not force:
        reasons = "; ".join(reason for reason, _ in found)
        raise CannotInstall(f"cannot install on this machine: {reasons}", hint="; ".join(hint for _, hint in found))
    return [reason for reason, _ in found]
