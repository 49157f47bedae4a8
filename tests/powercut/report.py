"""What one run found: a row per cut, a line with the sum, and whether it passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.faults.oracle import Finding, Kind
from tests.powercut.phases import DRIVEN, Phase

NOT_COVERED = (
    "not covered: the cut kills the emulator, so the guest's page cache and what the emulated disk had not been told "
    "to flush are gone, but the host's cache survives: torn sectors and disks that lie about a flush are not played"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One cut, and what the next start found. ``lost``, ``altered`` and ``open`` count captures."""

    cut: int
    phase: Phase
    under_way: tuple[Phase, ...]
    seconds: float
    """From the start of the machine's command to the last thing that was told."""
    acknowledged: int
    """What must be there: everything so far, over all cuts; in a migration the captures of the version before."""
    lost: int
    altered: int
    open: int
    """Waiting to be forwarded, as it must be while there is more to come."""
    findings: tuple[str, ...]
    """Of the oracle, the lost and altered ones too."""


@dataclass(frozen=True, slots=True)
class End:
    """After the last cut: everything was forwarded and looked at once more."""

    acknowledged: int
    verified: int
    not_verified: int
    lost: int
    altered: int
    open: int
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    synchronous: str
    cuts: tuple[Row, ...]
    end: End | None
    """None when the run was ended early, because of what a cut had done."""
    wanted: tuple[Phase, ...] = DRIVEN
    """Every one of them must have been hit for the run to prove anything."""
    cuts_wanted: int = 0
    """So many cuts had to fall into one of these."""
    network: str | None = None
    """What happened to the packets, where that was the point; empty when nothing did."""

    @property
    def phases(self) -> Counter[Phase]:
        return Counter(row.phase for row in self.cuts)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the run failed; empty = passed."""
        found = [f"cut {row.cut}: {text}" for row in self.cuts for text in row.findings]
        found += [f"end: {text}" for text in (self.end.findings if self.end else ())]
        found += [f"no cut fell into: {phase}" for phase in self.wanted if not self.phases[phase]]
        hits = sum(self.phases[phase] for phase in self.wanted)
        found += [f"only {hits} of {self.cuts_wanted} cuts fell into a phase"] if hits < self.cuts_wanted else []
        found += ["no packet was lost"] if self.network == "" else []
        return (*found, *(["the run ended before everything was forwarded"] if self.end is None else []))

    def to_json(self) -> dict[str, Any]:
        return {
            "synchronous": self.synchronous,
            "passed": not self.problems,
            "phases": dict(sorted(self.phases.items())),
            "cuts": [asdict(row) for row in self.cuts],
            "network": self.network,
            "end": asdict(self.end) if self.end else None,
            "problems": self.problems,
            "note": NOT_COVERED,
        }


def count(findings: Iterable[Finding], kind: Kind) -> int:
    """Captures with a finding of this kind."""
    return len({finding.subject for finding in findings if finding.kind is kind})


def summary(findings: Sequence[Finding]) -> tuple[str, ...]:
    """One text per kind of finding: how many, and the first of them."""
    kinds = dict.fromkeys(finding.kind for finding in findings)
    return tuple(_summary([f for f in findings if f.kind is kind]) for kind in kinds)


def _summary(same: Sequence[Finding]) -> str:
    return f"{len(same)} x {same[0].kind}: {same[0].subject}: {same[0].detail}"


def heading() -> str:
    return f"{'cut':>4}  {'phase':<16}{'seconds':>8}{'acked':>8}{'lost':>6}{'altered':>9}{'open':>6}  oracle"


def line(row: Row) -> str:
    """One row of the table; what else was under way stands behind the phase."""
    others = len(row.under_way) - 1
    phase = f"{row.phase}{f' (+{others})' if others > 0 else ''}"
    figures = f"{row.seconds:>8.1f}{row.acknowledged:>8}{row.lost:>6}{row.altered:>9}{row.open:>6}"
    return f"{row.cut:>4}  {phase:<16}{figures}  {'; '.join(row.findings) or 'clean'}"


def ending(result: Result) -> str:
    """The lines below the table."""
    phases = ", ".join(f"{phase} {number}" for phase, number in sorted(result.phases.items()))
    lines = [result.network] if result.network else []
    lines += [f"{len(result.cuts)} cuts with synchronous={result.synchronous}: {phases or 'none'}"]
    if result.end is not None:
        end = result.end
        lines.append(
            f"drained: {end.acknowledged} acknowledged, {end.lost} lost, {end.altered} altered, {end.open} open, "
            f"{end.verified} verified, {end.not_verified} not verified; oracle: {'; '.join(end.findings) or 'clean'}"
        )
    lines.append("passed" if not result.problems else f"FAILED: {len(result.problems)} problems: {result.problems[0]}")
    return "\n".join([*lines, NOT_COVERED])
