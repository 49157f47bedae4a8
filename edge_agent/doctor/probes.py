"""What a check asks the machine: the least that gives a fact. Each blocks, and ends by itself."""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

ANSWER_S = 5.0
WRITES = 5
PAGE = bytes(4096)
_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""


def write_latency_ms(folder: Path) -> float:
    """The median time of making a page durable in a file of its own that nobody else sees. Raises OSError."""
    times_ms = []
    with tempfile.TemporaryFile(dir=folder, prefix=".doctor-", buffering=0) as file:
        for _ in range(WRITES):
            began_s = time.perf_counter()
            file.write(PAGE)
            os.fsync(file.fileno())
            times_ms.append((time.perf_counter() - began_s) * 1000.0)
    return statistics.median(times_ms)


def run_program(command: Sequence[str], limit_s: float) -> str:
    """What the program printed on stdout, whatever its exit code. Raises OSError, also when it does not end in time."""
    try:
        done = subprocess.run(
            list(command), check=False, timeout=limit_s, stdin=subprocess.DEVNULL, capture_output=True
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"{command[0]} did not end within {limit_s:g} s") from exc
    return done.stdout.decode(errors="replace")


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name. Raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def listens(path: Path) -> bool | None:
    """Whether a process takes connections on the Unix socket; None where this user may not ask."""
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asking.settimeout(ANSWER_S)
    try:
        asking.connect(str(path))
    except PermissionError:
        return None
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:  # a queue of connections that is full, a time-out: somebody is there
        return True
    finally:
        asking.close()
    return True


@dataclass(frozen=True, slots=True)
class Handshake:
    """The end of a TLS handshake."""

    problem: str | None
    """Why the certificate is not trusted, in OpenSSL's words; None when it is."""
    expired: bool
    not_after: datetime | None
    """Until when the server's own certificate is valid."""


def connect(host: str, port: int, limit_s: float) -> None:
    """Raises OSError."""
    socket.create_connection((host, port), timeout=limit_s).close()


def handshake(host: str, port: int, context: ssl.SSLContext, limit_s: float) -> Handshake:
    """Greet the server and say nothing. Raises OSError when there is no connection, ssl.SSLError when it has no TLS."""
    try:
        with (
            socket.create_connection((host, port), timeout=limit_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return Handshake(None, False, _not_after(secured.getpeercert(binary_form=True)))
    except ssl.SSLCertVerificationError as exc:
        return Handshake(exc.verify_message, exc.verify_code == _EXPIRED, _untrusted_end(host, port, limit_s))


def _untrusted_end(host: str, port: int, limit_s: float) -> datetime | None:
    """When a certificate ends that is not trusted; nothing is sent over that connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout=limit_s) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return _not_after(secured.getpeercert(binary_form=True))
    return None


def _not_after(der: bytes | None) -> datetime | None:
    if not der:
        return None
    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc.astimezone(UTC)
    except ValueError:
        return None
