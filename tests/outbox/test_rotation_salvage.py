"""Rotation of the key and salvage of the file, in whichever order: neither undoes what the other promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox.salvage import salvage
from tests.outbox.fakes import FakeClock, crash, open_store, pending, picture
from tests.outbox.test_audit_gaps import GAPS
from tests.outbox.wreck import garbage, overwrite, salvaged

OLD, NEW = b"o" * 32, b"n" * 32
BOTH: dict[str, Any] = {"key": NEW, "previous_key": OLD}
PAGE = 4096


def stocked(folder: Path, clock: FakeClock, stage: str) -> list[str]:
    with open_store(folder, clock, key=OLD) as store:
        ids = [pending(store, f"user-{number}").id for number in range(6)]
    if stage != "old":
        with open_store(folder, clock, **BOTH) as store:
            store.begin_rotation(actor="test")
            store.rotate_step(batch=2)
            if stage == "new":
                store.rotate(actor="test")
    return ids


@pytest.mark.parametrize("stage", ["old", "half", "new"])
def test_a_salvage_at_any_stage_of_a_rotation_keeps_everything(state_dir: Path, clock: FakeClock, stage: str) -> None:
    ids = stocked(state_dir, clock, stage)
    overwrite(state_dir / "outbox.db", 0, garbage(PAGE))
    report = salvage(state_dir, NEW, previous_key=OLD, clock=clock)
    assert report.captures_kept == len(ids)
    with open_store(state_dir, clock, **BOTH) as store:
        store.recover()
        assert [store.payload(key) for key in ids] == [picture(key) for key in ids]
        if stage == "old":
            store.rotate(actor="test")
        assert (store.verify().problems, store.verify_audit().ok) == ({}, True)
    with open_store(state_dir, clock, key=NEW) as store:
        assert store.payload(ids[0]) == picture(ids[0])


def test_the_key_file_follows_the_rotation(state_dir: Path, clock: FakeClock) -> None:
    stocked(state_dir, clock, "old")
    before = (state_dir / "keys").read_bytes()
    with open_store(state_dir, clock, **BOTH) as store:
        store.rotate(actor="test")
    assert (state_dir / "keys").read_bytes() != before
    (state_dir / "outbox.db").unlink()
    with pytest.raises(StorageError) as caught:
        salvage(state_dir, OLD, clock=clock)
    assert caught.value.code == "key_mismatch"
    assert salvage(state_dir, NEW, clock=clock).captures_kept == 0


def test_what_was_set_aside_under_the_old_key_goes_with_the_rotation(state_dir: Path, clock: FakeClock) -> None:
    stocked(state_dir, clock, "old")
    overwrite(state_dir / "outbox.db", 0, garbage(PAGE))
    salvage(state_dir, OLD, clock=clock)
    assert list((state_dir / "aside").iterdir())
    with open_store(state_dir, clock, **BOTH) as store:
        store.recover()
        store.rotate(actor="test")
        assert not list((state_dir / "aside").iterdir())
        rows = store._database.execute("SELECT detail FROM audit WHERE event = 'aside_destroyed'").fetchall()
        assert ['"why": "rotation"' in row["detail"] for row in rows] == [True]


@pytest.mark.parametrize("gap", GAPS)
def test_gaps_that_a_salvage_signed_stay_signed_after_a_rotation(state_dir: Path, clock: FakeClock, gap: str) -> None:
    where, expected = GAPS[gap]
    store = open_store(state_dir, clock)
    for number in range(12):
        pending(store, f"user-{number}")
    store._database.execute(f"DELETE FROM audit WHERE {where}")
    crash(store)
    salvaged(state_dir, clock)
    with open_store(state_dir, clock, key=NEW, previous_key=bytes(range(32))) as store:
        store.rotate(actor="test")
        audit = store.verify_audit()
        assert (audit.ok, audit.problem) == (True, None)
        assert [(found.first, found.last) for found in audit.gaps] == expected
        assert {row["key_generation"] for row in store._database.execute("SELECT * FROM audit_anchors")} == {2}
