"""The reports as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal

from edge_agent.evaluate.bounds import Rate
from edge_agent.evaluate.match import GOAL, MatchReport, Row
from edge_agent.evaluate.models import ModelIds
from edge_agent.evaluate.pad import Group, PadReport
from edge_agent.evaluate.people import People, counted
from edge_agent.report import printable

ROWS = 14
"""About so many rows of the table are printed; --json has all."""
HOPELESS = 0.1
"""Thresholds at which more than so many impostor pairs match are not printed."""


def percent(share: float) -> str:
    """Three significant digits, never in exponents: 0.0100 %, 16.8 %, 100 %."""
    value = share * 100.0
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3 if value >= 0.09995 else 4
    return f"{value:.{decimals}f} %"


def rate_text(rate: Rate) -> str:
    """``3 of 20  15.0 % (3.21 % - 37.9 %)``; with no error the bound in words, as nothing else is known."""
    if not rate.trials:
        return "none measured"
    if rate.errors == 0:
        return f"0 of {rate.trials}: <= {percent(rate.high)}"
    return f"{rate.errors} of {rate.trials}: {percent(rate.errors / rate.trials)} ({percent(rate.low)} - {percent(rate.high)})"


def match_lines(found: MatchReport, people: People, models: ModelIds, gate: str) -> Iterator[str]:
    """The head, the table, the bound, the snippet."""
    counts = found.comparisons
    yield f"pack {models.pack}, embedder {models.embedder} ({models.embedder_sha256[:16]})"
    yield f"gate: {gate}; {people.captures} of {people.files} pictures of {found.identities} of {people.folders} identities"
    if people.left_out:
        yield f"left out: {counted(people.reasons)}"
    yield (
        f"{counts.genuine.total} genuine pairs of {counts.persons.total} identities with two captures or more, "
        f"{counts.impostor.total} impostor pairs of {counts.identity_pairs.total} pairs of identities"
    )
    yield ""
    yield f"{'threshold':<11}{'FMR, with its 95 % interval':<42}{'FNMR, with its 95 % interval'}"
    for row in shown_rows(found):
        mark = " <" if row.threshold == found.evidence.threshold else ""
        yield f"{row.threshold:<11.3f}{rate_text(row.fmr):<42}{rate_text(row.fnmr)}{mark}"
    yield ""
    yield from _independence_lines(found)
    yield ""
    yield from evidence_lines(found, models)


def shown_rows(found: MatchReport) -> list[Row]:
    """Every so many of the useful rows, and that of the evidence."""
    useful = [row for row in found.rows if (row.fmr.rate or 0.0) <= HOPELESS]
    step = max(1, round(len(useful) / ROWS))
    rows = {row.threshold: row for row in (*useful[::step], found.at_evidence)}
    return [rows[threshold] for threshold in sorted(rows)]


def _independence_lines(found: MatchReport) -> Iterator[str]:
    """Pairs share people; what is left when two people count once."""
    at = found.at_evidence
    yield f"The intervals take pairs for independent. They are not: all are made of {found.identities} identities."
    yield f"At {at.threshold:.3f} pairs of identities that were confused in any pair: {rate_text(at.confused_identity_pairs)}"
    yield f"      identities that were refused in any pair: {rate_text(at.refused_identities)}"


def evidence_lines(found: MatchReport, models: ModelIds) -> Iterator[str]:
    """What the set shows of GOAL, and the words for the configuration."""
    evidence = found.evidence
    yield f"threshold {evidence.threshold:.3f} ({_chosen(found)})"
    yield (
        f"FMR <= {GOAL:g} at 95 % (one-sided) takes {found.pairs_needed} impostor pairs without a false match, "
        f"or {found.identities_needed} identities with one capture each"
    )
    have = "has them" if evidence.impostor_pairs >= found.pairs_needed else "does not have them"
    yield (
        f"this set {have}: {evidence.impostor_pairs} pairs with {evidence.false_matches} false matches "
        f"show FMR <= {evidence.fmr_bound:.2e}"
    )
    if evidence.sufficient and evidence.identity_pairs_bound > GOAL:
        yield (
            f"but were only pairs of identities independent ({evidence.identity_pairs}), "
            f"they would show FMR <= {evidence.identity_pairs_bound:.2e}: more people are worth more than more pictures"
        )
    yield ""
    yield from snippet(found, models)


def _chosen(found: MatchReport) -> str:
    if found.evidence.given:
        return "given"
    if found.evidence.sufficient:
        return "proposed: the lowest that this number of pairs allows"
    return "the lowest without a false match here; of so few pairs none can be proposed"


def snippet(found: MatchReport, models: ModelIds) -> Iterator[str]:
    """YAML: ``offline.face_threshold`` of the configuration; commented out where it is no evidence, so that pasting is safe."""
    evidence = found.evidence
    usable = evidence.sufficient and 0.0 < evidence.threshold < 1.0
    mark = "" if usable else "# "
    if usable:
        yield f"# for the configuration; measured on {found.identities} identities with the pack {models.pack}"
    elif evidence.sufficient:
        yield "# NOT A THRESHOLD that the configuration takes: it must lie between 0 and 1"
    else:
        yield f"# NOT EVIDENCE of FMR <= {GOAL:g}; what was measured, in the words of the configuration:"
    yield f"{mark}offline:"
    yield f"{mark}  face_threshold:"
    yield f"{mark}    cosine: {evidence.threshold:.3f}"
    yield f"{mark}    embedder_sha256: {models.embedder_sha256}"
    yield f"{mark}    impostor_pairs: {evidence.impostor_pairs}"
    yield f"{mark}    fmr_upper_95: {rounded_up(evidence.fmr_bound):.6e}"


def rounded_up(bound: float) -> Decimal:
    """With seven significant digits, never below ``bound`` (> 0): a bound that was rounded down claims too much."""
    exact = Decimal(bound)
    return exact.quantize(Decimal(1).scaleb(exact.adjusted() - 6), rounding=ROUND_CEILING)


def pad_lines(found: PadReport) -> Iterator[str]:
    """One line per group, the worst species first, and what it means."""
    width = max(len(group.name) for group in found.groups) + 2
    yield f"{'attack':<{width}}{'APCER (called live)':<38}{'no response':<30}accepted by the whole gate"
    for group in found.attacks:
        yield _group_line(group, group.called_live, width)
    yield f"{'bona fide':<{width}}{'BPCER (called attack)':<38}{'no response':<30}accepted by the whole gate"
    yield _group_line(found.bona_fide, found.bona_fide.called_attack, width)
    yield ""
    yield _worst_line(found)
    yield "Rates with their 95 % intervals (Clopper-Pearson); of few presentations even 0 errors say little."
    for group in found.groups:
        for item in group.unusable:
            yield printable(f"unusable, not counted: {item.file} ({item.code})")


def _group_line(group: Group, rate: Rate, width: int) -> str:
    no_response = f"{group.no_response.errors} of {group.no_response.trials}"
    accepted = f"{group.accepted.errors} of {group.accepted.trials}"
    return printable(f"{group.name:<{width}}{rate_text(rate):<38}{no_response:<30}{accepted}")


def _worst_line(found: PadReport) -> str:
    worst = found.worst
    if worst is None:
        return "APCER: not measured, no attack was answered"
    rate = worst.called_live
    meaning = f"{rate.errors} of {rate.trials} means APCER <= {percent(rate.high)}"
    return printable(f"worst species: {worst.name}; {meaning}")
