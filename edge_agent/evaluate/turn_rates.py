"""The figures of the head turn challenge over a set of presentations: per species, the worst first, never pooled.

Of an attack species an error is a challenge that was passed; of the bona fide one that was not. Both are taken over the
presentations that were answered, so that what was never judged makes no rate look better; the non-response is apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edge_agent.evaluate.bounds import Rate, rate_of
from edge_agent.evaluate.lines import percent, rate_text
from edge_agent.evaluate.match import rate_json
from edge_agent.evaluate.pad import Group, PadReport
from edge_agent.evaluate.presentations import Answer, Presentation, Rules
from edge_agent.evaluate.turns import Prompting, TurnAnswer, Turned
from edge_agent.report import printable
from edge_agent.types import JsonObject

FEWEST: Final = 20
"""Prompted people, and prompted presentations of each species: fewer are no reason to make the challenge mandatory."""


@dataclass(frozen=True, slots=True)
class TurnGroup:
    """One kind of presentation, as the challenge saw it."""

    name: str
    presentations: tuple[Presentation, ...]
    """Those that the challenge was run on."""

    @property
    def passed(self) -> Rate:
        """Of the answered."""
        return rate_of(self._count(TurnAnswer.PASSED), self._answered)

    @property
    def not_passed(self) -> Rate:
        """Of the answered."""
        return rate_of(self._count(TurnAnswer.NOT_PASSED), self._answered)

    @property
    def no_response(self) -> Rate:
        """Of all."""
        return rate_of(self._count(TurnAnswer.NONE), len(self.presentations))

    @property
    def passed_and_live(self) -> Rate:
        """Passed and called live by every model, of all: what gets by where the challenge is mandatory."""
        both = sum(_answer(p) is TurnAnswer.PASSED and p.answer is Answer.LIVE for p in self.presentations)
        return rate_of(both, len(self.presentations))

    @property
    def prompted(self) -> int:
        """Answered ones of which it is known what was asked."""
        return sum(_turned(p).prompting is not Prompting.EITHER for p in self.presentations if _is_answered(p))

    @property
    def _answered(self) -> int:
        return sum(_is_answered(p) for p in self.presentations)

    def _count(self, answer: TurnAnswer) -> int:
        return sum(_answer(p) is answer for p in self.presentations)


@dataclass(frozen=True, slots=True)
class TurnReport:
    """Bona fide, and the attack species with the worst first."""

    bona_fide: TurnGroup
    attacks: tuple[TurnGroup, ...]

    @property
    def groups(self) -> tuple[TurnGroup, ...]:
        return (self.bona_fide, *self.attacks)

    @property
    def worst(self) -> TurnGroup | None:
        """The species that passes most often; None where none was answered."""
        return next((group for group in self.attacks if group.passed.trials), None)

    @property
    def short_of(self) -> tuple[str, ...]:
        """Kinds with fewer than ``FEWEST`` prompted presentations: what is missing before it can be made mandatory."""
        return tuple(group.name for group in self.groups if group.prompted < FEWEST)


def turn_report(found: PadReport, rules: Rules) -> TurnReport | None:
    """Of the clips and of what was filmed; None where ``rules`` have no challenge."""
    if rules.turns is None:
        return None
    groups = [_group(group) for group in found.groups]
    return TurnReport(groups[0], tuple(sorted(groups[1:], key=_badness, reverse=True)))


def _group(group: Group) -> TurnGroup:
    return TurnGroup(group.name, tuple(p for p in group.presentations if p.turned is not None))


def _badness(group: TurnGroup) -> tuple[float, float]:
    rate = group.passed.rate
    return (-1.0, 0.0) if rate is None else (rate, group.passed.high)


def _turned(presentation: Presentation) -> Turned:
    if presentation.turned is None:
        raise AssertionError("a presentation without a challenge in a group of those with one")
    return presentation.turned


def _answer(presentation: Presentation) -> TurnAnswer:
    return _turned(presentation).answer


def _is_answered(presentation: Presentation) -> bool:
    return _answer(presentation) is not TurnAnswer.NONE


def challenge_json(found: PadReport, rules: Rules) -> JsonObject:
    """The key ``challenge`` of a report, where the challenge was run."""
    turns = turn_report(found, rules)
    if turns is None or rules.turns is None:
        return {}
    terms = {"kind": "head_turn", "threshold": rules.turns.threshold, "mirrored": rules.turns.mirrored}
    return {"challenge": {**terms, **_turn_json(turns)}}


def _turn_json(found: TurnReport) -> JsonObject:
    return {
        "bona_fide": {**_group_json(found.bona_fide), "not_passed": rate_json(found.bona_fide.not_passed)},
        "attacks": [{**_group_json(group), "passed": rate_json(group.passed)} for group in found.attacks],
        "worst": found.worst.name if found.worst else None,
        "prompted_needed": FEWEST,
        "short_of": list(found.short_of),
    }


def _group_json(group: TurnGroup) -> JsonObject:
    return {
        "name": group.name,
        "no_response": rate_json(group.no_response),
        "passed_and_live": rate_json(group.passed_and_live),
        "prompted": group.prompted,
        "presentations": [_presentation_json(p) for p in group.presentations],
    }


def _presentation_json(presentation: Presentation) -> JsonObject:
    turned = _turned(presentation)
    return {
        "name": presentation.name,
        "answer": turned.answer.value,
        "reason": turned.reason,
        "prompting": turned.prompting.value,
        "asked": [side.value for side in turned.asked],
    }


def turn_lines(found: TurnReport) -> Iterator[str]:
    """The same for people: the worst species, one line per group, and whether it is evidence."""
    width = max(len(group.name) for group in found.groups) + 2
    yield _headline(found)
    yield f"{'attack':<{width}}{'head turn passed':<38}{'no response':<14}passed and called live"
    for group in found.attacks:
        yield _group_line(group, group.passed, width)
    yield f"{'bona fide':<{width}}{'head turn not passed':<38}{'no response':<14}passed and called live"
    yield _group_line(found.bona_fide, found.bona_fide.not_passed, width)
    yield from _evidence_lines(found)


def _headline(found: TurnReport) -> str:
    worst = found.worst
    if worst is None:
        return "head turn: not measured, no attack was answered (pictures turn nothing and are not counted)"
    passed = worst.passed
    meaning = f"{passed.errors} of {passed.trials} means that it passes in <= {percent(passed.high)}"
    return printable(f"head turn, worst species: {worst.name}; {meaning}")


def _group_line(group: TurnGroup, rate: Rate, width: int) -> str:
    no_response = f"{group.no_response.errors} of {group.no_response.trials}"
    both = group.passed_and_live
    return printable(f"{group.name:<{width}}{rate_text(rate):<38}{no_response:<14}{rate_text(both)}")


def _evidence_lines(found: TurnReport) -> Iterator[str]:
    unknown = sum(_turned(p).prompting is Prompting.EITHER for group in found.groups for p in group.presentations)
    if unknown:
        yield f"of {unknown} it is not known what was asked: a turn to each side counted, in whichever order"
    if not found.short_of and found.attacks:
        yield f"{FEWEST} prompted presentations or more of every kind; of {FEWEST} people or more, if each was bona fide once"
        return
    missing = ", ".join(f"{group.name} {group.prompted}" for group in found.groups if group.name in found.short_of)
    yield printable(
        f"NOT ENOUGH to make the challenge mandatory: {FEWEST} prompted people and {FEWEST} prompted presentations of each "
        f"species are needed; here {missing or 'no attack'}"
    )
