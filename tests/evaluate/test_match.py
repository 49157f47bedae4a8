"""Every pair counted once, thresholds that may be proposed, and what the snippet says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from edge_agent.config import load
from edge_agent.evaluate import pairs
from edge_agent.evaluate.bounds import upper_bound
from edge_agent.evaluate.lines import evidence_lines, percent, rate_text, shown_rows, snippet
from edge_agent.evaluate.match import GOAL, MatchReport, proposed_threshold, report
from edge_agent.evaluate.models import models_of
from edge_agent.evaluate.pairs import GRID, Counts, compare
from edge_agent.packs.manifest import load_pack
from tests.test_daemon import write_config

MODELS = models_of(load_pack("open"))


def crowd(sizes: list[int], seed: int = 1) -> list[NDArray[np.float32]]:
    """Persons with so many captures each, scattered about a direction of their own."""
    rng = np.random.default_rng(seed)
    people = []
    for size in sizes:
        rows = rng.standard_normal(8) + 0.6 * rng.standard_normal((size, 8))
        people.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return people


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_every_pair_is_counted_once_whatever_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK", block)
    people = crowd([3, 1, 4, 2, 1, 5])
    captures = [(person, row) for person, rows in enumerate(people) for row in rows]
    scores = [((p, q), float(a @ b)) for (p, a), (q, b) in combinations(captures, 2)]
    genuine = [score for (p, q), score in scores if p == q]
    impostor = [score for (p, q), score in scores if p != q]
    most = {who: max(s for w, s in scores if w == who) for who, _ in scores if who[0] != who[1]}
    least = {who: min(s for w, s in scores if w == who) for who, _ in scores if who[0] == who[1]}
    found = compare(people)
    assert (found.genuine.total, found.impostor.total) == (len(genuine), len(impostor)) == (20, 100)
    assert (found.identity_pairs.total, found.persons.total) == (15, 4)
    for threshold in (-0.5, 0.0, 0.3, 0.305, 0.7, 1.0):
        for counts, expected in (
            (found.genuine, genuine),
            (found.impostor, impostor),
            (found.identity_pairs, most.values()),
            (found.persons, least.values()),
        ):
            assert counts.at_least(threshold) == sum(score >= threshold for score in expected)
            assert counts.below(threshold) == sum(score < threshold for score in expected)


def test_a_score_at_the_threshold_matches_and_rounding_beyond_one_is_no_error() -> None:
    counts = Counts()
    counts.add(np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), 1.0000001, -1.0000001], np.float32))
    assert [counts.at_least(t) for t in (-1.0, 0.499, 0.5, 0.501, 1.0)] == [4, 3, 2, 1, 1]
    with pytest.raises(ValueError, match="between -1 and 1"):
        counts.at_least(1.01)


def scored(impostor: list[float], genuine: list[float] | None = None) -> pairs.Comparisons:
    """Comparisons with these very scores, each pair of other people."""
    counts = [Counts() for _ in range(4)]
    for of, scores in zip(counts, (genuine or [], impostor, genuine or [], impostor), strict=True):
        of.add(np.array(scores, np.float32))
    return pairs.Comparisons(*counts)


@pytest.mark.parametrize(
    ("impostor", "expected", "allowed"),
    [
        ([0.1] * 99 + [0.4], 0.401, 0),
        ([0.1] * 29_955 + [0.4], 0.401, 0),
        ([0.1] * 47_435 + [0.4, 0.5], 0.401, 1),
        ([0.1] * 47_434 + [0.4, 0.5, 0.5], 0.501, 1),
        ([0.1] * 9 + [1.0], 1.0, 0),
    ],
    ids=["few", "just enough", "one may match", "two at once may not", "nothing above"],
)
def test_the_proposed_threshold_lets_no_more_match_than_their_number_allows(
    impostor: list[float], expected: float, allowed: int
) -> None:
    found = report(scored(impostor), 2).evidence
    assert found.threshold == proposed_threshold(scored(impostor).impostor) == pytest.approx(expected)
    matches = sum(score >= expected for score in impostor)
    assert (found.false_matches, found.impostor_pairs) == (matches, len(impostor))
    assert found.fmr_bound == upper_bound(max(matches, allowed), len(impostor))
    assert found.sufficient == (len(impostor) >= 29_956)


def test_the_bound_holds_although_the_threshold_is_chosen_on_the_same_scores() -> None:
    """Uniform scores on -1 to 1, so the true FMR of a threshold t is (1 - t) / 2; one in twenty may exceed the bound."""
    rng = np.random.default_rng(7)
    beyond = 0
    for _ in range(2000):
        counts = Counts()
        counts.add(rng.uniform(-1.0, 1.0, 40).astype(np.float32))
        beyond += (1.0 - proposed_threshold(counts)) / 2.0 > upper_bound(0, 40)
    assert 0.03 < beyond / 2000 < 0.065


@pytest.mark.parametrize(("given_", "sufficient", "errors"), [(0.5, True, 0), (0.3, False, 30_000)])
def test_a_given_threshold_is_bounded_by_what_matched_at_it(given_: float, sufficient: bool, errors: int) -> None:
    found = report(scored([0.4] * 30_000, [0.8, 0.45]), 300, given_)
    assert found.evidence.given
    assert found.evidence.sufficient is sufficient
    assert found.evidence.false_matches == errors
    assert (found.at_evidence.fnmr.errors, found.at_evidence.fnmr.trials) == (1 if given_ == 0.5 else 0, 2)


def test_the_set_says_whether_it_has_the_pairs_that_the_bound_needs() -> None:
    few, many = report(scored([0.1] * 100), 15), report(scored([0.1] * 30_135), 246)
    assert few.pairs_needed == 29_956
    assert few.identities_needed == 246
    assert 246 * 245 // 2 >= 29_956 > 245 * 244 // 2
    assert any("this set does not have them: 100 pairs" in line for line in evidence_lines(few, MODELS))
    assert any("this set has them: 30135 pairs" in line for line in evidence_lines(many, MODELS))


def test_many_pictures_of_few_people_are_called_what_they_are() -> None:
    comparisons = scored([0.1] * 30_000)
    few_people = Counts()
    few_people.add(np.full(10, 0.1, np.float32))
    found = report(replace(comparisons, identity_pairs=few_people), 5)
    assert found.evidence.sufficient
    assert found.evidence.identity_pairs_bound == upper_bound(0, 10)
    assert any("more people are worth more" in line for line in evidence_lines(found, MODELS))


@pytest.mark.parametrize(
    ("impostor_pairs", "identities"), [(29_956, 246), (30_001, 246), (47_437, 309), (1_000_003, 1415)]
)
def test_evidence_can_be_pasted_into_the_configuration(tmp_path: Path, impostor_pairs: int, identities: int) -> None:
    found = report(scored([0.1] * impostor_pairs), identities)
    config = write_config(tmp_path)
    config.write_text(config.read_text() + "\n" + "\n".join(snippet(found, MODELS)) + "\n")
    taken = load(config).offline.face_threshold
    assert taken is not None
    assert (taken.cosine, taken.impostor_pairs) == (0.101, impostor_pairs)
    assert taken.embedder_sha256 == MODELS.embedder_sha256
    assert taken.fmr_upper_95 == pytest.approx(found.evidence.fmr_bound, rel=1e-6)
    assert found.evidence.fmr_bound <= (taken.fmr_upper_95 or 0.0) <= GOAL


@pytest.mark.parametrize(
    ("impostor", "given_", "said"),
    [([0.1] * 29_955, None, "NOT EVIDENCE"), ([0.1] * 30_000, 1.0, "NOT A THRESHOLD")],
    ids=["too few", "a threshold that nobody reaches"],
)
def test_what_is_no_evidence_does_nothing_when_pasted(impostor: list[float], given_: float | None, said: str) -> None:
    lacking = "\n".join(snippet(report(scored(impostor), 246, given_), MODELS))
    assert said in lacking
    assert yaml.safe_load(lacking) is None


def test_the_table_spans_what_changes_and_print_keeps_the_row_of_the_evidence() -> None:
    found: MatchReport = report(compare(crowd([4, 4, 4, 4])), 4)
    thresholds = [row.threshold for row in found.rows]
    assert np.allclose(np.diff(thresholds), 0.01)
    assert found.rows[0].fmr.rate == found.rows[-1].fnmr.rate == 1.0
    assert found.rows[0].fnmr.errors == found.rows[-1].fmr.errors == 0
    fmrs, fnmrs = [row.fmr.errors for row in found.rows], [row.fnmr.errors for row in found.rows]
    assert fmrs == sorted(fmrs, reverse=True)
    assert fnmrs == sorted(fnmrs)
    assert found.evidence.threshold in {row.threshold for row in shown_rows(found)}
    assert report(scored([1.0], [1.0]), 2).rows == ()
    assert len(GRID) == 2001


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0000 %"), (1e-4, "0.0100 %"), (0.1684, "16.8 %"), (0.01052, "1.05 %"), (0.999, "99.9 %"), (1.0, "100 %")],
)
def test_shares_are_written_with_three_digits(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_rate_without_errors_is_written_as_its_bound() -> None:
    low = report(scored([0.1] * 20), 2, 0.5).at_evidence.fmr
    assert rate_text(low) == "0 of 20: <= 16.8 %"
    assert rate_text(report(scored([0.1]), 2, 0.5).at_evidence.fnmr) == "none measured"
