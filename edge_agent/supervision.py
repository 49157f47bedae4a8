"""Talking to systemd: ready, status in words, alive, stopping; see sd_notify(3). Without systemd nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping

from edge_agent.health import Heartbeats
from edge_agent.moments import told

log = logging.getLogger(__name__)

FEED_S = 10.0
"""The status is brought up to date, and the watchdog fed, at least this often."""


class Supervisor:
    """The socket of the service manager, where there is one."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog_us = environment.get("WATCHDOG_USEC", "") if self._meant(environment) else ""
        self.watchdog_s: float | None = int(watchdog_us) / 1e6 if watchdog_us.isdecimal() else None
        """The manager restarts the service when it hears nothing for so long; None = it does not watch."""
        self._said = ""

    @staticmethod
    def _meant(environment: Mapping[str, str]) -> bool:
        return environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())

    def ready(self) -> None:
        """The API answers."""
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows; sent when it changed."""
        line = " ".join(text.split())
        if line != self._said:
            self._said = line
            self._send(f"STATUS={line}")

    async def feed(self, heartbeats: Heartbeats, describe: Callable[[], str]) -> None:
        """For ever: the status, and the watchdog while every loop turns."""
        pause_s = min(FEED_S, self.watchdog_s / 3) if self.watchdog_s else FEED_S
        while True:
            late = heartbeats.late()
            self.status(f"hung: {', '.join(late)}" if late else describe())
            if late:
                said = ", ".join(f"{k} for {v:.0f} s" for k, v in late.items())
                log.error("the watchdog is not fed: %s", said, extra=told("watchdog_not_fed", loops=list(late)))
            else:
                self.alive()
            await asyncio.sleep(pause_s)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # "@" stands for the abstract namespace
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # a manager that hangs must not hang us
            sock.sendto(message.encode(), address)
