"""As a user tries it: the service goes away, the process is killed twice, everything is started again.

First with the process under test, then with the full daemon, which forwards what it finds in its state directory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.client import AgentClient
from edge_agent.outbox.vault import machine_identity
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.types import State
from tests.faults import oracle
from tests.faults.ledger import Ledger, Line, ServiceRecord
from tests.faults.scene import USERS, Scene, enrol
from tests.faults.zygote import Kill, Zygote, zygote
from tests.test_daemon import daemon, wait_for, write_config

DAEMON_KEY = "33" * 32
DAEMON_KILLS = 3
DRAIN_S = 30.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Zygote]:
    with zygote() as ready:
        yield ready


def waiting(lines: list[Line]) -> set[str]:
    """Ids that were told to be in the backlog or before the customer, and not to have ended."""
    ended = {line["id"] for line in lines if line["event"] == "final"}
    return {line["id"] for line in lines if line["event"] == "ack"} - ended


def test_every_capture_is_judged_although_the_service_was_away_and_the_process_was_killed_twice(
    tmp_path: Path, workers: Zygote
) -> None:
    with SandboxServer(folder=tmp_path / "sandbox") as server:
        service = ServiceRecord.of(server)
        enrol(server, range(USERS))
        here = Scene(tmp_path, server, service, server.base_url)
        with_service = workers.run(here.arguments("--seed", "with"))
        assert (with_service.status, waiting(with_service.lines)) == (0, set())
        here.ledger.absorb(with_service.lines)
    for number in range(2):
        without = workers.run(here.arguments("--seed", f"without-{number}"), Kill(0.05, "ack", 10))
        assert without.status == -9
        assert len(waiting(without.lines)) >= 10
        here.ledger.absorb(without.lines)
        here.must_be_good(files=False)
    with SandboxServer(folder=tmp_path / "sandbox", port=server.port) as again:
        service.listen(again)
        after = workers.run(here.arguments("--do", "forward", "--hurry"))
    assert after.status == 0
    here.ledger.absorb(after.lines)
    here.must_be_good(drained=True)
    assert len(here.ledger.acknowledged) >= 32


# httpcore forgets to close a Unix socket whose connect was refused; the garbage collector does it, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_full_daemon_loses_nothing_either(tmp_path: Path, workers: Zygote) -> None:
    chance, ledger = random.Random(), Ledger()
    with SandboxServer() as server:
        service = ServiceRecord.of(server)
        enrol(server, range(USERS))
        server.inject(Fault(step="match", kind="latency", latency_s=0.05, times=None))
        config = daemon_config(tmp_path, server)
        for number in range(DAEMON_KILLS):
            enqueue_for_the_daemon(tmp_path, server, workers, ledger, number)
            with daemon(config) as process:
                wait_for(process, tmp_path / "api.sock")
                time.sleep(chance.uniform(0.0, 0.3))  # the kill is to fall anywhere into its work
                process.kill()
            assert findings(tmp_path, ledger, service) == []
        with daemon(config) as process:
            wait_for(process, tmp_path / "api.sock")
            until_drained(tmp_path / "api.sock")
            process.terminate()
            process.communicate(timeout=20)
        assert process.returncode == 0
    assert findings(tmp_path, ledger, service, drained=True) == []
    assert len(ledger.acknowledged) == 8 * DAEMON_KILLS


def daemon_config(folder: Path, server: SandboxServer) -> Path:
    cypherface = {
        "base_url": server.base_url,
        "merchant_id": server.credentials.merchant_id,
        "api_key": {"file": str(folder / "api.key")},
        "upload_hosts": [server.host],
        "upload_quarantine_s": 0.5,
    }
    return write_config(folder, cypherface=cypherface)


def enqueue_for_the_daemon(folder: Path, server: SandboxServer, workers: Zygote, ledger: Ledger, number: int) -> None:
    """The daemon has neither camera nor models here: what it forwards was stored by the process under test."""
    same_store = ["--key", DAEMON_KEY, "--machine", machine_identity()]
    what = ["--do", "enqueue", "--captures", "8", "--seed", str(number)]
    life = workers.run([str(folder / "state"), server.base_url, *same_store, *what])
    assert life.status == 0
    ledger.absorb(life.lines)


def until_drained(socket: Path) -> None:
    deadline_s = time.monotonic() + DRAIN_S
    with AgentClient(socket) as client:
        while client.status()["queue"].get("depth") != 0:  # an error until the store is open
            assert time.monotonic() < deadline_s, client.status()
            time.sleep(0.05)


def findings(folder: Path, ledger: Ledger, service: ServiceRecord, *, drained: bool = False) -> list[oracle.Finding]:
    return oracle.inspect(
        folder / "state",
        ledger,
        service,
        oracle.Expectation(drained=drained, ends=frozenset({State.VERIFIED, State.NOT_VERIFIED})),
        key=bytes.fromhex(DAEMON_KEY),
        machine=machine_identity(),
    )
