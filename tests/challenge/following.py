"""Somebody, or something, that follows the prompts: what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_agent.challenge.turn import Reading, Side, TurnCue
from edge_agent.types import Landmarks

Show = Callable[[float], Landmarks | None]
"""What the detector finds when the head, or the picture, is turned by so many degrees (+ = its own left)."""

LEFT_FIRST = (Side.LEFT, Side.RIGHT)
NEUTRAL_S = 2.5
"""Time to find the neutral pose."""


@dataclass(frozen=True)
class Outcome:
    """One attempt, in the order of the sides asked."""

    neutral: bool
    turned: tuple[bool, ...]
    resets: tuple[str, ...]
    inconclusive: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.neutral and all(self.turned)


@dataclass
class Follower:
    """Looks straight until the neutral pose is known, then turns as asked, waits a moment and turns to the other side.

    A reset ends the attempt, as it does in a session.
    """

    show: Show
    angle_deg: float
    fps: float = 15.0
    deg_per_s: float = 25.0
    wait_s: float = 1.2
    order: Sequence[Side] = LEFT_FIRST
    gives_up: bool = False
    """After a turn that was not seen, as a session does."""
    stops: bool = False
    """As soon as the turn is seen, as somebody does who is shown the progress."""

    def run(self, cue: TurnCue) -> Outcome:
        self._cue, self._frames, self._readings = cue, 0, list[Reading]()
        neutral = self._settle()
        turned = list(self._turns()) if neutral else []
        resets = tuple(r.reset for r in self._readings if r.reset)
        return Outcome(
            neutral,
            (*turned, False, False)[:2],
            resets,
            tuple({r.inconclusive for r in self._readings if r.inconclusive}),
        )

    def _turns(self) -> Iterator[bool]:
        for side in self.order:
            turned = self._turn(side)
            yield turned
            if self.gives_up and not turned:
                return

    def _look(self, yaw_deg: float) -> Reading:
        reading = self._cue.add(100.0 + self._frames / self.fps, self.show(yaw_deg), 1)
        self._frames, self._yaw_deg = self._frames + 1, yaw_deg
        self._readings.append(reading)
        return reading

    def _settle(self) -> bool:
        return any(self._look(0.0).neutral for _ in range(round(NEUTRAL_S * self.fps)))

    def _turn(self, side: Side) -> bool:
        """True when the turn is seen on the way or within ``wait_s`` behind it."""
        if any(r.reset for r in self._readings):
            return False
        self._cue.ask(side)
        from_deg, to_deg = self._yaw_deg, side.sign * self.angle_deg
        moving = max(1, round(abs(to_deg - from_deg) / self.deg_per_s * self.fps))
        for step in range(1, moving + round(self.wait_s * self.fps) + 1):
            way = min(1.0, step / moving)
            reading = self._look(from_deg + (to_deg - from_deg) * way * way * (3 - 2 * way))
            if reading.reset or (reading.turned and (self.stops or step >= moving)):
                break
        return reading.turned
