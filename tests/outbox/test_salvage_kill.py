"""A salvage that is killed at any step: the queue is never replaced by an empty one, and the next salvage finishes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox.aside import asides
from tests.outbox.fakes import FakeClock, open_store
from tests.outbox.wreck import Wreck, build, check_intact, check_sound, garbage, overwrite, salvaged


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Wreck:
    return build(tmp_path_factory.mktemp("wreck"))


def damaged(wreck: Wreck, to: Path) -> Path:
    folder = wreck.copy(to, logged=True)
    overwrite(folder / "outbox.db", 0, garbage(100))
    overwrite(folder / "outbox.db-wal", 0, garbage(32))
    return folder


def kill_at(folder: Path, clock: FakeClock, step: str) -> None:
    """Salvage in a child process that is killed right after this step."""

    def killer(done: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            salvaged(folder, clock, progress=killer)
        finally:
            os._exit(1)  # a child that was not killed must not go on with the tests
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def opens(folder: Path, clock: FakeClock) -> bool:
    code = None
    try:
        open_store(folder, clock).close()
    except StorageError as exc:
        code = exc.code
    assert code in {None, "storage_corrupt"}
    return code is None


def test_a_kill_after_any_step_loses_nothing(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    steps: list[str] = []
    salvaged(damaged(wreck, tmp_path / "whole"), clock, progress=steps.append)
    assert len(steps) >= 15
    opened = {}
    for number, step in enumerate(steps):
        folder = damaged(wreck, tmp_path / f"state-{number}")
        kill_at(folder, clock, step)
        opened[step] = opens(folder, clock)
        report = salvaged(folder, clock)
        with open_store(folder, clock) as store:
            check_sound(store, wreck.known, report)
            check_intact(store, wreck.known, wreck.known.pictures)
            assert {record.id for record in store.list(limit=1000)} == set(wreck.known.states)
        assert not (folder / "rebuild").exists()
        assert all(aside.done for aside in asides(folder))
    assert [step for step in steps if opened[step]] == ["database in place", "finished"]


def test_a_kill_at_every_step_in_turn_loses_nothing(wreck: Wreck, tmp_path: Path, clock: FakeClock) -> None:
    folder = damaged(wreck, tmp_path / "state")
    for step in ("folder made", "outbox.db moved", "outbox.db-wal moved", "payloads copied", "database built"):
        kill_at(folder, clock, step)
        assert not opens(folder, clock)
    report = salvaged(folder, clock)
    assert report.captures_kept == len(wreck.known.pictures)
    assert len(asides(folder)) == 1


def test_an_empty_file_in_the_place_of_a_queue_that_is_aside_does_not_hide_it(
    wreck: Wreck, tmp_path: Path, clock: FakeClock
) -> None:
    folder = damaged(wreck, tmp_path / "state")
    kill_at(folder, clock, "outbox.db-shm moved")
    (folder / "outbox.db").touch()
    (folder / "keys").unlink()
    assert not opens(folder, clock)
    assert salvaged(folder, clock).captures_kept == len(wreck.known.pictures)


def test_without_space_for_the_new_database_the_queue_waits_aside(
    wreck: Wreck, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = damaged(wreck, tmp_path / "state")

    def full(*_: object) -> None:
        raise StorageError("cannot use it: database or disk is full", code="storage_full")

    with monkeypatch.context() as patched:
        patched.setattr("edge_agent.outbox.mending.Mending._copy_payloads", full)
        with pytest.raises(StorageError) as caught:
            salvaged(folder, clock)
    assert caught.value.code == "storage_full"
    assert not (folder / "rebuild").exists()  # what was built gives its space back
    assert not opens(folder, clock)
    assert salvaged(folder, clock).captures_kept == len(wreck.known.pictures)
