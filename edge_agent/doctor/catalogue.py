"""Every check by its stable id, in the order in which they are shown. docs/doctor.md has a line for each (tested)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edge_agent.errors import ConfigurationError

CHECKS = {
    "agent.state": "the agent answers and misses nothing",
    "systemd.unit": "the service is installed, enabled and active",
    "systemd.restarts": "it is not started again and again",
    "systemd.hardening": "the unit runs as confined as it was delivered",
    "config.file": "the configuration can be used, and is what runs",
    "credentials.device_key": "the device key is there, private and the queue's own",
    "credentials.api_key": "the API key is there and private",
    "camera.open": "the camera opens and delivers",
    "camera.frame_rate": "frames come fast enough",
    "camera.resolution": "frames have the size that was asked for",
    "camera.exposure": "the scene is neither dark nor blinding",
    "camera.sharpness": "the scene is in focus",
    "camera.frozen": "the pictures change",
    "models.files": "every model file is here and its hash is right",
    "models.licence": "the pack may be used in a shop",
    "models.provider": "the models run where the configuration says",
    "models.speed": "one frame is judged fast enough",
    "disk.space": "there is room for captures",
    "disk.write": "a small file is on the disk soon",
    "disk.wear": "the disk is not worn out",
    "disk.errors": "the file system has met no errors",
    "memory.available": "there is memory left",
    "temperature.board": "the board is not too hot",
    "power.undervoltage": "the power supply holds its voltage",
    "power.throttling": "the processor is not slowed down",
    "clock.synchronised": "a time service keeps the clock right",
    "clock.skew": "the clock agrees with CypherFace's",
    "network.dns": "the service's name can be resolved",
    "network.tls": "the service's certificate is trusted",
    "network.tls_expiry": "the service's certificate goes on being valid",
    "api.reach": "CypherFace answers",
    "api.latency": "it answers soon",
    "api.token": "it takes our credentials",
    "upload.hosts": "every host that may receive pictures can be reached",
    "queue.open": "the outbox can be opened",
    "queue.depth": "the queue is not nearly full",
    "queue.age": "nothing waits for long",
    "queue.parked": "nothing was set aside",
    "queue.forwarding": "captures are forwarded",
    "audit.chain": "the audit log is unbroken",
}


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The ids that ``names`` mean: ids or topics (``camera``); all when there is none. Raises ConfigurationError."""
    if not names:
        return tuple(CHECKS)
    for name in names:
        if not any(_means(name, id_) for id_ in CHECKS):
            topics = {id_.partition(".")[0] for id_ in CHECKS}
            close = difflib.get_close_matches(name, [*CHECKS, *topics], n=1)
            hint = f"did you mean {close[0]}?" if close else f"topics: {', '.join(sorted(topics))}"
            raise ConfigurationError(f"cannot check {name}: there is no such check", code="unknown_check", hint=hint)
    return tuple(id_ for id_ in CHECKS if any(_means(name, id_) for name in names))


def _means(name: str, id_: str) -> bool:
    return name in {id_, id_.partition(".")[0]}
