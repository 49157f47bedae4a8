"""What a calibration suggests to change. A proposal says what it would have done to the presentations it was made from.

- A liveness threshold is only ever proposed **higher**, where attacks were accepted: no attack among a few is no reason
  to be more lenient. It belongs to the pack, so it takes a pack file of one's own (docs/models.md).
- A limit of the gate is proposed looser where more than a tenth of the bona fide presentations miss it by their median
  frame. Those are questions of light and mounting first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import numpy as np

from edge_agent.config import GateSection
from edge_agent.evaluate.pad import PadReport
from edge_agent.evaluate.presentations import Answer, Presentation

MISSED: Final = 0.1
"""Share of the bona fide presentations from which on a limit is called in question."""
FEWEST: Final = 10
"""Of fewer bona fide presentations no limit of the gate is proposed."""
KEPT: Final = 0.95
"""Share of them that the proposed limit lets through."""
BEARABLE: Final = 0.5
"""Share of the customers called live that a higher liveness threshold may cost, to be proposed at all."""
LIMITS: Final = (
    # measure, setting of gate:, whether the value has to be at least it
    ("inter_eye", "min_inter_eye_px", True),
    ("luminance", "min_luminance", True),
    ("luminance", "max_luminance", False),
    ("dark_share", "max_dark_share", False),
    ("bright_share", "max_bright_share", False),
    ("light_uniformity", "min_light_uniformity", True),
    ("dynamic_range", "min_dynamic_range_bits", True),
    ("sharpness", "min_sharpness", True),
)
"""What camera, mounting and light decide; where and how people stand is not for a limit to follow."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One value to change, and what it does to the presentations of this calibration."""

    key: str
    """``gate.…`` of the configuration, or ``liveness.MODEL.threshold`` of the pack."""
    current: float
    proposed: float
    attacks_accepted: tuple[int, int]
    """Before, after."""
    bona_fide_refused: tuple[int, int]
    """Before, after: by this one value alone."""
    remark: str


def proposals(found: PadReport, limits: GateSection) -> list[Proposal]:
    """None is as good an answer as any: then nothing that was presented speaks for a change."""
    return [*_liveness(found), *_gate(found.bona_fide.presentations, limits)]


def unseparated(found: PadReport) -> bool:
    """True when attacks were accepted and no threshold stops them at a bearable cost: no figure mends that."""
    return any(p.answer is Answer.LIVE for group in found.attacks for p in group.presentations) and not any(
        _liveness(found)
    )


def _liveness(found: PadReport) -> Iterator[Proposal]:
    """The one model whose higher threshold stops every accepted attack at the least cost to the bona fide."""
    attacks = [p for group in found.attacks for p in group.presentations if p.answer is Answer.LIVE]
    live = [p for p in found.bona_fide.presentations if p.answer is Answer.LIVE]
    raised = [c for model in _models(attacks) if (c := _raised(model, attacks, live)) is not None]
    bearable = [c for c in raised if c.bona_fide_refused[1] <= BEARABLE * len(live)]
    if bearable:
        yield min(bearable, key=lambda c: (c.bona_fide_refused[1], c.proposed - c.current))


def _models(presentations: Sequence[Presentation]) -> list[str]:
    return list(dict.fromkeys(s.model for p in presentations for s in p.scores))


def _raised(model: str, attacks: Sequence[Presentation], live: Sequence[Presentation]) -> Proposal | None:
    """The threshold just above the most convincing attack, in steps of 0.01; None where there is no room above it."""
    scores, current = _scores(model, attacks)
    proposed = (floor(max(scores) * 100) + 1) / 100
    if proposed > 1.0:
        return None
    refused = sum(score < proposed for score in _scores(model, live)[0])
    return Proposal(
        key=f"liveness.{model}.threshold",
        current=current,
        proposed=proposed,
        attacks_accepted=(len(attacks), 0),
        bona_fide_refused=(0, refused),
        remark="in a pack file of your own; then calibrate again: an attacker has more tries than these",
    )


def _scores(model: str, presentations: Sequence[Presentation]) -> tuple[list[float], float]:
    """The model's scores (none counts as 0), and its threshold."""
    of_model = [s for p in presentations for s in p.scores if s.model == model]
    return [s.score or 0.0 for s in of_model], max((s.threshold for s in of_model), default=0.0)


def _gate(bona_fide: Sequence[Presentation], limits: GateSection) -> Iterator[Proposal]:
    for measure, setting, at_least in LIMITS:
        values = [p.values[measure] for p in bona_fide if measure in p.values]
        limit = float(getattr(limits, setting))
        missed = sum(not _meets(value, limit, at_least) for value in values)
        if len(values) < FEWEST or missed <= MISSED * len(values):
            continue
        proposed = _loosened(values, at_least)
        yield Proposal(
            key=f"gate.{setting}",
            current=limit,
            proposed=proposed,
            attacks_accepted=(0, 0),
            bona_fide_refused=(missed, sum(not _meets(value, proposed, at_least) for value in values)),
            remark="mend the light or the mounting first: a looser limit lets worse pictures through",
        )


def _meets(value: float, limit: float, at_least: bool) -> bool:
    return value >= limit if at_least else value <= limit


def _loosened(values: Sequence[float], at_least: bool) -> float:
    """The limit that lets KEPT of the values through, rounded to 0.01 to the looser side."""
    if at_least:
        return floor(float(np.quantile(values, 1.0 - KEPT)) * 100) / 100
    return ceil(float(np.quantile(values, KEPT)) * 100) / 100
