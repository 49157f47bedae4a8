"""The guided measurement at a terminal: what a technician presents to its camera, in its light, by its rules.

It only measures. What follows from it is proposed (``proposals``) and written down; nobody's threshold is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_agent.camera.port import Camera, Clock
from edge_agent.errors import CameraError, ConfigurationError
from edge_agent.evaluate.pad import BONA_FIDE, Group, PadReport, report
from edge_agent.evaluate.presentations import Presentation, Rules, present
from edge_agent.evaluate.turns import Challenge
from edge_agent.screening import Vision
from edge_agent.types import Frame, GateCode

READ_S: Final = 0.5
"""A read of the camera is bounded by this, so that a presentation ends in time."""
DEFAULT_ATTACKS: Final = ("print", "screen")
"""What everybody can make on the spot: a photograph on paper, and one on a phone or a tablet."""
SKIP, REPEAT, QUIT = "s", "r", "q"

Ask = Callable[[str], str | None]
"""Shows a prompt and gives the answer in lower case, "" for Enter alone; None when nobody answers any more."""


def attack_species(named: Sequence[str]) -> tuple[str, ...]:
    """What to present, each once, in the order given. Raises ConfigurationError for a name that cannot be one."""
    for name in named:
        if name == BONA_FIDE or not name.strip() or not name.isprintable():
            raise ConfigurationError(
                f"cannot present the attack {name!r}: that is no name of a species", hint="such as print, tablet, mask"
            )
    return tuple(dict.fromkeys(named)) or DEFAULT_ATTACKS


@dataclass(frozen=True, slots=True)
class Plan:
    """How often what is presented."""

    bona_fide: int
    attacks: tuple[str, ...]
    """Species, each presented ``per_attack`` times."""
    per_attack: int

    @property
    def steps(self) -> Iterator[tuple[str, int]]:
        """Kind and how often."""
        yield BONA_FIDE, self.bona_fide
        for species in self.attacks:
            yield species, self.per_attack


@dataclass(slots=True)
class Collected:
    """What was presented so far; kept when the camera is lost or the technician leaves."""

    presented: dict[str, list[Presentation]] = field(default_factory=dict)
    discarded: int = 0
    """Presentations that the technician took back."""
    complete: bool = False
    """True when the whole plan was carried out, nothing skipped."""

    @property
    def count(self) -> int:
        return sum(len(of_kind) for of_kind in self.presented.values())

    def report(self) -> PadReport:
        return report(Group(name, tuple(of_kind)) for name, of_kind in self.presented.items())


def guide(
    plan: Plan, ask: Ask, film: Callable[[str], Presentation], tell: Callable[[str], None], into: Collected
) -> None:
    """Ask for one presentation after the other and film each, until the plan is done or the technician ends it.

    What was presented is in ``into``, also when ``film`` raises.
    """
    skipped = False
    for kind, wanted in plan.steps:
        answer = _present_kind(kind, wanted, ask, film, tell, into)
        if answer == QUIT:
            return
        skipped |= answer == SKIP
    into.complete = not skipped


def _present_kind(
    kind: str,
    wanted: int,
    ask: Ask,
    film: Callable[[str], Presentation],
    tell: Callable[[str], None],
    into: Collected,
) -> str:
    """The answer that ended this kind: SKIP, QUIT, or "" when all are done."""
    done = into.presented.setdefault(kind, [])
    while len(done) < wanted:
        answer = ask(_prompt(kind, len(done) + 1, wanted))
        if answer is None or answer == QUIT:
            return QUIT
        if answer == SKIP:
            return SKIP
        if answer == REPEAT:
            _take_back(done, tell, into)
        elif answer:
            tell(f"not understood: {answer!r}")
        else:
            done.append(film(f"{kind} {len(done) + 1}"))
            tell(outcome_text(done[-1]))
    return ""


def _take_back(done: list[Presentation], tell: Callable[[str], None], into: Collected) -> None:
    if done:
        into.discarded += 1
        tell(f"taken back: {done.pop().name}")
    else:
        tell("nothing of this kind to take back")


def _prompt(kind: str, number: int, wanted: int) -> str:
    what = (
        "step in front of the camera as a customer does"
        if kind == BONA_FIDE
        else f"hold the {kind} in front of the camera as an attacker would"
    )
    keys = f"{SKIP}: next kind, {REPEAT}: take back the last, {QUIT}: end"
    return f"{kind.replace('_', ' ')} {number} of {wanted}: {what}, and press Enter ({keys})"


def outcome_text(presentation: Presentation) -> str:
    """``live (minifasnet 0.98, fr_liveness 0.91) after 12 frames``."""
    scores = ", ".join(f"{s.model} {'none' if s.score is None else f'{s.score:.2f}'}" for s in presentation.scores)
    why = f"; {', '.join(presentation.reasons)}" if presentation.reasons else ""
    answer = presentation.answer.value.replace("_", " ")
    turned = f"; head turn {presentation.turned.answer.value.replace('_', ' ')}" if presentation.turned else ""
    return f"  {answer}{f' ({scores})' if scores else ''} after {presentation.frames} frames{why}{turned}"


class Filming:
    """Films one presentation after the other with an open camera, each as long as a verification may last."""

    def __init__(
        self,
        camera: Camera,
        vision: Vision,
        rules: Rules,
        *,
        lasts_s: float,
        clock: Clock,
        on_hint: Callable[[GateCode | None], None],
        challenge: Callable[[], Challenge | None] = lambda: None,
    ) -> None:
        """``challenge`` gives that of the next presentation."""
        self._challenge = challenge
        self._camera, self._vision, self._rules = camera, vision, rules
        self._lasts_s, self._clock, self._on_hint = lasts_s, clock, on_hint

    def __call__(self, name: str) -> Presentation:
        """Raises CameraError for a camera that is lost or gives no frame, ModelError."""
        return present(
            name,
            self._frames(),
            self._vision,
            self._rules,
            started_at_s=self._clock(),
            on_hint=self._on_hint,
            challenge=self._challenge(),
        )

    def _frames(self) -> Iterator[Frame]:
        until_s, silent = self._clock() + self._lasts_s, True
        while (left_s := until_s - self._clock()) > 0:
            try:
                frame = self._camera.read(min(READ_S, left_s))
            except CameraError as exc:
                if exc.code != "camera_stalled":
                    raise
                continue
            silent = False
            yield frame
        if silent:
            raise CameraError(
                f"cannot calibrate: {self._camera.description} gave no frame within {self._lasts_s:g} s",
                code="camera_stalled",
                hint="check the camera with edge-agent verify first",
            )


def spread(group: Group) -> dict[str, tuple[float, float, float]]:
    """Gate measure -> 5 %, 50 % and 95 % of the group's presentations, each counted by its median frame."""
    values: dict[str, list[float]] = {}
    for presentation in group.presentations:
        for measure, value in presentation.values.items():
            values.setdefault(measure, []).append(value)
    return {
        measure: tuple(float(q) for q in np.quantile(of_measure, (0.05, 0.5, 0.95)))  # type: ignore[misc]
        for measure, of_measure in values.items()
    }
