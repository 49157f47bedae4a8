"""The kernel's word that the network changed: an address or a default route came. Wakes the forwarder at once.

Without it a terminal whose cable is plugged in again would wait for the next probe. It is a hint and nothing more: where
the socket cannot be had (a sandboxed unit, not Linux), the probes do.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

# rtnetlink(7): the multicast groups, and the messages that mean that something came
_GROUPS = 0x10 | 0x100 | 0x40 | 0x400  # IPv4 and IPv6 addresses, IPv4 and IPv6 routes
_NEW_ADDRESS, _NEW_ROUTE = 20, 24
_HEADER = struct.Struct("=LHHLL")  # length, type, flags, sequence number, port
_SETTLE_S = 0.5
"""A link that comes up brings several messages, and the first is before the last route."""


class LinkWatch:
    """``start`` within a running loop; ``close`` at the end."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._socket: socket.socket | None = None
        self._pending: asyncio.TimerHandle | None = None

    def start(self) -> bool:
        """True when the kernel will tell."""
        try:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except (OSError, AttributeError) as exc:
            log.info("the kernel does not tell of network changes here: %s", exc)
            return False
        try:
            sock.bind((0, _GROUPS))
            sock.setblocking(False)
        except OSError as exc:
            log.info("the kernel does not tell of network changes here: %s", exc)
            sock.close()
            return False
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._readable)
        return True

    def close(self) -> None:
        """Stop listening; nothing is called any more."""
        if self._pending is not None:
            self._pending.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        came = False
        with suppress(BlockingIOError):
            while self._socket is not None:
                try:
                    came |= something_came(self._socket.recv(65536))
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: messages were dropped, so something did happen
                    came = True
        if came and self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(_SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._pending = None
        self._on_change()


def something_came(messages: bytes) -> bool:
    """Whether a datagram of rtnetlink tells of a new address or route."""
    offset = 0
    while offset + _HEADER.size <= len(messages):
        length, kind, *_ = _HEADER.unpack_from(messages, offset)
        if kind in {_NEW_ADDRESS, _NEW_ROUTE}:
            return True
        if length < _HEADER.size:
            return False
        offset += (length + 3) & ~3
    return False
