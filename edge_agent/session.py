"""The deciding part of one verification's framing: votes, best shot, hint, reasons. Pure; times are given.

``Framing`` takes the assessments of one session in order and answers one question after each: is there a best shot?
The rules (DESIGN "Gate"):

- the frames that vote are distinct pictures, taken after the session began, of one unbroken track;
- at least k of them; the median of every liveness model over the last of them, up to ``FUSED_FRAMES``, passes (any
  model denies for all: their scores are never mixed), and the latest of them passes itself, so that nobody qualifies
  while a photo is being shown;
- the window opens with the first frame that passed everything and closes at the later of ``capture_window_s`` and
  k assessed frames; then the best shot is the one of highest quality among those that passed everything;
- of the frames of which only the face's surroundings were looked at none is the best shot or the latest: both are known
  to show one person, and so is everything between two whole looks that are no further apart than ``tracking`` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median_low

from edge_agent.types import Assessment, Frame, GateCode, LivenessScore

FUSED_FRAMES = 15
"""The latest assessed frames of a track that vote, or k where that is more. A median over more frames is steadier, to
both sides: a customer's one bad frame in three costs nothing, and an attack's one good frame in three brings nothing."""
MAX_REASONS = 3
"""A rejection names at most this many reasons: the customer can act on few."""


@dataclass(frozen=True, slots=True, eq=False)
class BestShot:
    """The frame that qualified, and what it qualified on."""

    assessment: Assessment
    liveness: tuple[LivenessScore, ...]
    """The fused (median) scores, one per model."""
    votes: int


@dataclass(slots=True, eq=False)
class _Vote:
    at_s: float
    scores: tuple[LivenessScore, ...]
    passed: bool
    whole: bool
    quality: float
    shot: Assessment | None
    """The assessment with its picture, while this can still become the best shot."""


class BestShotVote:
    """The vote over one track after another."""

    def __init__(self, *, liveness_frames: int, window_s: float, started_at_s: float) -> None:
        self._k = liveness_frames
        self._most = max(FUSED_FRAMES, liveness_frames)
        self._window_s = window_s
        self._started_at_s = started_at_s
        self._track_id = 0
        self._seen: set[bytes] = set()
        self._votes: list[_Vote] = []
        self._opened_at_s: float | None = None

    @property
    def votes(self) -> int:
        """How many frames of the present track have voted."""
        return len(self._votes)

    def may_decide(self, at_s: float) -> bool:
        """Whether a frame taken at monotonic ``at_s`` can be the last that is needed, so that its whole is looked at."""
        opened_at_s = at_s if self._opened_at_s is None else self._opened_at_s
        return at_s - opened_at_s >= self._window_s and len(self._votes) + 1 >= self._k

    def add(self, assessment: Assessment) -> BestShot | None:
        """Count one frame. Returns the best shot as soon as there is one."""
        if assessment.frame.captured_at_s <= self._started_at_s:
            return None
        if assessment.track_id == 0 or assessment.track_id != self._track_id:
            self._restart(assessment.track_id)
        if assessment.track_id == 0 or assessment.measurement.digest in self._seen:
            return None
        self._seen.add(assessment.measurement.digest)
        if not assessment.liveness:
            return None
        self._append(assessment)
        best = self._decide(assessment.frame.captured_at_s)
        self._forget_the_old(assessment.frame.captured_at_s)
        return best

    def _restart(self, track_id: int) -> None:
        self._track_id = track_id
        self._votes.clear()
        self._opened_at_s = None

    def _append(self, assessment: Assessment) -> None:
        passed, whole = assessment.accepted, assessment.measurement.whole
        if passed and whole:
            self._drop_pictures_not_better_than(assessment.quality_score)
        vote = _Vote(
            at_s=assessment.frame.captured_at_s,
            scores=assessment.liveness,
            passed=passed,
            whole=whole,
            quality=assessment.quality_score,
            shot=assessment if passed and whole else None,
        )
        self._votes.append(vote)
        if passed and self._opened_at_s is None:
            self._opened_at_s = vote.at_s

    def _drop_pictures_not_better_than(self, quality: float) -> None:
        """A picture that is no better than a later one can never be the best of a window: free its memory."""
        for vote in self._votes:
            if vote.shot is not None and vote.quality <= quality:
                vote.shot = None

    def _decide(self, now_s: float) -> BestShot | None:
        votes = self._votes
        if self._opened_at_s is None or now_s - self._opened_at_s < self._window_s:
            return None
        if len(votes) < self._k or not (votes[-1].passed and votes[-1].whole):
            return None
        voting = votes[-self._most :]
        fused = fuse([v.scores for v in voting])
        if not fused or not all(s.passed for s in fused):
            return None
        best = max((v for v in votes if v.shot is not None), key=lambda v: v.quality)
        return BestShot(best.shot, fused, len(voting)) if best.shot is not None else None

    def _forget_the_old(self, now_s: float) -> None:
        """Keep the last window and the latest that vote; pictures of the window or of the last k alone."""
        while len(self._votes) > self._most and self._votes[0].at_s <= now_s - self._window_s:
            self._votes.pop(0)
        for vote in self._votes[: -self._k]:
            if vote.at_s <= now_s - self._window_s:
                vote.shot = None


def fuse(votes: list[tuple[LivenessScore, ...]]) -> tuple[LivenessScore, ...]:
    """The median of every model over the votes, the lower of two, so that a tie denies; no score counts as 0.

    Returns () when the votes are not of the same models: such votes decide nothing.
    """
    if not votes or len({tuple(s.model for s in scores) for scores in votes}) != 1:
        return ()
    return tuple(
        replace(
            latest,
            score=median_low([_counted(scores[i]) for scores in votes]),
            out_of_bounds=max(scores[i].out_of_bounds for scores in votes),
        )
        for i, latest in enumerate(votes[-1])
    )


def _counted(score: LivenessScore) -> float:
    return 0.0 if score.score is None else score.score


@dataclass(frozen=True, slots=True)
class Hint:
    """What the customer is told: one code, stable since ``since_s`` (monotonic). None = all is well, hold on."""

    code: GateCode | None
    since_s: float


class HintHold:
    """Shows a hint only after it has been the most severe one for ``hold_s``: no flicker."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._candidate: Hint | None = None
        self._shown: Hint | None = None

    @property
    def shown(self) -> Hint | None:
        return self._shown

    def update(self, code: GateCode | None, at_s: float) -> Hint | None:
        """Feed the code of the latest frame. Returns the hint when the one to show has just changed."""
        if self._candidate is None or self._candidate.code != code:
            self._candidate = Hint(code, at_s)
        held = at_s - self._candidate.since_s >= self._hold_s
        if not held or (self._shown is not None and self._shown.code == code):
            return None
        self._shown = self._candidate
        return self._shown


class Framing:
    """One session's framing: feed every assessment, read ``hint`` and ``reasons``."""

    def __init__(self, *, liveness_frames: int, window_s: float, hint_hold_s: float, started_at_s: float) -> None:
        self._vote = BestShotVote(liveness_frames=liveness_frames, window_s=window_s, started_at_s=started_at_s)
        self._hints = HintHold(hint_hold_s)
        self._reasons: Counter[GateCode] = Counter()
        self._started_at_s = started_at_s
        self.frames = 0

    @property
    def hint(self) -> GateCode | None:
        shown = self._hints.shown
        return shown.code if shown else None

    def may_decide(self, at_s: float) -> bool:
        """See BestShotVote.may_decide."""
        return self._vote.may_decide(at_s)

    def add(
        self, assessment: Assessment, excused: Callable[[GateCode | None], bool] = lambda _code: False
    ) -> tuple[BestShot | None, Hint | None]:
        """Returns the best shot, if there is one now, and the hint, if it has just changed.

        ``excused``: a code that comes of what the customer was asked to do: neither a hint nor a reason, though the
        models' votes count as ever.
        """
        if not is_fresh(assessment.frame, self._started_at_s):
            return None, None
        self.frames += 1
        best, reasons = self._vote.add(assessment), assessment.reasons
        code = reasons[0] if reasons else None
        if excused(code):
            return best, None
        self._reasons.update(reasons[:1])
        return best, self._hints.update(code, assessment.frame.captured_at_s)

    def reasons(self) -> tuple[GateCode, ...]:
        """Why nothing qualified: the most frequent most severe codes; never empty.

        Good frames that never made a vote (the face kept jumping, too few of them) mean ``hold_still``.
        """
        common = [code for code, _ in self._reasons.most_common(MAX_REASONS)]
        return tuple(common) or (GateCode.HOLD_STILL if self.frames else GateCode.NO_FACE,)


def is_fresh(frame: Frame, started_at_s: float) -> bool:
    """True for a frame taken after the session began."""
    return frame.captured_at_s > started_at_s
