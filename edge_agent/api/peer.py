"""Who is at the other end of the Unix socket: peer credentials, put into every request's state."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

STATE_KEY = "peer"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel knows it (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int

    @property
    def caller(self) -> str:
        """The identity that owns verifications and scopes idempotency keys."""
        return f"uid:{self.uid}"

    def admitted(self) -> bool:
        """Until roles are configured only root and the daemon's own user are admitted, with every role."""
        return self.uid in {0, os.geteuid()}


def peer_of(sock: socket.socket) -> Peer | None:
    """The peer of a connected Unix socket; None for any other kind of socket."""
    if sock.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid, gid)


class PeerProtocol(H11Protocol):
    """Takes the credentials once, when the connection is made, and hands them to every request on it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        sock = transport.get_extra_info("socket")
        peer = peer_of(sock) if sock is not None else None
        self.app_state: dict[str, Any] = {**self.app_state, STATE_KEY: peer}
        super().connection_made(transport)
