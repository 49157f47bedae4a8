"""A machine to install on: sources, a folder as its root, and a runner that plays venv, pip and systemctl."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.installer.hands import Answer, Hands
from scripts.installer.health import Doctor, Health
from scripts.installer.installing import Installation, Order, Removal
from scripts.installer.places import Places
from scripts.installer.release import Sources, linked
from scripts.installer.services import Systemd
from tests.project.tree import ROOT

READY = Health(ready=True, missing=frozenset())
NO_CAMERA = Health(ready=False, missing=frozenset({"camera"}))
STARTING = Health(ready=False, missing=frozenset())


def sources_of(folder: Path, version: str) -> Sources:
    """A small project that has everything the installer looks at; units and installer are the real ones."""
    (folder / "edge_agent").mkdir(parents=True)
    (folder / "edge_agent/__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "pyproject.toml").write_text(f'[project]\nname = "edge-agent"\nversion = "{version}"\n')
    (folder / "requirements.lock").write_text("")
    (folder / "README.md").write_text("read me\n")
    for name in ("systemd", "scripts/installer"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "scripts/install", folder / "scripts/install")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/config.example.yaml", folder / "docs")
    return Sources(folder)


@dataclass
class Machine:
    """What a runner and a doctor are asked about; ``health`` and ``does_not_start`` are by the release's name."""

    root: Path
    calls: list[str] = field(default_factory=list)
    active: bool = False
    user: bool = False
    config_ok: bool = True
    failing: str | None = None
    """A command that contains this ends with 1."""
    says: str = "it did not work"
    health: dict[str, Health | None] = field(default_factory=dict)
    does_not_start: set[str] = field(default_factory=set)
    now_s: float = 0.0

    @property
    def places(self) -> Places:
        return Places(self.root)

    def current(self) -> str:
        found = linked(self.places)
        return "" if found is None else found.name

    def __call__(self, command: Sequence[str], timeout_s: float) -> Answer:
        """The runner."""
        words = " ".join(command).replace(str(self.root), "")
        self.calls.append(words)
        if self.failing is not None and self.failing in words:
            return Answer(1, self.says)
        return self._venv(Path(command[-1])) if "-m venv" in words else self._system(words)

    def _venv(self, folder: Path) -> Answer:
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").touch()
        return Answer(0, "")

    def _system(self, words: str) -> Answer:
        if words.startswith("systemctl is-active"):
            return Answer(0 if self.active else 3, "")
        if words.startswith("systemctl restart"):
            self.active = self.current() not in self.does_not_start
            return Answer(0 if self.active else 1, "")
        if "systemctl stop" in words:
            self.active = False
        if words.startswith(("systemd-sysusers", "userdel")):
            self.user = words.startswith("systemd-sysusers")
        if words.startswith("getent"):
            return Answer(0 if self.user else 2, "")
        if "config check" in words:
            return Answer(0 if self.config_ok else 2, "config.yaml:3:1: camra: unknown key")
        return Answer(0, "")

    def look(self) -> Health | None:
        """What its API would say now."""
        return self.health.get(self.current(), READY) if self.active else None

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Technician:
    """Installs on ``machine``; ``order`` can be changed between two runs."""

    def __init__(self, machine: Machine, sources: Sources) -> None:
        self.machine = machine
        self.order = Order(sources=sources, places=machine.places, board="none")
        self.out = io.StringIO()

    def hands(self, *, dry: bool = False) -> Hands:
        self.out = io.StringIO()
        return Hands(dry=dry, out=self.out, runner=self.machine)

    def install(self, *, dry: bool = False, **changes: Any) -> list[str]:
        """What it did, without the machine's root; the lines of steps only."""
        self.machine.calls.clear()
        machine, hands = self.machine, self.hands(dry=dry)
        services = Systemd(hands, machine.places)
        services.group = None  # the user that the real one makes is not here
        doctor = Doctor(machine.look, clock=lambda: machine.now_s, sleep=machine.sleep)
        Installation(replace(self.order, **changes), hands, services, doctor).run()
        return self.steps()

    def uninstall(self, *, keep_data: bool = False, dry: bool = False) -> list[str]:
        hands = self.hands(dry=dry)
        Removal(self.machine.places, hands, Systemd(hands, self.machine.places)).run(keep_data=keep_data)
        return self.steps()

    def said(self) -> str:
        """Everything, with short names for what differs between two runs."""
        return self.out.getvalue().replace(str(self.machine.root), "").replace(str(self.order.sources.root), "SOURCES")

    def steps(self) -> list[str]:
        return [line.strip() for line in self.said().splitlines() if line.startswith("  ") and "  - " not in line]
