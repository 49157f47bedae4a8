"""A threshold needs evidence: from the manifest, or from an operator who says what was measured, with which embedder."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import yaml

from edge_agent.config import FaceThresholdSection, InvalidConfiguration, parse
from edge_agent.errors import ConfigurationError
from edge_agent.evidence import claim_problem, least_bound, pairs_needed
from edge_agent.offline.threshold import model_of, yardstick
from edge_agent.packs.check import check
from edge_agent.packs.manifest import MatchEvidence, Pack, builtin_dir, builtin_names, load_pack, read_manifest

PACK = load_pack("open")
EMBEDDER = PACK.files["fr_feature.onnx"].sha256
MEASURED = {"cosine": 0.62, "embedder_sha256": EMBEDDER, "impostor_pairs": 40_000, "fmr_upper_95": 7.5e-5}
GUESS = {"cosine": 0.5, "not_evidence": True}
SERVICE = {
    "base_url": "http://127.0.0.1:8000/",
    "merchant_id": "0123456789abcdef01234567",
    "api_key": {"env": "KEY"},
    "upload_hosts": ["127.0.0.1:8000"],
}


def with_evidence(**values: Any) -> Pack:
    claim = {"threshold": 0.6, "impostor_pairs": 50_000, "fmr_upper_95": 6e-5, "source": "a test", **values}
    embedder = PACK.embedder
    assert embedder is not None
    return replace(PACK, embedder=replace(embedder, match=MatchEvidence(**claim)))


# -- what figures can show


def test_the_rule_of_three_and_its_exact_form() -> None:
    assert least_bound(20) == pytest.approx(0.1391, abs=1e-4)  # 1 - 0.05 ** (1 / 20)
    assert least_bound(100_000) == pytest.approx(3 / 100_000, rel=0.01)
    assert pairs_needed() == 29_956
    assert least_bound(29_956) <= 1e-4 < least_bound(29_955)
    assert math.isclose(1 - 0.05 ** (1 / 1000), least_bound(1000))


@pytest.mark.parametrize(
    ("pairs", "bound", "problem"),
    [
        (40_000, 7.5e-5, None),
        (29_956, 1e-4, None),
        (2_624, 1e-4, "cannot show a false match rate below 1.1e-03"),
        (40_000, 1e-6, "cannot show"),
        (40_000, 1.1e-4, "the bound must be 0.0001 or less"),
    ],
)
def test_a_claim_is_possible_and_enough_or_it_is_told_why_not(pairs: int, bound: float, problem: str | None) -> None:
    found = claim_problem(pairs, bound)
    assert found is None if problem is None else problem in str(found)


# -- where a threshold comes from


def test_no_shipped_pack_has_one() -> None:
    for name in builtin_names():
        with pytest.raises(ConfigurationError, match="no face threshold that counts") as caught:
            yardstick(None, load_pack(name))
        assert caught.value.code == "no_match_threshold"
        assert "29956 impostor pairs" in str(caught.value.hint)


def test_a_pack_whose_manifest_carries_a_measurement_has_one() -> None:
    by = yardstick(None, with_evidence())
    assert (by.threshold, by.measured, by.evidence) == (0.6, True, "a test: 50000 impostor pairs, FMR <= 6e-05")


def test_the_manifest_of_an_operators_pack_may_carry_it() -> None:
    value = read_manifest(builtin_dir() / "open.yaml")
    claim: dict[str, Any] = {"threshold": 0.6, "impostor_pairs": 50_000, "fmr_upper_95": 6e-5, "source": "site 12"}
    value["embedder"]["match"] = claim
    read = check(Pack, value).embedder
    assert read is not None
    assert read.match == MatchEvidence(**claim)
    value["embedder"]["match"] = {**claim, "fmr_upper_95": 0}
    with pytest.raises(ValueError, match="fmr_upper_95"):
        check(Pack, value)


@pytest.mark.parametrize("claim", [{"fmr_upper_95": 2e-4}, {"impostor_pairs": 100}])
def test_a_manifest_that_shows_too_little_gives_none(claim: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="is not enough"):
        yardstick(None, with_evidence(**claim))


def test_a_pack_without_an_embedder_gives_none() -> None:
    with pytest.raises(ConfigurationError, match="has no embedder"):
        yardstick(FaceThresholdSection(**GUESS), replace(PACK, embedder=None, files=_without_embedder(PACK)))


def _without_embedder(pack: Pack) -> dict[str, Any]:
    return {name: file for name, file in pack.files.items() if name != "fr_feature.onnx"}


def test_an_operators_measurement_counts_for_the_embedder_that_was_measured_alone() -> None:
    by = yardstick(FaceThresholdSection(**MEASURED), with_evidence())
    assert (by.threshold, by.measured) == (0.62, True)
    with pytest.raises(ConfigurationError, match="another embedder"):
        yardstick(FaceThresholdSection(**{**MEASURED, "embedder_sha256": "0" * 64}), PACK)


def test_a_guess_says_that_it_is_none() -> None:
    by = yardstick(FaceThresholdSection(**GUESS), PACK)
    assert (by.threshold, by.measured, by.evidence) == (0.5, False, "none: not_evidence")


def test_other_weights_another_detector_or_another_preparation_are_another_model() -> None:
    embedder, detector = PACK.embedder, PACK.detector.file
    assert embedder is not None
    files = {**PACK.files, detector: replace(PACK.files[detector], sha256="1" * 64)}
    others = [
        model_of(PACK, embedder),
        model_of(PACK, replace(embedder, mean=127.5)),
        model_of(PACK, replace(embedder, colour="rgb")),
        model_of(replace(PACK, files=files), embedder),
        model_of(load_pack("insightface"), load_pack("insightface").embedder or embedder),
    ]
    assert len(set(others)) == len(others)
    assert model_of(PACK, replace(embedder, sandbox_threshold=0.1)) == others[0]


# -- the configuration


def problems(service: dict[str, Any] | None = None, **offline: Any) -> list[str]:
    text = yaml.safe_dump({"cypherface": {**SERVICE, **(service or {})}, "offline": offline})
    try:
        parse(text)
    except InvalidConfiguration as exc:
        return [f"{problem.key}: {problem.message}" for problem in exc.problems]
    return []


PROVISIONAL = {"policy": "provisional", "max_amounts": {"EUR": 50}}


@pytest.mark.parametrize(
    ("offline", "service", "problem"),
    [
        ({**PROVISIONAL, "face_threshold": MEASURED}, {"base_url": "https://staging.cypherface.com/"}, None),
        ({**PROVISIONAL, "face_threshold": GUESS}, {}, None),
        ({"policy": "provisional", "without_amount": True}, {}, None),
        ({**PROVISIONAL, "max_amounts": {"EUR": "12.50", "JPY": 5000}}, {}, None),
        ({**PROVISIONAL, "face_threshold": GUESS}, {"base_url": "https://staging.cypherface.com/"},
         "only with a sandbox on loopback"),
        ({"policy": "provisional"}, {}, "needs max_amounts, or without_amount"),
        ({**PROVISIONAL, "max_amounts": {"euro": 50}}, {}, "pattern"),
        ({**PROVISIONAL, "max_amounts": {"EUR": 0}}, {}, "greater than 0"),
        ({"face_threshold": {**MEASURED, "not_evidence": True}}, {}, "without figures"),
        ({"face_threshold": {"cosine": 0.6}}, {}, "give embedder_sha256"),
        ({"face_threshold": {**MEASURED, "impostor_pairs": 2624}}, {}, "cannot show"),
        ({"face_threshold": {**MEASURED, "fmr_upper_95": 2e-4}}, {}, "must be 0.0001 or less"),
        ({"face_threshold": {**MEASURED, "cosine": 1.0}}, {}, "less than 1"),
    ],
)  # fmt: skip
def test_the_configuration_takes_a_threshold_only_with_evidence_or_for_the_sandbox(
    offline: dict[str, Any], service: dict[str, Any], problem: str | None
) -> None:
    found = problems(service, **offline)
    if problem is None:
        assert found == []
    else:
        assert [problem in said for said in found] == [True], found
        assert found[0].startswith("offline")
