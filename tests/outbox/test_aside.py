"""What is set aside obeys the same rules as the queue: private, as old as a capture at most, gone with what is erased."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import InputError
from edge_agent.outbox import Store
from edge_agent.outbox.records import Limits
from tests.outbox.fakes import FakeClock, capture, crash, open_store, pending, picture
from tests.outbox.test_erasure import OTHER, USER, ciphertexts, every_byte, fill, found_in, slices_found
from tests.outbox.wreck import garbage, overwrite, salvaged


def salvaged_store(state_dir: Path, clock: FakeClock, **options: Any) -> Store:
    """A store that was damaged and salvaged, its damaged files beside it."""
    with open_store(state_dir, clock) as store:
        store.recover()
        fill(store)
        store._database.truncate_log()
    overwrite(state_dir / "outbox.db", 0, garbage(100))
    salvaged(state_dir, clock)
    store = open_store(state_dir, clock, **options)
    store.recover()
    return store


def is_aside(state_dir: Path) -> bool:
    return any((state_dir / "aside").iterdir())


def destructions(store: Store) -> list[str]:
    rows = store._database.execute("SELECT detail FROM audit WHERE event = 'aside_destroyed' ORDER BY seq")
    return [json.loads(row["detail"])["why"] for row in rows]


def test_what_is_set_aside_is_private(state_dir: Path, clock: FakeClock) -> None:
    salvaged_store(state_dir, clock).close()
    inside = list((state_dir / "aside").rglob("*"))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in inside if path.is_file()}
    assert len(inside) >= 3
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state_dir / "aside", inside[0])} == {0o700}


ERASURES: dict[str, Callable[[Store], object]] = {
    "delete_user": lambda store: store.delete_user(USER),
    "withdraw": lambda store: [store.withdraw(r.id) for r in store.list() if r.user_id == USER],
}


@pytest.mark.parametrize("erasure", ERASURES)
def test_erasing_destroys_what_is_set_aside_whole(state_dir: Path, clock: FakeClock, erasure: str) -> None:
    store = salvaged_store(state_dir, clock)
    blobs, others = ciphertexts(store, USER), ciphertexts(store, OTHER)
    before = every_byte(state_dir)
    assert all(any("/aside/" in name for name in found_in(before, blob[:32])) for blob in blobs.values())
    ERASURES[erasure](store)
    files = every_byte(state_dir)
    assert not [name for name, blob in blobs.items() if found_in(files, blob[:32]) or slices_found(files, blob)]
    assert all(found_in(files, blob[:32]) for blob in others.values())
    assert not is_aside(state_dir)
    assert destructions(store) == ["erasure"]
    assert store.verify().ok and store.verify_audit().ok
    crash(store)


def test_a_withdrawal_of_nothing_destroys_nothing(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock)
    with pytest.raises(InputError):
        store.withdraw("nope")
    assert is_aside(state_dir)
    crash(store)


def test_a_destruction_that_was_cut_short_takes_the_copy_with_it(
    state_dir: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(state_dir, clock) as store:
        fill(store)
        blobs = ciphertexts(store, USER)
        with monkeypatch.context() as patched:
            patched.setattr(Store, "_erase_rows", lambda *_: pytest.fail("power cut"))
            with pytest.raises(pytest.fail.Exception):
                store.delete_user(USER)
        store._database.truncate_log()
    overwrite(state_dir / "outbox.db", 0, garbage(100))
    salvaged(state_dir, clock)
    store = open_store(state_dir, clock)
    assert store.recover().erasures_finished == 1
    assert not is_aside(state_dir)
    files = every_byte(state_dir)
    assert not [name for name, blob in blobs.items() if found_in(files, blob[:32])]
    crash(store)


def test_it_grows_as_old_as_a_capture_and_no_older(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock, limits=Limits(max_age_s=3600))
    clock.advance(3599)
    store.tick()
    assert is_aside(state_dir)
    clock.advance(1)
    store.tick()
    assert not is_aside(state_dir)
    assert destructions(store) == ["max_age_s"]
    crash(store)


def test_its_age_goes_on_over_a_reboot(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock)
    clock.advance(1800)
    store.close()
    clock.reboot(sync=False)
    store = open_store(state_dir, clock, limits=Limits(max_age_s=3600))
    clock.advance(1790)
    store.tick()
    assert is_aside(state_dir)
    clock.advance(10)
    store.tick()
    assert not is_aside(state_dir)
    crash(store)


def test_a_changed_note_does_not_keep_it_for_ever(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock, limits=Limits(max_age_s=3600))
    store._database.execute("UPDATE meta SET value = x'7b7d' WHERE name LIKE 'aside:%'")
    store.tick()
    clock.advance(3600)
    store.tick()
    assert not is_aside(state_dir)
    crash(store)


def test_it_gives_way_to_captures_but_never_pushes_one_out(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock, limits=Limits(max_bytes=100_000))
    assert not is_aside(state_dir)  # three pictures and their copy are more than that
    assert store.queue().payload_items == 3
    capture(store, jpeg=picture("new", 20_000))
    assert store.queue().payload_items == 4
    assert destructions(store) == ["max_bytes"]
    crash(store)


def test_it_gives_way_when_the_disk_runs_short(state_dir: Path, clock: FakeClock) -> None:
    store = salvaged_store(state_dir, clock, free_bytes=lambda _: 1000, reserve_bytes=1 << 20)
    assert destructions(store) == ["reserve_bytes"]
    crash(store)


def test_only_the_newest_three_are_kept(state_dir: Path, clock: FakeClock) -> None:
    salvaged_store(state_dir, clock).close()
    for _ in range(4):
        salvaged(state_dir, clock)
    store = open_store(state_dir, clock)
    store.tick()
    kept = sorted(path.name[:4] for path in (state_dir / "aside").iterdir())
    assert kept == ["0003", "0004", "0005"]
    pending(store)
    crash(store)
