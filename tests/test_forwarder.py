"""The forwarder against the real sandbox: whose picture is judged, in which order, and what an error stops."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import ConfigurationError, StorageError
from edge_agent.forwarder import ERROR_PAUSE_S
from edge_agent.outbox import Store
from edge_agent.outbox.records import VerificationRecord
from edge_agent.sandbox.faults import Fault
from edge_agent.sandbox.server import SandboxServer
from edge_agent.sandbox.variants import Variants
from edge_agent.types import State
from tests.bench import Bench, Span, play, sha256_of
from tests.keepers import fail
from tests.outbox import fakes

ROOT = Path(__file__).resolve().parents[1]
USERS = ("alice", "carol", "dave")
SEQUENCE = ["generate_url", "put", "match"]
FAST = {"connect_s": 5.0, "request_s": 1.0, "match_s": 1.0}


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        for user in USERS:
            server.enrol(user, b"source picture")
        yield server


def overlap(a: Span, b: Span) -> bool:
    assert a.ended_s is not None
    assert b.ended_s is not None
    return a.began_s < b.ended_s and b.began_s < a.ended_s


# -- whose picture is judged ------------------------------------------------------------------------------------------


def test_one_user_is_served_at_a_time_and_different_users_together(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.05, times=None))

    async def scenario(bench: Bench) -> None:
        records = [await bench.pending(user) for user in USERS * 3]
        live = await bench.captured("alice")
        bench.start()
        await bench.forwarder.submit(live.id)
        for record in [*records, live]:
            await bench.reaches(record, State.VERIFIED)
        pairs = list(itertools.combinations(bench.client.spans, 2))
        assert not [p for p in pairs if p[0].user_id == p[1].user_id and overlap(*p)]
        assert [p for p in pairs if overlap(*p)], "different users did not run together"
        for user in USERS:
            mine = [j.target_sha256 for j in sandbox.judged if j.user_id == user]
            own = [r for r in records if r.user_id == user]
            first = [live] if user == "alice" else []
            assert mine == [sha256_of(r) for r in first + own], "the live one first, then the oldest"

    play(tmp_path, sandbox, scenario)


def test_a_live_capture_goes_before_the_backlog_of_its_user(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        old = await bench.pending("alice")
        live = await bench.captured("alice")
        bench.start()
        await bench.reaches(old, State.VERIFIED)
        assert bench.judged == [sha256_of(live), sha256_of(old)]

    play(tmp_path, sandbox, scenario)


def test_a_sequence_under_way_finishes_before_the_live_capture(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.2))

    async def scenario(bench: Bench) -> None:
        old = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE[:2], "no picture was uploaded")
        live = await bench.captured("alice")
        await bench.forwarder.submit(live.id)
        await bench.reaches(live, State.VERIFIED)
        assert bench.judged == [sha256_of(old), sha256_of(live)]
        assert not overlap(*bench.client.spans)

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("answer", ["hang", "error"])
def test_a_picture_that_lands_late_is_never_judged_for_another_one(
    tmp_path: Path, sandbox: SandboxServer, answer: Any
) -> None:
    sandbox.inject(Fault(step="put", kind="late_put", delay_s=30.0, answer=answer))

    async def scenario(bench: Bench) -> None:
        first, second = await bench.pending("alice"), await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.client.spans != [])
        await bench.quiet()
        assert await bench.states(first, second) == [State.PENDING, State.PENDING]
        bench.advance(10.0)
        bench.forwarder.resume()
        await bench.reaches(first, State.VERIFIED)
        await bench.quiet()
        assert await bench.state(second) is State.PENDING, "the quarantine was not kept"
        sandbox.advance(30.0)  # now the first upload of the first picture lands
        bench.advance(61.0)
        await bench.reaches(second, State.VERIFIED)
        assert bench.judged == [sha256_of(first), sha256_of(second)]

    play(tmp_path, sandbox, scenario, timeouts=FAST)


def test_a_live_capture_waits_for_the_quarantine_too(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="put", kind="late_put", delay_s=30.0, answer="error"))

    async def scenario(bench: Bench) -> None:
        first = await bench.captured("alice")
        await bench.forwarder.submit(first.id)
        await bench.until(lambda: bench.forwarder.status.active == 0)
        second = await bench.captured("alice")
        await bench.forwarder.submit(second.id)
        assert bench.forwarder.status.active == 0
        assert await bench.state(second) is State.CAPTURED
        bench.clock.advance(61.0)
        sandbox.advance(30.0)
        await bench.forwarder.submit(second.id)
        await bench.reaches(second, State.VERIFIED)
        assert bench.judged == [sha256_of(second)]

    play(tmp_path, sandbox, scenario)


def test_a_stop_during_an_upload_begins_the_quarantine(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="put", kind="late_put", delay_s=30.0))

    async def scenario(bench: Bench) -> None:
        first = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == ["generate_url"], "nothing was asked for")
        await bench.until(lambda: bool(sandbox.state.saved.pictures[-1].type == "match"), "no picture arrived")
        await bench.stop()
        record = await bench.get(first)
        assert (record.state, record.lease, record.error_code) == (State.PENDING, None, "interrupted")
        assert bench.attempts == [("interrupted", "")]
        second = await bench.captured("alice")
        assert await bench.keeper.run(Store.lease_one, second.id, lease_s=60.0) is None

    play(tmp_path, sandbox, scenario)


def test_a_service_that_processes_slowly_judges_the_right_picture(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.vary(processing_lag_s=0.1, while_processing="previous")

    async def scenario(bench: Bench) -> None:
        records = [await bench.pending("alice") for _ in range(3)]
        bench.start()
        for record in records:
            await bench.reaches(record, State.VERIFIED)
        assert bench.judged == [sha256_of(record) for record in records]

    play(tmp_path, sandbox, scenario, match_settle_s=0.2)


def test_a_service_that_is_still_processing_is_asked_again(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.vary(processing_lag_s=5.0, while_processing="refuse")

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE)
        await bench.quiet()
        waiting = await bench.get(record)
        assert (waiting.state, waiting.error_code, waiting.conflicts) == (State.PENDING, "out_of_order", 1)
        assert bench.attempts == [("retried", "out_of_order")]
        sandbox.vary(processing_lag_s=0.0)
        sandbox.advance(5.0)
        bench.advance(5.0)
        await bench.reaches(record, State.VERIFIED)
        assert bench.judged == [sha256_of(record)]

    play(tmp_path, sandbox, scenario)


def test_a_verdict_for_somebody_erased_meanwhile_is_thrown_away(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.2))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE[:2])
        await bench.keeper.run(Store.delete_user, "alice")
        await bench.quiet()
        assert await bench.state(record) is State.DELETED
        await bench.until(lambda: bench.attempts == [("discarded", "lease_lost")])

    play(tmp_path, sandbox, scenario)


KILLED = """
import asyncio, sys
from pathlib import Path
from edge_agent.sandbox.runtime import Credentials
from tests.bench import Bench
class There:
    base_url, host, credentials = sys.argv[2], sys.argv[3], Credentials()
async def main():
    async with Bench(Path(sys.argv[1]), There()) as bench:
        record = await bench.pending("alice")
        print(record.id, flush=True)
        bench.start()
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["put", "match"])
def test_a_kill_during_a_sequence_runs_the_whole_of_it_again(tmp_path: Path, sandbox: SandboxServer, step: Any) -> None:
    sandbox.inject(Fault(step=step, kind="latency", latency_s=1.0))
    command = [sys.executable, "-c", KILLED, str(tmp_path), sandbox.base_url, sandbox.host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        id_ = process.stdout.readline().strip()
        while sandbox.sandbox.faults.waiting():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)

    async def scenario(bench: Bench) -> None:
        record = await bench.keeper.run(Store.get, id_)
        assert (record.state, record.attempts, record.lease) == (State.PENDING, 1, None)
        before = bench.steps()
        bench.start()
        done = await bench.reaches(record, State.VERIFIED)
        assert before == SEQUENCE[: SEQUENCE.index(step)]
        assert bench.steps().count("generate_url") == 2
        assert done.attempts == 2
        assert done.verdict is not None
        judged = [j for j in sandbox.judged if j.target_image_name == done.verdict.image_name]
        assert [j.target_sha256 for j in judged] == [sha256_of(record)]
        assert set(bench.judged) == {sha256_of(record)}

    play(tmp_path, sandbox, scenario)


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(tmp_path: Path, sandbox: SandboxServer, status: int) -> None:
    sandbox.inject(Fault(step="match", kind="status", status=status, retry_after=120))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE)
        await bench.quiet()
        bench.advance(119.0)
        await bench.quiet()
        assert (await bench.state(record), bench.steps()) == (State.PENDING, SEQUENCE)
        bench.advance(4.0)  # and our own jitter of up to 2 s
        await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_a_plea_to_wait_holds_for_the_backlog_of_all_users(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="generate_url", kind="status", status=429, retry_after=120))

    async def scenario(bench: Bench) -> None:
        first = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.steps() == ["generate_url"])
        await bench.quiet()
        second = await bench.pending("carol")
        await bench.quiet()
        assert bench.steps() == ["generate_url"]
        bench.advance(123.0)
        await bench.reaches(first, State.VERIFIED)
        await bench.reaches(second, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_coming_back_online_does_not_end_a_plea_to_wait(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="generate_url", kind="drop"))
    sandbox.inject(Fault(step="generate_url", kind="status", status=429, retry_after=120))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.networks == ["offline"])
        bench.advance(5.0)
        await bench.until(lambda: bench.networks == ["offline", "online"])
        await bench.quiet()
        assert bench.steps() == ["generate_url"] * 2
        bench.advance(125.0)
        await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_the_wait_grows_with_every_failure(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="status", status=500, times=None))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        for attempt, ceiling_s in enumerate([2.0, 4.0, 8.0, 16.0], 1):
            await bench.until(lambda n=attempt: len(bench.steps()) == 3 * n)  # type: ignore[misc]  # bound at once
            await bench.until(lambda: bench.forwarder.status.active == 0)
            waiting = await bench.get(record)
            assert waiting.transients == attempt
            assert 0.5 <= waiting.next_attempt_running_s - bench.clock.boottime <= ceiling_s
            bench.advance(ceiling_s)

    play(tmp_path, sandbox, scenario)


def test_waiting_for_a_sequence_does_not_keep_the_store_busy(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.6))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.reaches(record, State.VERIFIED)
        assert bench.looks <= 6

    play(tmp_path, sandbox, scenario)


def test_an_outage_is_probed_by_one_capture_and_ends_for_all_at_once(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="any", kind="drop", times=None))

    async def scenario(bench: Bench) -> None:
        records = [await bench.pending(user) for user in USERS]
        bench.start()
        await bench.until(lambda: bench.networks == ["offline"])
        await bench.quiet()
        before = len(bench.client.spans)
        bench.advance(400.0)
        await bench.until(lambda: len(bench.client.spans) > before)
        await bench.quiet()
        assert len(bench.client.spans) == before + 1
        sandbox.clear_faults()
        bench.advance(30.0)
        for record in records:
            await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("kind", ["html", "redirect"])
def test_a_captive_portal_is_not_the_service(tmp_path: Path, sandbox: SandboxServer, kind: Any) -> None:
    sandbox.inject(Fault(step="any", kind=kind, times=None))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.networks == ["offline"])
        await bench.quiet()
        assert (await bench.state(record), bench.judged) == (State.PENDING, [])

    play(tmp_path, sandbox, scenario)


def test_an_outage_without_a_queue_is_noticed_to_be_over(tmp_path: Path, sandbox: SandboxServer) -> None:
    """With the policy deny nothing is queued while offline: without a probe nobody could ever start again."""
    sandbox.inject(Fault(step="generate_url", kind="drop"))

    async def scenario(bench: Bench) -> None:
        record = await bench.captured("alice")
        bench.start()
        await bench.forwarder.submit(record.id)
        failed = await bench.reaches(record, State.FAILED)
        assert (failed.error_code, failed.image_bytes) == ("offline", 0)
        await bench.until(lambda: bench.networks == ["offline"])
        bench.advance(31.0)
        await bench.until(lambda: bench.networks == ["offline", "online"])

    play(tmp_path, sandbox, scenario, deny_offline=True)


def test_an_error_of_the_store_leaves_a_sequence_under_way_alone(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.2))

    async def scenario(bench: Bench) -> None:
        record = await bench.captured("alice")
        await bench.forwarder.submit(record.id)
        mend = fail(bench.keeper, Store.lease_next, StorageError("cannot use the database: busy"))
        bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE[:2])
        bench.forwarder.wake()
        done = await bench.reaches(record, State.VERIFIED)
        mend()
        assert (done.attempts, len(bench.judged)) == (1, 1)

    play(tmp_path, sandbox, scenario)


def test_an_unexpected_error_in_a_sequence_gives_the_capture_back(
    tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        with monkeypatch.context() as patched:
            patched.setattr("edge_agent.forwarder.new_image_name", lambda: 1 / 0)
            bench.start()
            await bench.until(lambda: bench.looks > 0)
            await bench.quiet()
        waiting = await bench.get(record)
        assert (waiting.state, waiting.lease, waiting.error_code) == (State.PENDING, None, "internal_error")
        bench.advance(31.0)
        await bench.reaches(record, State.VERIFIED)
        await bench.until(lambda: bench.attempts == [("failed", "internal_error"), ("verdict", "")])

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("deny", [False, True])
def test_a_capture_that_is_always_too_slow_is_no_outage(tmp_path: Path, sandbox: SandboxServer, deny: bool) -> None:
    sandbox.inject(Fault(step="match", kind="hang", times=2))

    async def scenario(bench: Bench) -> None:
        slow = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.client.spans != [] and bench.client.spans[0].ended_s is not None)
        await bench.quiet()
        waiting = await bench.get(slow)
        assert (waiting.state, waiting.error_code, waiting.transients) == (State.PENDING, "timeout", 1)
        bench.advance(10.0)
        await bench.until(lambda: len(bench.client.spans) == 2)
        other = await bench.pending("carol")
        await bench.reaches(other, State.VERIFIED)
        bench.advance(300.0)
        await bench.reaches(slow, State.VERIFIED)
        assert bench.networks == ["online"]

    play(tmp_path, sandbox, scenario, timeouts=FAST, deny_offline=deny)


def test_a_network_that_comes_up_is_probed_at_once(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="any", kind="drop", times=1))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        bench.start()
        await bench.until(lambda: bench.networks == ["offline"])
        await bench.quiet()
        assert await bench.state(record) is State.PENDING
        bench.forwarder.network_came_up()  # the clock stands still: only this can make it try again
        await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_a_network_that_comes_up_does_not_lift_a_stop(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        await stop_by_unknown_users(bench)
        before = bench.steps()
        bench.forwarder.network_came_up()
        await bench.quiet()
        assert bench.steps() == before

    play(tmp_path, sandbox, scenario)


def test_after_repeated_failures_the_http_client_is_a_new_one(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="any", kind="drop", times=None))

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        clients = [bench.client._line._http]
        bench.start()
        for _ in range(40):
            bench.advance(31.0)
            await bench.quiet()
            if bench.client._line._http not in clients:
                clients.append(bench.client._line._http)
                if len(clients) == 3:
                    break
        assert [client.is_closed for client in clients] == [True, True, False]
        sandbox.sandbox.faults.clear()
        bench.advance(31.0)
        await bench.reaches(record, State.VERIFIED)

    play(tmp_path, sandbox, scenario)


def test_a_picture_that_was_tampered_with_is_set_aside_and_never_sent(tmp_path: Path, sandbox: SandboxServer) -> None:
    def swap(store: Store) -> None:
        with store._database.transaction():
            store._database.execute("DROP TRIGGER payloads_never_change")
            store._database.execute("UPDATE payloads SET picture = zeroblob(length(picture))")

    async def scenario(bench: Bench) -> None:
        record = await bench.pending("alice")
        await bench.keeper.run(swap)
        bench.start()
        parked = await bench.reaches(record, State.FAILED)
        assert (parked.error_code, parked.parked) == ("tampered", True)
        assert bench.attempts == [("parked", "tampered")]
        later = await bench.pending("alice")
        bench.forwarder.wake()
        await bench.reaches(later, State.VERIFIED)
        assert bench.judged == [sha256_of(later)]

    play(tmp_path, sandbox, scenario)


@pytest.mark.parametrize("known", [True, False])
def test_a_key_that_cannot_be_read_is_told_by_the_keeper_alone(
    tmp_path: Path, sandbox: SandboxServer, caplog: pytest.LogCaptureFixture, known: bool
) -> None:
    error = ConfigurationError("cannot read the secret file k: gone", code="secret_missing")

    async def scenario(bench: Bench) -> None:
        if known:
            bench.keeper._settle(error)
        else:
            fail(bench.keeper, Store.lease_next, error)
        for _ in range(3):
            assert await bench.forwarder._turn() == ERROR_PAUSE_S

    play(tmp_path, sandbox, scenario)
    said = [record.getMessage().partition(":")[0] for record in caplog.records if record.levelname == "ERROR"]
    assert said == (["the outbox cannot be used"] if known else ["cannot look at the queue"] * 3)


# -- one capture's fault, or ours -------------------------------------------------------------------------------------


def test_one_unknown_user_parks_only_that_capture(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        stranger, known = await bench.pending("stranger"), await bench.pending("alice")
        bench.start()
        await bench.reaches(known, State.VERIFIED)
        parked = await bench.reaches(stranger, State.FAILED)
        assert (parked.error_code, parked.parked, parked.error_status) == ("unknown_user", True, 404)
        await bench.until(lambda: sorted(bench.attempts) == [("parked", "unknown_user"), ("verdict", "")])
        assert bench.forwarder.status.network == "online"
        assert await bench.keeper.run(Store.payload, stranger.id) == fakes.picture(stranger.id)

    play(tmp_path, sandbox, scenario)


async def stop_by_unknown_users(bench: Bench) -> list[VerificationRecord]:
    """Four captures of three unknown users: the third user stops forwarding."""
    records = [await bench.pending("x1")]
    bench.start()
    await bench.reaches(records[0], State.FAILED)
    for user in ("x1", "x2", "x3"):
        records.append(await bench.pending(user))
        bench.forwarder.wake()
        await bench.until(lambda: bench.forwarder.status.active == 0)
        await bench.quiet()
    await bench.until(lambda: bench.forwarder.status.network == "stopped")
    await bench.quiet()
    return records


def test_the_same_error_for_three_users_stops_forwarding_and_keeps_everything(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    async def scenario(bench: Bench) -> None:
        records = await stop_by_unknown_users(bench)
        assert await bench.states(*records) == [State.PENDING] * 4
        assert bench.forwarder.status.stopped_code == "unknown_user"
        assert [outcome for outcome, _ in bench.attempts] == ["parked", "parked", "parked", "stopped"]
        for user in ("x1", "x2", "x3"):
            sandbox.enrol(user, b"source")
        before = bench.steps()
        await bench.quiet()
        assert bench.steps() == before, "a stopped forwarder went on"
        bench.forwarder.resume()
        for record in records:
            await bench.reaches(record, State.VERIFIED)
        assert sorted(bench.judged) == sorted(sha256_of(record) for record in records)

    play(tmp_path, sandbox, scenario)


def test_a_probe_that_meets_the_same_error_changes_nothing(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        records = await stop_by_unknown_users(bench)
        bench.changes.clear()
        bench.networks.clear()
        before = len(bench.client.spans)
        bench.advance(901.0)
        await bench.until(lambda: len(bench.client.spans) > before)
        await bench.quiet()
        assert len(bench.client.spans) == before + 1
        assert bench.networks == []
        assert {state for _, state in bench.changes} == {State.PENDING}
        assert await bench.states(*records) == [State.PENDING] * 4

    play(tmp_path, sandbox, scenario)


def test_a_sequence_under_way_at_the_stop_is_kept_too(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.3, skip=3))

    async def scenario(bench: Bench) -> None:
        records = [await bench.pending(user) for user in ("x1", "x2", "x3")]
        live = await bench.captured("x4")
        bench.start()
        await bench.forwarder.submit(live.id)
        await bench.until(lambda: bench.forwarder.status.network == "stopped")
        await bench.quiet()
        assert bench.forwarder.status.network == "stopped"
        assert State.FAILED not in await bench.states(*records, live)

    play(tmp_path, sandbox, scenario)


def test_a_revoked_key_stops_and_a_restored_one_resumes(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        sandbox.vary(api_key_revoked=True)
        records = [await bench.pending(user) for user in USERS]
        bench.start()
        await bench.until(lambda: bench.networks == ["stopped"])
        await bench.quiet()
        bench.forwarder.resume()
        await bench.quiet()
        assert bench.networks == ["stopped"]
        assert await bench.states(*records) == [State.PENDING] * 3
        sandbox.vary(api_key_revoked=False)
        bench.forwarder.resume()
        for record in records:
            await bench.reaches(record, State.VERIFIED)
        assert (bench.networks, bench.forwarder.status.stopped_code) == (["stopped", "online"], None)

    play(tmp_path, sandbox, scenario)


def test_a_wrong_path_stops_and_the_probe_comes_every_15_minutes(tmp_path: Path) -> None:
    with SandboxServer(Variants(match_path="/api/face-match/")) as sandbox:
        sandbox.enrol("alice", b"source")

        async def scenario(bench: Bench) -> None:
            record = await bench.pending("alice")
            bench.start()
            await bench.until(lambda: bench.networks == ["stopped"])
            await bench.quiet()
            first = len(bench.client.spans)
            bench.advance(890.0)
            await bench.quiet()
            assert len(bench.client.spans) == first
            sandbox.vary(match_path="both")
            bench.advance(11.0)
            await bench.reaches(record, State.VERIFIED)

        play(tmp_path, sandbox, scenario)


def test_a_capture_for_another_environment_is_never_sent(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        other = await bench.keeper.run(fakes.pending, "alice")
        mine = await bench.pending("alice")
        bench.start()
        await bench.reaches(mine, State.VERIFIED)
        await bench.quiet()
        assert await bench.state(other) is State.PENDING
        assert bench.judged == [sha256_of(mine)]

    play(tmp_path, sandbox, scenario)


def test_nothing_is_left_running_after_a_stop(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="hang", times=None))

    async def scenario(bench: Bench) -> None:
        records = [await bench.pending(user) for user in USERS]
        bench.start()
        await bench.until(lambda: bench.steps().count("put") == 3)
        await bench.stop()
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("forward")]
        assert left == []
        for record in records:
            after = await bench.get(record)
            assert (after.state, after.lease) == (State.PENDING, None)

    play(tmp_path, sandbox, scenario)


# -- giving way to another one ----------------------------------------------------------------------------------------


def test_a_retired_forwarder_ends_what_it_began_and_takes_nothing_more(tmp_path: Path, sandbox: SandboxServer) -> None:
    sandbox.inject(Fault(step="match", kind="latency", latency_s=0.2))

    async def scenario(bench: Bench) -> None:
        first, second = await bench.pending("alice"), await bench.pending("alice")
        running = bench.start()
        await bench.until(lambda: bench.steps() == SEQUENCE[:2], "no picture was uploaded")
        bench.forwarder.retire()
        await bench.until(running.done, "it does not end")
        assert await bench.states(first, second) == [State.VERIFIED, State.PENDING]

    play(tmp_path, sandbox, scenario)


def test_a_retired_forwarder_lives_on_for_the_session_that_holds_it(tmp_path: Path, sandbox: SandboxServer) -> None:
    async def scenario(bench: Bench) -> None:
        old = await bench.pending("carol")
        bench.forwarder.hold()
        bench.forwarder.retire()
        running = bench.start()
        live = await bench.captured("alice")
        await bench.forwarder.submit(live.id)
        await bench.reaches(live, State.VERIFIED)
        assert not running.done()
        bench.forwarder.let_go()
        await bench.until(running.done, "it does not end")
        assert await bench.state(old) is State.PENDING
        assert bench.networks == [], "it still speaks for the terminal"

    play(tmp_path, sandbox, scenario)
