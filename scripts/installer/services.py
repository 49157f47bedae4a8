"""The service manager: users, units, starting and stopping. A folder (``--root``) has none of them."""

from __future__ import annotations

from typing import Protocol

from scripts.installer.hands import Hands
from scripts.installer.places import MAINTENANCE, SERVICE, TIMER, UNITS, USER, Places

START_S = 300.0
"""A start may take the unit's TimeoutStartSec, and a stop before it."""


class Services(Protocol):
    """What the installer asks of the machine."""

    group: str | None
    """The group that may read the configuration; None: nobody but root."""

    def make_user(self) -> None: ...
    def reload(self) -> None: ...
    def enable(self) -> None: ...
    def active(self) -> bool: ...
    def restart(self) -> str | None:
        """Why it did not start; None when it did."""

    def journal(self) -> str:
        """The last the service said, for an error message."""

    def take_away(self) -> None:
        """Stop and disable everything, before its files are removed."""

    def forget(self, *, user: bool) -> None:
        """After its files were removed: what systemd still remembers, and the user."""


class Systemd:
    """The machine's own."""

    group: str | None = USER

    def __init__(self, hands: Hands, places: Places) -> None:
        self._hands = hands
        self._places = places

    def make_user(self) -> None:
        hands, places = self._hands, self._places
        hands.run("systemd-sysusers", str(places.sysusers), failing=f"cannot make the user {USER}")
        hands.run("systemd-tmpfiles", "--create", str(places.tmpfiles), failing="cannot make the folders")

    def reload(self) -> None:
        self._hands.run("systemctl", "daemon-reload", failing="cannot tell systemd of the units")

    def enable(self) -> None:
        self._hands.run("systemctl", "enable", "--quiet", SERVICE, failing="cannot enable the service")
        self._hands.run("systemctl", "enable", "--quiet", "--now", TIMER, failing="cannot enable the maintenance")

    def active(self) -> bool:
        return self._hands.ask("systemctl", "is-active", "--quiet", SERVICE).code == 0

    def restart(self) -> str | None:
        # a service that failed ten times has to be forgiven before it may start again
        self._hands.tidy("systemctl", "reset-failed", SERVICE)
        answer = self._hands.attempt("systemctl", "restart", SERVICE, timeout_s=START_S)
        return None if answer.code == 0 else "it did not start"

    def journal(self) -> str:
        return self._hands.ask("journalctl", "--no-pager", "--output=cat", "--lines=8", f"--unit={SERVICE}").tail

    def take_away(self) -> None:
        for unit in (TIMER, MAINTENANCE, SERVICE):
            if (self._places.units / unit).exists():
                hint = f"systemctl status {unit}"
                self._hands.run("systemctl", "stop", unit, failing=f"cannot stop {unit}", hint=hint)
        there = [unit for unit in (SERVICE, TIMER) if (self._places.units / unit).exists()]
        if there:
            self._hands.run("systemctl", "disable", "--quiet", *there, failing="cannot disable the service")

    def forget(self, *, user: bool) -> None:
        self.reload()
        self._hands.tidy("systemctl", "reset-failed", *UNITS)
        if user and self._hands.ask("getent", "passwd", USER).code == 0:
            hint = f"ps -u {USER} shows what still runs as it"
            self._hands.run("userdel", USER, failing=f"cannot remove the user {USER}", hint=hint)
        # on most systems it went with the user
        if user and not self._hands.dry and self._hands.ask("getent", "group", USER).code == 0:
            self._hands.run("groupdel", USER, failing=f"cannot remove the group {USER}")


class NoServices:
    """A folder: files only."""

    group: str | None = None

    def make_user(self) -> None: ...
    def reload(self) -> None: ...
    def enable(self) -> None: ...
    def active(self) -> bool:
        return False

    def restart(self) -> str | None:
        return None

    def journal(self) -> str:
        return ""

    def take_away(self) -> None: ...
    def forget(self, *, user: bool) -> None: ...
