"""The figures of ``evaluate pad``: APCER per attack species, BPCER, and who got no response (ISO/IEC 30107-3).

APCER is taken over the presentations that the attack detection answered, so that an attack which it never judged does
not make it look better; how many those were is the non-response rate. Species are never pooled: an attacker chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.errors import CameraError, InputError
from edge_agent.evaluate.bounds import Rate, rate_of
from edge_agent.evaluate.folders import files_of, subfolders
from edge_agent.evaluate.match import rate_json
from edge_agent.evaluate.presentations import Answer, Presentation, Rules, present_file
from edge_agent.evaluate.prompts import is_prompts
from edge_agent.report import rounded
from edge_agent.screening import Vision
from edge_agent.types import JsonObject

BONA_FIDE: Final = "bona_fide"
HINT = "a subfolder bona_fide, and one per attack species (such as print, tablet), with pictures or clips in them"


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that is no presentation."""

    file: Path
    code: str


@dataclass(frozen=True, slots=True)
class Group:
    """The presentations of one kind: bona fide, or one attack species."""

    name: str
    presentations: tuple[Presentation, ...]
    unusable: tuple[Unusable, ...] = ()

    @property
    def answered(self) -> list[Presentation]:
        return [p for p in self.presentations if p.answer is not Answer.NONE]

    @property
    def called_live(self) -> Rate:
        """Of the answered ones. Of an attack species this is APCER, one minus it is BPCER of the bona fide."""
        answered = self.answered
        return rate_of(sum(p.answer is Answer.LIVE for p in answered), len(answered))

    @property
    def called_attack(self) -> Rate:
        """Of the answered ones: BPCER of the bona fide."""
        answered = self.answered
        return rate_of(sum(p.answer is Answer.ATTACK for p in answered), len(answered))

    @property
    def no_response(self) -> Rate:
        return rate_of(len(self.presentations) - len(self.answered), len(self.presentations))

    @property
    def accepted(self) -> Rate:
        """By the whole gate, quality included, of all."""
        return rate_of(sum(p.accepted for p in self.presentations), len(self.presentations))


@dataclass(frozen=True, slots=True)
class PadReport:
    """The groups; attack species with the worst first."""

    bona_fide: Group
    attacks: tuple[Group, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        return (self.bona_fide, *self.attacks)

    @property
    def worst(self) -> Group | None:
        """The species with the highest APCER, which is the APCER of the terminal; None where none was answered."""
        return next((group for group in self.attacks if group.answered), None)


def report(groups: Iterable[Group]) -> PadReport:
    """Sort the groups: by APCER, and among equals by its upper bound; species without any answer last."""
    by_name = {group.name: group for group in groups}
    bona_fide = by_name.pop(BONA_FIDE, Group(BONA_FIDE, ()))
    return PadReport(bona_fide, tuple(sorted(by_name.values(), key=_badness, reverse=True)))


def _badness(group: Group) -> tuple[float, float]:
    rate = group.called_live.rate
    return (-1.0, 0.0) if rate is None else (rate, group.called_live.high)


def files_by_group(folder: Path) -> dict[str, list[Path]]:
    """The files of every subfolder, by name; hidden ones and what belongs to a clip are skipped.

    Raises InputError ``no_bona_fide``, ``no_attacks`` or ``no_pictures`` (an empty subfolder: its name).
    """
    found = {sub.name: [f for f in files_of(sub) if not is_prompts(f)] for sub in subfolders(folder)}
    if BONA_FIDE not in found:
        raise InputError(f"cannot evaluate {folder}: it has no subfolder {BONA_FIDE}", code="no_bona_fide", hint=HINT)
    if len(found) < 2:
        raise InputError(f"cannot evaluate {folder}: no attack species in it", code="no_attacks", hint=HINT)
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise InputError(
            f"cannot evaluate {folder}: no files in {', '.join(empty)}",
            code="no_pictures",
            hint="remove the subfolder, or put pictures or clips into it",
        )
    return found


def judge(
    files: dict[str, list[Path]],
    vision: Vision,
    rules: Rules,
    watched: Callable[[Sequence[tuple[str, Path]]], Iterable[tuple[str, Path]]] = lambda files: files,
) -> PadReport:
    """Judge every file; one that cannot be used is listed. Raises ModelError when a model fails."""
    presented: dict[str, list[Presentation]] = {name: [] for name in files}
    unusable: dict[str, list[Unusable]] = {name: [] for name in files}
    for name, file in watched([(name, file) for name, of_group in files.items() for file in of_group]):
        try:
            presented[name].append(present_file(file, vision, rules))
        except (InputError, CameraError) as exc:
            unusable[name].append(Unusable(file, exc.code))
    if not any(presented.values()):
        raise InputError("cannot evaluate: none of the files is a picture or a clip", code="no_pictures", hint=HINT)
    return report(Group(name, tuple(presented[name]), tuple(unusable[name])) for name in files)


def report_json(found: PadReport) -> JsonObject:
    """The contract of ``evaluate pad --json``, but for what the models are."""
    worst = found.worst
    return {
        "bona_fide": {**_group_json(found.bona_fide), "bpcer": rate_json(found.bona_fide.called_attack)},
        "attacks": [{**_group_json(group), "apcer": rate_json(group.called_live)} for group in found.attacks],
        "worst": worst.name if worst else None,
    }


def _group_json(group: Group) -> JsonObject:
    return {
        "name": group.name,
        "no_response": rate_json(group.no_response),
        "accepted": rate_json(group.accepted),
        "presentations": [presentation_json(p) for p in group.presentations],
        "unusable": [{"file": str(item.file), "code": item.code} for item in group.unusable],
    }


def presentation_json(p: Presentation) -> JsonObject:
    return {
        "name": p.name,
        "answer": p.answer.value,
        "accepted": p.accepted,
        "reasons": list(p.reasons),
        "scores": {s.model: rounded(s.score) for s in p.scores},
        "frames": p.frames,
        "values": {measure: rounded(value) for measure, value in p.values.items()},
    }
