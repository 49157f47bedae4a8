"""What one verification sends, beside one whole picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from edge_agent.bench import service
from edge_agent.types import State
from edge_agent.vision.annotate import encode_jpeg
from scripts.benches.capture import CAMERA
from scripts.benches.daemons import Daemon, daemon, wait_until_ready
from scripts.benches.goals import Goal
from scripts.benches.relay import relay
from scripts.benches.sessions import sessions
from scripts.benches.stage import ASSETS, Stage

WHOLE_QUALITY = 90
USER = "bench"
PORTRAIT = ASSETS / "images/id_obama_1.jpg"
"""Of the same person, as the enrolled source."""
DECIDED = {State.VERIFIED, State.NOT_VERIFIED}


def measure(stage: Stage, rounds: int, tell: Callable[[str], None]) -> list[Goal]:
    """``rounds`` verifications against a sandbox, counted on the way to it (without TLS, which adds a few KB)."""
    tell(f"bytes of {rounds} verifications")
    whole_bytes = statistics.median(len(encode_jpeg(frame, WHOLE_QUALITY)) for frame in np.load(stage.frames))
    folder = stage.folder / "service"
    folder.mkdir(exist_ok=True)
    with service.running(folder) as sandbox, relay(int(sandbox.upload_host.rpartition(":")[2])) as counted:
        address = f"127.0.0.1:{counted.port}"
        keys = {"base_url": f"http://{address}/", "upload_hosts": [address], "merchant_id": service.MERCHANT_ID}
        with daemon(stage, "open", camera=CAMERA, service={**keys, "api_key": sandbox.api_key}) as running:
            wait_until_ready(running)
            sent = _verify(running, rounds, lambda: counted.sent_bytes)
    return [goal(sent, whole_bytes)]


def _verify(running: Daemon, rounds: int, sent_bytes: Callable[[], int]) -> list[int]:
    """What each verification sent, from its request to its verdict."""
    sent = []
    with sessions(running) as terminal:
        terminal.client.enrol(USER, PORTRAIT.read_bytes())
        for _ in range(rounds):
            before = sent_bytes()
            filmed = terminal.film(USER)
            terminal.wait(filmed.id, DECIDED)
            sent.append(sent_bytes() - before)
    return sent


def goal(sent: list[int], whole_bytes: float) -> Goal:
    """Each with all its calls but that for a token, which serves many."""
    value = statistics.median(sent) / whole_bytes
    detail = (
        f"{statistics.median(sent) / 1000:.1f} KB ({min(sent) / 1000:.1f}-{max(sent) / 1000:.1f}), {len(sent)} "
        f"verifications, calls and headers included, against {whole_bytes / 1000:.1f} KB"
    )
    return Goal("bytes", "sent per verification, to one JPEG of 1280x720 (quality 90)", value, "x", 0.30, detail)
