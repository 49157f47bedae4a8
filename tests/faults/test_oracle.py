"""The oracle finds every kind of violation, and nothing where there is none."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.sandbox.runtime import DEFAULT_API_KEY
from edge_agent.types import State
from tests.faults import oracle
from tests.faults.ledger import Acknowledged, Act, Ledger, Line
from tests.faults.oracle import Kind
from tests.faults.remnants import Index
from tests.faults.scene import Scene
from tests.faults.worker import picture

ENQUEUE = ("--do", "enqueue", "--captures", 6, "--live-share", 0)
DRAINED = {"drained": True}


def a_drained_queue(scene: Scene) -> Acknowledged:
    """Everything judged; gives a capture of a user who matches."""
    scene.run_here("--captures", 12, "--hurry")
    return next(a for a in scene.ledger.acknowledged.values() if not a.user.startswith("no-"))


def a_backlog(scene: Scene) -> Acknowledged:
    scene.run_here(*ENQUEUE)
    return next(iter(scene.ledger.acknowledged.values()))


def execute(scene: Scene, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(scene.state_dir / oracle.DATABASE)) as database:
        assert database.execute(sql, values).rowcount == 1
        database.commit()


def kinds(scene: Scene, **expected: Any) -> set[Kind]:
    return {finding.kind for finding in scene.inspect(**expected)}


# -- nothing is found where all is well -------------------------------------------------------------------------------


def test_a_queue_that_waits_and_one_that_drained_are_good(here: Scene) -> None:
    here.run_here(*ENQUEUE)
    here.must_be_good()
    here.run_here("--seed", 2, "--hurry")
    here.must_be_good(drained=True)
    assert len(here.ledger.acknowledged) == 18
    assert {act.outcome for act in here.service.judged} == {"match", "mismatch"}


def test_a_destroyed_user_leaves_nothing(here: Scene) -> None:
    known = a_backlog(here)
    here.gone = oracle.harvest(here.state_dir, [known.id])
    here.run_here("--do", "forward", "--hurry", "--delete", known.user)
    here.must_be_good(drained=True)
    assert here.ledger.deleted == {known.user}


def test_it_changes_nothing(here: Scene) -> None:
    a_backlog(here)
    before = {path: path.read_bytes() for path in here.state_dir.rglob("*") if path.is_file()}
    here.inspect()
    assert {path: path.read_bytes() for path in here.state_dir.rglob("*") if path.is_file()} == before


# -- captures ---------------------------------------------------------------------------------------------------------


def test_a_capture_that_is_not_there_is_lost(here: Scene) -> None:
    known = a_backlog(here)
    here.ledger.acknowledged["0" * 32] = replace(known, id="0" * 32)
    assert kinds(here) == {Kind.LOST}


def test_a_capture_without_its_row_is_lost_and_the_store_is_not_sound(here: Scene) -> None:
    known = a_backlog(here)
    execute(here, "DELETE FROM payloads WHERE seq = ?", known.seq)
    assert {Kind.ALTERED, Kind.STORE} <= kinds(here)


def test_a_state_directory_put_back_to_an_earlier_time_is_noticed(here: Scene) -> None:
    a_backlog(here)
    shutil.copytree(here.state_dir, here.folder / "earlier")
    here.run_here("--do", "enqueue", "--seed", 2)
    shutil.rmtree(here.state_dir)
    (here.folder / "earlier").rename(here.state_dir)
    assert kinds(here) == {Kind.LOST, Kind.AUDIT}


def test_another_picture_than_the_acknowledged_one_is_altered(here: Scene) -> None:
    known = a_backlog(here)
    here.ledger.acknowledged[known.id] = replace(known, sha256="0" * 64)
    assert kinds(here) == {Kind.ALTERED}


def test_a_changed_row_is_altered_and_does_not_verify(here: Scene) -> None:
    known = a_backlog(here)
    execute(here, "UPDATE verifications SET attempts = 7 WHERE id = ?", known.id)
    assert kinds(here) == {Kind.ALTERED, Kind.STORE}


def test_a_capture_that_still_waits_after_a_drain_is_open(here: Scene) -> None:
    a_backlog(here)
    assert kinds(here, **DRAINED) == {Kind.OPEN, Kind.TWO_ENDS}  # no end at all is not exactly one


def test_an_end_without_a_verdict_is_found_unless_it_is_expected(here: Scene) -> None:
    here.server.vary(mismatch_style="false_4xx", no_face_status=400)
    here.run_here("--captures", 3, "--users", 1, "--live-share", 0, "--do", "enqueue")
    here.server.reset()  # nobody is enrolled: 404 parks every capture
    here.run_here("--do", "forward", "--hurry")
    assert kinds(here, **DRAINED) == {Kind.UNJUDGED}
    here.must_be_good(drained=True, ends=frozenset({State.FAILED}))


def test_an_erased_capture_that_nobody_deleted_is_lost(here: Scene) -> None:
    known = a_backlog(here)
    here.run_here("--do", "forward", "--hurry", "--delete", known.user)
    here.ledger.deleted.clear()
    assert Kind.LOST in kinds(here, **DRAINED)


def test_without_a_database_everything_acknowledged_is_lost(here: Scene) -> None:
    a_backlog(here)
    shutil.rmtree(here.state_dir)
    assert len(here.inspect()) == len(here.ledger.acknowledged) == 6
    assert kinds(here) == {Kind.LOST}


# -- verdicts ---------------------------------------------------------------------------------------------------------


def without(acts: list[Act], known: Acknowledged) -> list[Act]:
    return [act for act in acts if not (act.kind == "judged" and act.sha256 == known.sha256)]


def test_a_verdict_that_the_service_never_gave_is_unfounded(here: Scene) -> None:
    known = a_drained_queue(here)
    here.service.acts = without(here.service.acts, known)
    assert Kind.UNFOUNDED in kinds(here, **DRAINED)


@pytest.mark.parametrize(
    "other",
    [{"outcome": "mismatch"}, {"sha256": "0" * 64}, {"image_name": "another.jpg"}, {"user": "somebody else"}],
)
def test_an_answer_about_something_else_is_no_evidence(here: Scene, other: dict[str, str]) -> None:
    known = a_drained_queue(here)
    acts = here.service.acts
    at = next(n for n, act in enumerate(acts) if act.kind == "judged" and act.sha256 == known.sha256)
    acts[at] = replace(acts[at], **other)  # type: ignore[arg-type]  # one text field each
    assert Kind.UNFOUNDED in kinds(here, **DRAINED)


def test_a_verdict_against_the_rule_is_wrong(here: Scene) -> None:
    a_drained_queue(here)
    assert kinds(here, drained=True, matches=lambda user: True) == {Kind.WRONG}


def test_two_verdicts_of_one_capture_are_found(here: Scene) -> None:
    known = a_drained_queue(here)
    columns = "at, synchronised, boot_id, boottime_s, running_s, instance_id, event, verification_id, user_hmac, "
    columns += "from_state, to_state, detail, key_generation, mac"
    last = "(SELECT max(seq) + 1 FROM audit)"
    execute(
        here,
        f"INSERT INTO audit (seq, {columns}) SELECT {last}, {columns} FROM audit "
        "WHERE event = 'verdict' AND verification_id = ?",
        known.id,
    )
    assert {Kind.DUPLICATED, Kind.TWO_ENDS, Kind.AUDIT} <= kinds(here)


def test_an_end_that_is_not_the_announced_one_is_found(here: Scene) -> None:
    known = a_drained_queue(here)
    here.ledger.ends[known.id] = ["not_verified"]
    assert kinds(here, **DRAINED) == {Kind.TWO_ENDS}


def test_two_announced_ends_are_found(here: Scene) -> None:
    known = a_drained_queue(here)
    here.ledger.ends[known.id] = ["not_verified", "verified"]
    assert kinds(here, **DRAINED) == {Kind.TWO_ENDS}


# -- order and turns --------------------------------------------------------------------------------------------------


def two_of_one_user(scene: Scene) -> tuple[Acknowledged, Acknowledged]:
    scene.run_here("--captures", 3, "--users", 1, "--live-share", 0, "--hurry")
    first, second, _ = scene.ledger.acknowledged.values()
    return first, second


def test_a_newer_capture_judged_before_an_older_one_is_out_of_order(here: Scene) -> None:
    first, _ = two_of_one_user(here)
    at = {a.sha256: n for n, a in enumerate(here.service.acts) if a.kind == "judged"}
    here.service.acts.append(here.service.acts[at[first.sha256]])
    assert Kind.ORDER in kinds(here, **DRAINED)
    here.ledger.acknowledged[first.id] = replace(first, live=True)
    assert Kind.ORDER not in kinds(here, **DRAINED), "a live capture may overtake"


def test_a_capture_judged_twice_in_a_row_is_in_order(here: Scene) -> None:
    first, _ = two_of_one_user(here)
    acts = here.service.acts
    at = next(n for n, act in enumerate(acts) if act.kind == "judged" and act.sha256 == first.sha256)
    acts.insert(at, acts[at])
    here.must_be_good(drained=True)


def test_a_picture_that_arrives_during_a_comparison_is_interleaved(here: Scene) -> None:
    two_of_one_user(here)
    acts = here.service.acts
    puts = [act for act in acts if act.kind == "put"]
    acts.insert(next(n for n, act in enumerate(acts) if act.kind == "judged"), puts[1])
    assert Kind.INTERLEAVED in kinds(here, **DRAINED)


def test_a_comparison_with_a_picture_that_was_not_the_last_is_interleaved(here: Scene) -> None:
    two_of_one_user(here)
    acts = here.service.acts
    first, second = [n for n, act in enumerate(acts) if act.kind == "put"][:2]
    acts[first], acts[second] = acts[second], acts[first]
    assert Kind.INTERLEAVED in kinds(here, **DRAINED)


def test_a_comparison_while_another_picture_is_on_its_way_is_interleaved(here: Scene) -> None:
    two_of_one_user(here)
    acts = here.service.acts
    first = next(n for n, act in enumerate(acts) if act.kind == "put")
    acts[first] = replace(acts[first], lands_at_s=acts[first].at_s + 30.0)
    assert kinds(here, **DRAINED) == {Kind.INTERLEAVED}


def test_a_sequence_that_begins_inside_another_one_is_interleaved(here: Scene) -> None:
    a_drained_queue(here)
    here.ledger.absorb([{"event": "url", "user": "a"}, {"event": "put", "user": "a"}, {"event": "url", "user": "a"}])
    assert kinds(here, **DRAINED) == {Kind.INTERLEAVED}


# -- audit log --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit SET detail = '{}' WHERE seq = 5",
        "DELETE FROM audit WHERE seq = 5",
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
    ],
)
def test_a_changed_missing_or_cut_off_record_is_found(here: Scene, damage: str) -> None:
    a_backlog(here)
    with closing(sqlite3.connect(here.state_dir / oracle.DATABASE)) as database:
        database.execute("DROP TRIGGER audit_is_append_only")
        assert database.execute(damage).rowcount == 1
        database.commit()
    assert Kind.AUDIT in kinds(here)


def test_a_head_of_another_chain_is_found(here: Scene) -> None:
    a_backlog(here)
    seq = here.ledger.heads[0].split(":")[0]
    here.ledger.heads[0] = f"{seq}:{'0' * 64}"
    assert kinds(here) == {Kind.AUDIT}


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100], ids=["empty", "garbage"])
def test_a_database_that_is_none_is_found(here: Scene, damage: bytes) -> None:
    a_backlog(here)
    for path in here.state_dir.glob(f"{oracle.DATABASE}*"):
        path.unlink()
    (here.state_dir / oracle.DATABASE).write_bytes(damage)
    assert kinds(here) & {Kind.STORE, Kind.LOST}


# -- files ------------------------------------------------------------------------------------------------------------


def write_into(name: str, content: bytes) -> Callable[[Scene], None]:
    def write(scene: Scene) -> None:
        path: Path = scene.state_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(77) + content + os.urandom(5))

    return write


@pytest.mark.parametrize("name", ["outbox.db-wal.old", "aside/outbox.db"])
@pytest.mark.parametrize("secret", ["api key", "user", "token", "claims", "picture"])
def test_a_secret_in_any_file_is_found(here: Scene, secret: str, name: str) -> None:
    known = a_drained_queue(here)
    picture_name, size = next(iter(here.ledger.pictures.items()))
    content = {
        "api key": DEFAULT_API_KEY.encode(),
        "user": known.user.encode(),
        "token": here.service.tokens[0].encode(),
        "claims": here.service.tokens[0].split(".")[1].encode(),
        "picture": picture(picture_name, size)[101:133],
    }[secret]
    write_into(name, content)(here)
    assert kinds(here, **DRAINED) == {Kind.LEAK}


def test_what_was_deleted_is_found_where_it_was_left(here: Scene) -> None:
    known = a_backlog(here)
    here.gone = oracle.harvest(here.state_dir, [known.id])
    assert kinds(here) == {Kind.REMNANT}, "nothing was deleted yet"
    here.run_here("--do", "forward", "--hurry", "--delete", known.user)
    for blob in here.gone:
        here.must_be_good(drained=True)
        write_into("old", blob[-32:])(here)
        assert kinds(here, **DRAINED) == {Kind.REMNANT}
        (here.state_dir / "old").unlink()


@pytest.mark.parametrize("length", [24, 32, 60])
def test_every_slice_of_a_blob_is_found_at_every_offset(length: int) -> None:
    blob, noise = os.urandom(200), os.urandom(64)
    index = Index([blob, b""])
    for begin in range(200 - length):
        assert index.found_in(noise[: begin % 9] + blob[begin : begin + length] + noise) is not None
    assert index.found_in(noise) is None
    assert index.found_in(b"") is None
    assert Index([]).found_in(blob) is None


URL = {"event": "url", "user": "alice"}
GIVEN_BACK = {
    "event": "state",
    "id": "a",
    "state": "pending",
    "user": "alice",
    "error": "storage_full",
    "parked": False,
}


@pytest.mark.parametrize(
    ("between", "problems"),
    [
        ([], 1),
        ([{"event": "gave_up", "user": "carol"}], 1),
        ([{**GIVEN_BACK, "error": "network"}], 1),
        ([{"event": "gave_up", "user": "alice"}], 0),
        ([{"event": "answered", "user": "alice"}], 0),
        ([GIVEN_BACK], 0),
    ],
)
def test_a_client_that_begins_a_sequence_inside_another_one_is_told(between: list[Line], problems: int) -> None:
    ledger = Ledger()
    ledger.absorb([URL, *between, URL])
    assert len(ledger.problems) == problems
