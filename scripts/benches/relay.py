"""A TCP relay on loopback that counts what passes it towards the service."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CHUNK_BYTES = 1 << 16


@dataclass(slots=True)
class Counted:
    """Where it listens, and what it has seen."""

    port: int
    sent_bytes: int = 0
    """From the client to the service, headers and all."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        with self._lock:
            self.sent_bytes += count


@contextmanager
def relay(target_port: int) -> Iterator[Counted]:
    """Forward 127.0.0.1:``port`` to 127.0.0.1:``target_port`` while the context lasts."""
    listener = socket.create_server(("127.0.0.1", 0))
    counted = Counted(listener.getsockname()[1])
    with listener:
        threading.Thread(target=_accept, args=(listener, target_port, counted), name="relay", daemon=True).start()
        yield counted
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, target_port: int, counted: Counted) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, target_port, counted), name="relay", daemon=True).start()


def _serve(client: socket.socket, target_port: int, counted: Counted) -> None:
    """One connection, until both sides are done."""
    with client, socket.create_connection(("127.0.0.1", target_port)) as service:
        back = threading.Thread(target=_pump, args=(service, client, _ignore), name="relay", daemon=True)
        back.start()
        _pump(client, service, counted.add)
        back.join()


def _ignore(_: int) -> None:
    """What the service answers is not counted."""


def _pump(source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
    """Until one side closes."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
            count(len(data))
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
