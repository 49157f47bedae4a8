"""A state directory belongs to one machine until somebody says, on the record, that it was moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.vault import machine_identity
from tests.outbox.fakes import FakeClock, capture, open_store, picture

pytestmark = pytest.mark.arm

HERE, THERE = "this machine", "another machine"
WRONG = bytes(31) + b"x"


@pytest.fixture
def made(state_dir: Path, clock: FakeClock) -> str:
    """A store with one capture, made on HERE; returns the capture's id."""
    with open_store(state_dir, clock, machine=HERE) as store:
        return capture(store).id


def adoptions(store: Store) -> int:
    assert store.verify_audit().ok
    found = store._database.execute("SELECT count(*) FROM audit WHERE event = 'adopted'").fetchone()
    return int(found[0])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"machine": THERE}, "state_moved"),
        ({"machine": THERE, "key": WRONG}, "key_mismatch"),  # without the key nobody can say whose it is
        ({"machine": THERE, "key": WRONG, "adopt": True}, "key_mismatch"),
        ({"machine": HERE, "key": WRONG, "adopt": True}, "key_mismatch"),
        ({"machine": THERE, "key": WRONG, "previous_key": bytes(31) + b"y", "adopt": True}, "key_mismatch"),
    ],
)
def test_a_refused_store_is_not_changed(
    state_dir: Path, clock: FakeClock, made: str, options: dict[str, Any], code: str
) -> None:
    before = {file.name: file.read_bytes() for file in state_dir.iterdir()}
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock, **options)
    assert caught.value.code == code
    assert {file.name: file.read_bytes() for file in state_dir.iterdir()} == before
    with open_store(state_dir, clock, machine=HERE) as store:
        assert (store.payload(made), adoptions(store)) == (picture(made), 0)


def test_an_adopted_store_stays_adopted_and_the_machine_before_is_refused(
    state_dir: Path, clock: FakeClock, made: str
) -> None:
    with open_store(state_dir, clock, machine=THERE, adopt=True) as store:
        assert (store.payload(made), adoptions(store)) == (picture(made), 1)
    with open_store(state_dir, clock, machine=THERE) as store:
        assert adoptions(store) == 1
    with pytest.raises(StorageError) as caught:
        open_store(state_dir, clock, machine=HERE)
    assert caught.value.code == "state_moved"


def test_adopting_what_was_not_moved_records_nothing(state_dir: Path, clock: FakeClock, made: str) -> None:
    with open_store(state_dir, clock, machine=HERE, adopt=True) as store:
        assert (store.payload(made), adoptions(store)) == (picture(made), 0)


def test_a_power_cut_while_adopting_leaves_no_adoption_without_its_record(
    state_dir: Path, clock: FakeClock, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(_: Store) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_opened", cut)
        with pytest.raises(PowerCut):
            open_store(state_dir, clock, machine=THERE, adopt=True)
    with open_store(state_dir, clock, machine=THERE) as store:
        assert (store.payload(made), adoptions(store)) == (picture(made), 1)


def test_a_changed_machine_is_tampering_and_cannot_be_adopted(state_dir: Path, clock: FakeClock, made: str) -> None:
    with open_store(state_dir, clock) as store, store._database.transaction():
        store._database.execute("UPDATE meta SET value = x'00' WHERE name = 'machine'")
    for adopt in (False, True):
        with pytest.raises(StorageError) as caught:
            open_store(state_dir, clock, adopt=adopt)
        assert caught.value.code == "tampered"


BOARD = {"machine-id": b"6f1c\n", "serial": b"10000000abcdef\0"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (BOARD, BOARD, True),
        (BOARD, {"machine-id": b"6f1c", "serial": b"10000000abcdef"}, True),  # how a file ends says nothing
        (BOARD, {**BOARD, "serial": b"10000000fedcba\0"}, False),  # the card in another board
        (BOARD, {**BOARD, "machine-id": b"aaaa\n"}, False),  # installed anew
        (BOARD, {"machine-id": BOARD["machine-id"]}, False),
        ({"machine-id": b"6f1c\n"}, {"serial": b"6f1c\0"}, False),
        ({"machine-id": b"6f1c\n"}, {"machine-id": b"6f1c\n"}, True),
        ({}, BOARD, False),
        ({}, {}, True),  # nothing tells the two apart
    ],
)
def test_a_machine_is_its_installation_and_its_board(
    one: dict[str, bytes], other: dict[str, bytes], same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, files in enumerate((one, other)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        monkeypatch.setattr("edge_agent.outbox.vault._IDENTITY_FILES", (folder / "machine-id", folder / "serial"))
        found.append(machine_identity())
    assert (found[0] == found[1]) is same
    assert BOARD["machine-id"].strip().decode() not in found[0]
