"""Who is at the other end of a connection: as the kernel knows it, and as the handlers see it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Literal

Role = Literal["pos", "enrol", "admin"]

STATE_KEY = "peer"
"""Where a request's state holds the ``Credentials`` (of the protocol) and then the ``Peer`` (of the admission)."""

ABORT_KEY = "abort"
"""Where a request's state holds what ends its connection at once, whatever waits to be sent."""

SO_PEERGROUPS = 59
"""Linux; the socket module does not name it."""
MOST_GROUPS = 256
"""As many as Python lets an answer of getsockopt be long."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The process at the other end of a Unix socket when it connected (SO_PEERCRED, SO_PEERGROUPS)."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    """``gid`` and the supplementary groups."""

    @property
    def caller(self) -> str:
        return f"uid:{self.uid}"


@dataclass(frozen=True, slots=True)
class Peer:
    """An admitted caller."""

    caller: str
    """The identity that owns verifications and scopes idempotency keys: ``uid:1000``, ``token:pos``."""
    roles: frozenset[Role]
    """What it may do; ``admin`` comes with all others. Empty only for a reader of the metrics' own listener."""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


def credentials_of(sock: socket.socket) -> Credentials | None:
    """The credentials of a connected Unix socket's peer; None for any other kind of socket."""
    if sock.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Credentials(pid, uid, gid, frozenset({gid, *_supplementary_groups(sock)}))


def _supplementary_groups(sock: socket.socket) -> tuple[int, ...]:
    """None of them when they are too many to be told: a role too few is safe."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MOST_GROUPS * struct.calcsize("I"))
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // struct.calcsize('I')}I", data)
