"""What a cut left, held against what was told until then."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.errors import AgentError
from edge_agent.sandbox.runtime import DEFAULT_API_KEY
from tests.faults import oracle
from tests.faults.ledger import Act, Ledger, ServiceRecord
from tests.faults.oracle import Expectation, Finding, Kind
from tests.powercut.phases import Line

QUEUED = ("captured", "matching", "pending", "provisionally_verified")


@dataclass(frozen=True, slots=True)
class Left:
    """What is in the database, as it can be counted without any key."""

    states: Counter[str] = field(default_factory=Counter)
    captured: int = 0
    """Verifications that ever had a picture."""

    @classmethod
    def of(cls, state_dir: Path) -> Left:
        """Nothing where there is no database, or none that can be read: that is for the oracle to say."""
        try:
            with oracle.copy_of(state_dir) as copy, closing(sqlite3.connect(copy / oracle.DATABASE)) as database:
                states = Counter(dict(database.execute("SELECT state, count(*) FROM verifications GROUP BY state")))
                captured = database.execute("SELECT count(*) FROM verifications WHERE captured_at IS NOT NULL")
                return cls(states, captured.fetchone()[0])
        except sqlite3.Error:
            return cls()

    @property
    def open(self) -> int:
        return sum(self.states[state] for state in QUEUED)


@dataclass(slots=True)
class Told:
    """Everything that left the machine, over all its lives."""

    ledger: Ledger = field(default_factory=Ledger)
    service: ServiceRecord = field(default_factory=ServiceRecord)

    def absorb(self, lines: Sequence[Line], acts: Iterable[Line]) -> None:
        """One life of the worker, and the one of the sandbox beside it."""
        self.ledger.absorb(lines)
        entries = list(acts)
        self.service.tokens += [entry["token"] for entry in entries if "token" in entry]
        self.service.acts += finished([Act(**entry["act"]) for entry in entries if "act" in entry])


def finished(acts: Sequence[Act]) -> list[Act]:
    """Without the comparisons that the cut ended together with the service: nobody will hear of them again."""
    comparing: dict[str, int] = {}
    for position, act in enumerate(acts):
        if act.kind == "match":
            comparing[act.user] = position
        elif act.kind in {"judged", "refused"}:
            comparing.pop(act.user, None)
    return [act for position, act in enumerate(acts) if position not in comparing.values()]


def whole_lines(path: Path) -> list[Line]:
    """The JSON lines of a file; empty when it is not there, and without a last line that is not whole."""
    content = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def look(state_dir: Path, told: Told, *, unanswered: int, drained: bool = False) -> list[Finding]:
    """Everything that is wrong. ``unanswered``: captures that may be stored without an acknowledgement, at most.

    The search of the files for secrets, the slow part, is made at the end only.
    """
    expected = Expectation(drained=drained, secrets=(DEFAULT_API_KEY.encode(),))
    try:
        findings = oracle.inspect(state_dir, told.ledger, told.service, expected, files=drained)
    except AgentError as exc:
        findings = [Finding(Kind.STORE, exc.code, exc.message)]
    extra = Left.of(state_dir).captured - len(told.ledger.acknowledged)
    if extra > unanswered:
        text = f"{extra} captures more than acknowledgements: what was told did not all leave the machine"
        findings.append(Finding(Kind.LOST, "acknowledgements", text))
    return findings
