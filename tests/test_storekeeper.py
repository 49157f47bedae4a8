"""The keeper of the store: what is missing is looked for, what broke is replaced, and nothing is acknowledged meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edge_agent import storekeeper
from edge_agent.errors import AgentError, StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.records import Leased, LeaseLost, SalvageReport
from edge_agent.outbox.salvage import salvage
from edge_agent.storekeeper import Storekeeper
from edge_agent.types import State
from tests.outbox import fakes
from tests.outbox.wreck import garbage, overwrite

OTHER_KEY = bytes(range(1, 33))


class Shelf:
    """A state directory and what is known about opening it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = fakes.FakeClock()
        self.key = fakes.KEY
        self.machine = "this machine"
        self.heard: list[str | None] = []
        self.keeper = Storekeeper(self.open, self.salvage, on_change=self.hear, clock=self.clock.monotonic_s)

    def open(self, *, adopt: bool) -> Store:
        return fakes.open_store(self.folder, self.clock, key=self.key, machine=self.machine, adopt=adopt)

    def salvage(self) -> SalvageReport:
        return salvage(self.folder, self.key, clock=self.clock)

    def hear(self, fault: AgentError | None) -> None:
        self.heard.append(fault.code if fault else None)

    async def until(self, true: Callable[[], bool]) -> None:
        for _ in range(2000):
            if true():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it did not happen")


def broken(store: Store) -> None:
    """As after an fsync that failed."""
    store._database._broken = "disk I/O error"
    store.counts()


def play(folder: Path, scenario: Callable[[Shelf], Awaitable[None]]) -> None:
    async def run() -> None:
        shelf = Shelf(folder / "state")
        await shelf.keeper.bring_up()
        watching = asyncio.create_task(shelf.keeper.watch())
        try:
            await scenario(shelf)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await shelf.keeper.close()

    asyncio.run(run())


def test_before_it_was_brought_up_it_says_that_it_starts(tmp_path: Path) -> None:
    async def scenario() -> None:
        keeper = Shelf(tmp_path).keeper
        with pytest.raises(AgentError) as caught:
            await keeper.run(Store.counts)
        assert (caught.value.code, caught.value.retryable) == ("starting", True)
        await keeper.close()

    asyncio.run(scenario())


def test_a_store_that_broke_is_replaced_and_what_was_under_way_is_void(tmp_path: Path) -> None:
    async def scenario(shelf: Shelf) -> None:
        keeper = shelf.keeper
        record = await keeper.run(fakes.pending)
        leased: Leased = await keeper.run(fakes.lease)
        with pytest.raises(StorageError):
            await keeper.run(broken)
        assert keeper.fault is not None
        await shelf.until(lambda: keeper.fault is None)
        assert shelf.heard == [None, "storage_failed", None]
        with pytest.raises(LeaseLost):
            await keeper.run(fakes.finish, leased)
        assert (await keeper.run(Store.get, record.id)).state is State.PENDING
        assert await keeper.run(Store.payload, record.id) == fakes.picture(record.id)
        assert (await keeper.run(Store.verify_audit)).ok
        assert keeper.reopened == 1

    play(tmp_path, scenario)


def test_damage_found_after_a_failure_is_logged_and_audited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="edge_agent")

    async def scenario(shelf: Shelf) -> None:
        keeper = shelf.keeper
        record = await keeper.run(fakes.pending)

        def damage(store: Store) -> None:
            with store._database.transaction():
                store._database.execute("UPDATE verifications SET caller = 'somebody else'")
            broken(store)

        with pytest.raises(StorageError):
            await keeper.run(damage)
        await shelf.until(lambda: keeper.fault is None)
        assert any(record.id in message and "damaged" in message for message in caplog.messages)

        def audited(store: Store) -> str:
            rows = store._database.execute("SELECT detail FROM audit WHERE event = 'reopened'").fetchall()
            return str(rows[-1]["detail"])

        assert '"damaged": 1' in await keeper.run(audited)

    play(tmp_path, scenario)


def test_a_missing_store_is_looked_for_until_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storekeeper, "RETRY_S", 0.01)
    fakes.open_store(tmp_path / "state", fakes.FakeClock(), key=OTHER_KEY).close()

    async def scenario(shelf: Shelf) -> None:
        with pytest.raises(StorageError) as caught:
            await shelf.keeper.run(Store.counts)
        assert caught.value.code == "key_mismatch"
        shelf.key = OTHER_KEY
        await shelf.until(lambda: shelf.keeper.fault is None)
        assert shelf.heard == ["key_mismatch", None]

    play(tmp_path, scenario)


def test_a_state_from_another_machine_is_taken_when_somebody_says_so(tmp_path: Path) -> None:
    fakes.open_store(tmp_path / "state", fakes.FakeClock(), machine="another").close()

    async def scenario(shelf: Shelf) -> None:
        assert shelf.keeper.fault is not None
        assert shelf.keeper.fault.code == "state_moved"
        await shelf.keeper.adopt()
        assert (await shelf.keeper.run(Store.counts))[State.PENDING] == 0

    play(tmp_path, scenario)


def test_adopting_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    fakes.open_store(tmp_path / "state", fakes.FakeClock(), key=OTHER_KEY).close()

    async def scenario(shelf: Shelf) -> None:
        with pytest.raises(StorageError) as caught:
            await shelf.keeper.adopt()
        assert caught.value.code == "key_mismatch"

    play(tmp_path, scenario)


def test_a_corrupt_file_is_salvaged_at_the_start(tmp_path: Path) -> None:
    with fakes.open_store(tmp_path / "state", fakes.FakeClock()) as store:
        made = fakes.pending(store).id
    overwrite(tmp_path / "state/outbox.db", 0, garbage(4096))

    async def scenario(shelf: Shelf) -> None:
        assert shelf.keeper.fault is None
        assert shelf.keeper.salvaged is not None
        assert (shelf.keeper.salvaged.captures_kept, shelf.keeper.salvaged.captures_lost) == (1, ())
        assert await shelf.keeper.run(Store.payload, made) == fakes.picture(made)

    play(tmp_path, scenario)


def test_a_file_that_is_found_corrupt_in_the_middle_of_work_is_salvaged_and_work_goes_on(tmp_path: Path) -> None:
    async def scenario(shelf: Shelf) -> None:
        keeper = shelf.keeper
        made = [(await keeper.run(fakes.pending, f"user-{number}")).id for number in range(5)]

        def tear(store: Store) -> None:
            store._database.truncate_log()
            root = store._database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'lanes_in_order'")
            overwrite(shelf.folder / "outbox.db", (root.fetchone()[0] - 1) * 4096, garbage(4096))
            store._database.execute("PRAGMA shrink_memory")  # what was read already is read again

        await keeper.run(tear)
        with pytest.raises(StorageError) as caught:
            await keeper.run(fakes.lease)
        assert caught.value.code == "storage_corrupt"
        await shelf.until(lambda: keeper.fault is None)
        assert keeper.salvaged is not None
        assert [await keeper.run(Store.payload, key) for key in made] == [fakes.picture(key) for key in made]
        assert (await keeper.run(fakes.lease)).record.id == made[0]
        assert shelf.heard == [None, "storage_corrupt", None]

    play(tmp_path, scenario)


def test_where_the_keys_are_lost_it_says_so_and_makes_no_empty_queue(tmp_path: Path) -> None:
    with fakes.open_store(tmp_path / "state", fakes.FakeClock()) as store:
        fakes.pending(store)
    overwrite(tmp_path / "state/outbox.db", 0, garbage((tmp_path / "state/outbox.db").stat().st_size))
    (tmp_path / "state/keys").unlink()

    async def scenario(shelf: Shelf) -> None:
        for _ in range(2):
            with pytest.raises(StorageError) as caught:
                await shelf.keeper.run(Store.counts)
            assert caught.value.code == "storage_corrupt"
            await shelf.keeper.bring_up()

    play(tmp_path, scenario)


def test_a_full_disk_does_not_count_as_broken(tmp_path: Path) -> None:
    async def scenario(shelf: Shelf) -> None:
        def full(_: Store) -> None:
            raise StorageError("cannot take a new capture", code="storage_full")

        with pytest.raises(StorageError):
            await shelf.keeper.run(full)
        assert shelf.keeper.fault is None

    play(tmp_path, scenario)


def test_the_audit_head_goes_to_the_journal_once_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storekeeper, "TICK_S", 0.005)
    caplog.set_level("INFO", logger="edge_agent")

    async def scenario(shelf: Shelf) -> None:
        def heads() -> list[str]:
            return [message for message in caplog.messages if message.startswith("audit head")]

        await shelf.until(lambda: len(heads()) == 1)
        assert heads() == [f"audit head {await shelf.keeper.run(Store.audit_head)}"]
        await asyncio.sleep(0.05)
        assert len(heads()) == 1
        shelf.clock.advance(3601)
        await shelf.until(lambda: len(heads()) == 2)

    play(tmp_path, scenario)
