"""Where everything goes. With another root the same tree lies below that folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

USER = "edge-agent"
SERVICE = "edge-agent.service"
MAINTENANCE = "edge-agent-maintenance.service"
TIMER = "edge-agent-maintenance.timer"
UNITS = (SERVICE, MAINTENANCE, TIMER)


@dataclass(frozen=True, slots=True)
class Places:
    """Every path that the installer writes; nothing else is touched."""

    root: Path = Path("/")

    @property
    def opt(self) -> Path:
        return self.root / "opt/edge-agent"

    @property
    def releases(self) -> Path:
        """One virtual environment each."""
        return self.opt / "releases"

    @property
    def current(self) -> Path:
        """A link to the release that runs."""
        return self.opt / "current"

    @property
    def etc(self) -> Path:
        return self.root / "etc/edge-agent"

    @property
    def config(self) -> Path:
        return self.etc / "config.yaml"

    @property
    def credentials(self) -> Path:
        return self.etc / "credentials"

    @property
    def device_key(self) -> Path:
        return self.credentials / "edge-agent-key"

    @property
    def api_key(self) -> Path:
        return self.credentials / "cypherface-api-key"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/edge-agent"

    @property
    def run(self) -> Path:
        return self.root / "run/edge-agent"

    @property
    def socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def drop_ins(self) -> Path:
        """Also where ``systemctl edit`` puts the operator's changes."""
        return self.units / f"{SERVICE}.d"

    @property
    def board(self) -> Path:
        return self.drop_ins / "10-board.conf"

    @property
    def sysusers(self) -> Path:
        return self.root / "usr/lib/sysusers.d/edge-agent.conf"

    @property
    def tmpfiles(self) -> Path:
        return self.root / "usr/lib/tmpfiles.d/edge-agent.conf"

    @property
    def timer_stamp(self) -> Path:
        """Systemd's note of when the timer ran last."""
        return self.root / f"var/lib/systemd/timers/stamp-{TIMER}"
