"""The sockets that the terminal API listens on: a Unix socket with the right mode, and one on a loopback address."""

from __future__ import annotations

import grp
import logging
import os
import socket
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.config import GROUP_OF_THE_INSTALLATION
from edge_agent.errors import EnvironmentFault

log = logging.getLogger(__name__)

BACKLOG = 128
PROBE_S = 2.0
"""How long a socket that is there already may take to show that somebody listens."""


def bind(path: Path) -> socket.socket:
    """A listening Unix socket at ``path`` that only the daemon's user (and root) can connect to.

    Bound here because the mode must be right from the first moment; a stale socket of a dead daemon is replaced, a
    live one is not. Raises EnvironmentFault.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
    except OSError as exc:
        raise EnvironmentFault(
            f"cannot listen on {path}: {exc.strerror or exc}",
            code="socket_unavailable",
            hint="check api.socket: its folder must be writable, and the path shorter than 108 characters",
        ) from exc
    sock.setblocking(False)
    return sock


def _remove_stale(path: Path) -> None:
    if not path.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(PROBE_S)  # a daemon that hangs has a full backlog: connecting would wait for ever
    try:
        probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    else:
        raise EnvironmentFault(
            f"cannot listen on {path}: another agent answers there",
            code="already_running",
            hint="stop it first, or set another api.socket",
        )
    finally:
        probe.close()


def share(path: Path, group: str | None) -> None:
    """Let the members of ``group`` connect to the socket at ``path``.

    Raises EnvironmentFault socket_group_unusable when that cannot be; then the socket stays as it was. The group of
    the installation is a wish: a daemon that somebody runs in a terminal, where it does not exist or is not theirs to
    give, does without.
    """
    if group is None:
        return
    try:
        gid = grp.getgrnam(group).gr_gid
        if path.stat().st_gid != gid:
            os.chown(path, -1, gid)
        path.chmod(0o660)
    except (KeyError, OSError) as exc:
        why = "there is no such group" if isinstance(exc, KeyError) else exc.strerror
        message = f"cannot share {path} with the group {group}: {why}"
        if group == GROUP_OF_THE_INSTALLATION:
            log.info("%s: only root and this user can connect", message)
            return
        raise EnvironmentFault(
            message,
            code="socket_group_unusable",
            hint="check api.socket_group: the daemon must be a member (docs/configuration.md, Access)",
        ) from exc


def bind_tcp(address: str, key: str = "api.tcp") -> socket.socket:
    """A listening socket at a loopback ``address`` such as ``127.0.0.1:8470``. Raises EnvironmentFault tcp_unavailable.

    ``key``: of the configuration, where the address is from.
    """
    parts = urlsplit(f"//{address}")
    host = ip_address(parts.hostname or "")
    # asyncio turns Nagle's algorithm off where the protocol is named, and only there: else each answer waits 40 ms
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
        sock.bind((str(host), parts.port or 0))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise EnvironmentFault(
            f"cannot listen on {address}: {exc.strerror or exc}",
            code="tcp_unavailable",
            hint=f"check {key}: another program may have the port",
        ) from exc
    sock.setblocking(False)
    return sock
