"""The audit chain over a salvage: gaps are named and signed, and nothing can hide behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.outbox import Store
from edge_agent.outbox.records import AuditHead, Limits, SalvageReport
from edge_agent.outbox.structure import Structure
from edge_agent.types import State
from tests.outbox.fakes import FakeClock, crash, open_store, pending
from tests.outbox.wreck import salvaged

DAY_S = 86_400.0


def broken(state_dir: Path, clock: FakeClock, where: str) -> tuple[AuditHead, SalvageReport]:
    """Records taken out of a chain of 30 and more, then a salvage; the head from before."""
    store = open_store(state_dir, clock)
    for number in range(12):
        pending(store, f"user-{number}")
    head = store.audit_head()
    store._database.execute(f"DELETE FROM audit WHERE {where}")
    crash(store)
    assert head is not None
    return head, salvaged(state_dir, clock)


GAPS = {
    "in the middle": ("seq = 10", [(10, 11)]),
    "several": ("seq IN (10, 11, 20)", [(10, 12), (20, 21)]),
    "the beginning": ("seq <= 4", [(1, 5)]),
    "the end": ("seq > 30", [(31, 36)]),
    "every other": ("seq % 2 = 0", [(2, 36)]),
    "all": ("1 = 1", [(1, 36)]),
}


@pytest.mark.parametrize("gap", GAPS)
def test_what_is_missing_is_named_and_the_chain_goes_on_behind_it(state_dir: Path, clock: FakeClock, gap: str) -> None:
    where, expected = GAPS[gap]
    head, report = broken(state_dir, clock, where)
    assert [(found.first, found.last) for found in report.audit_gaps] == expected
    assert report.tables["audit"].lost == sum(last - first + 1 for first, last in expected)
    with open_store(state_dir, clock) as store:
        audit = store.verify_audit()
        assert audit.ok
        assert audit.gaps == report.audit_gaps
        assert store.verify().ok
        with Structure(state_dir, clock) as files:
            assert files.check().problems == ()
            assert files.check_audit().ok
        assert store.note("later").seq > head.seq
        assert store.verify_audit().ok


@pytest.mark.parametrize("gap", ["in the middle", "the end", "all"])
def test_a_log_with_a_gap_is_cut_off_by_retention_like_any_other(
    state_dir: Path, clock: FakeClock, gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.sweep._PRUNED_AT_ONCE", 7)  # cuts before, within and after the gaps
    broken(state_dir, clock, GAPS[gap][0])
    with open_store(state_dir, clock, limits=Limits(verdict_age_s=DAY_S, audit_age_s=10 * DAY_S)) as store:
        store.recover()
        for _ in range(7):
            clock.advance(5 * DAY_S)
            store.tick()
            assert store.verify_audit().ok
            with Structure(state_dir, clock) as files:
                assert files.check().problems == ()
        assert store.verify().ok
        assert store.verify_audit().gaps == ()
        assert store.counts()[State.EXPIRED] == 0


@pytest.mark.parametrize("gap", GAPS)
def test_a_second_salvage_keeps_the_gaps_as_they_are(state_dir: Path, clock: FakeClock, gap: str) -> None:
    _, first = broken(state_dir, clock, GAPS[gap][0])
    assert salvaged(state_dir, clock).audit_gaps == ()
    with open_store(state_dir, clock) as store:
        assert store.verify_audit().gaps == first.audit_gaps


def test_a_second_loss_beside_a_gap_makes_one_larger_gap(state_dir: Path, clock: FakeClock) -> None:
    broken(state_dir, clock, "seq = 10")
    damage(state_dir, clock, "DELETE FROM audit WHERE seq IN (9, 12)")
    assert [(gap.first, gap.last) for gap in salvaged(state_dir, clock).audit_gaps] == [(9, 13)]
    with open_store(state_dir, clock) as store:
        assert store.verify_audit().ok


def damage(state_dir: Path, clock: FakeClock, *statements: str) -> None:
    store = open_store(state_dir, clock)
    store._database.execute("DROP TRIGGER IF EXISTS audit_is_append_only")
    for statement in statements:
        assert store._database.execute(statement).rowcount > 0
    crash(store)


TAMPERING = {
    "the record before the gap": ("DELETE FROM audit WHERE seq = 9", 9),
    "the record after the gap": ("DELETE FROM audit WHERE seq = 12", 12),
    "another one": ("DELETE FROM audit WHERE seq = 20", 20),
    "the anchor": ("DELETE FROM audit_anchors", 10),
    "the anchor's mac": ("UPDATE audit_anchors SET mac = x'00'", 10),
    "the anchor's end": ("UPDATE audit_anchors SET seq = 12", 10),
    "what it goes on from": ("UPDATE audit_anchors SET chain_mac = x'00'", 10),
    "its reason": ("UPDATE audit_anchors SET reason = 'pruned'", 12),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_nothing_hides_behind_a_gap(state_dir: Path, clock: FakeClock, what: str) -> None:
    broken(state_dir, clock, "seq = 10")
    statement, where = TAMPERING[what]
    damage(state_dir, clock, statement)
    with open_store(state_dir, clock) as store:
        audit = store.verify_audit()
    assert (audit.ok, audit.first_bad) == (False, where)


def test_a_head_noted_before_tells_what_is_cut_off(state_dir: Path, clock: FakeClock) -> None:
    head, _ = broken(state_dir, clock, "seq > 30")
    with open_store(state_dir, clock) as store:
        audit = store.verify_audit(head)
        assert (audit.ok, audit.first_bad) == (False, 31)
        assert "records 31 to 36 were lost" in str(audit.problem)


def test_a_head_noted_before_a_gap_or_after_it_still_fits(state_dir: Path, clock: FakeClock) -> None:
    head, _ = broken(state_dir, clock, "seq = 10")
    with open_store(state_dir, clock) as store:
        assert store.verify_audit(head).ok
        row = store._database.execute("SELECT mac FROM audit WHERE seq = 9").fetchone()
        assert store.verify_audit(AuditHead(9, row["mac"].hex())).ok
        assert not store.verify_audit(AuditHead(10, "00" * 32)).ok


def test_a_row_whose_record_is_lost_has_one_again(state_dir: Path, clock: FakeClock) -> None:
    broken(state_dir, clock, "seq = 10")
    with open_store(state_dir, clock) as store:
        events = [row["event"] for row in store._database.execute("SELECT event FROM audit WHERE seq > 36")]
    assert events.count("salvaged") == 1
    assert 0 <= events.count("resealed") <= 2
    assert known_counts(state_dir, clock) == 12


def known_counts(state_dir: Path, clock: FakeClock) -> int:
    with open_store(state_dir, clock) as store:
        assert store.verify().ok
        return len(every(store))


def every(store: Store) -> list[str]:
    return [record.id for record in store.list(limit=1000)]
