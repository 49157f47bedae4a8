"""Certificates made in the test, and a server that shows one."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """Issues certificates; ``file`` is what a terminal trusts."""

    file: Path
    name: x509.Name
    key: ec.EllipticCurvePrivateKey

    def issue(self, file: Path, *, days: float, since_days: float = -400.0) -> Path:
        """For 127.0.0.1, with its key, valid from ``since_days`` to ``days`` from now."""
        return _write(file, self.name, self.key, days=days, since_days=since_days)


def authority(folder: Path) -> Authority:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("the test's authority")
    certificate = _sign(_builder(name, key, 500, -500), name, key, authority=True)
    file = folder / "authority.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(file, name, key)


def self_signed(file: Path) -> Path:
    return _write(file, None, None, days=100, since_days=-1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(
    file: Path,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
    *,
    days: float,
    since_days: float,
) -> Path:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("127.0.0.1")
    builder = _builder(name, key, days, since_days)
    certificate = _sign(builder, issuer or name, issuer_key or key, authority=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return file


def _builder(name: x509.Name, key: Any, days: float, since_days: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since_days))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, issuer: x509.Name, key: Any, *, authority: bool) -> x509.Certificate:
    builder = builder.issuer_name(issuer)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256())


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    context: ssl.SSLContext | None = None


class _Greet(socketserver.BaseRequestHandler):
    """Greets and waits for the other side to leave."""

    def handle(self) -> None:
        if self.server.context is None:  # type: ignore[attr-defined]
            self.request.sendall(b"220 mail.example ESMTP\r\n")
            return
        with suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True) as secured:  # type: ignore[attr-defined]
            secured.recv(1)


@contextmanager
def greeting(certificate: Path | None) -> Iterator[int]:
    """A server on 127.0.0.1 that shows ``certificate``, or speaks no TLS; gives its port."""
    server = _Server(("127.0.0.1", 0), _Greet)
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
