"""Whether a pack may be used in a shop is said, and never guessed to the operator's favour."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_agent.packs.licence import LICENCE_FILE, inspect_licence, licence_folder
from edge_agent.packs.manifest import load_pack
from tests.packs.stand_ins import small_pack


def inspector(status: str, *, permitted: bool) -> Any:
    def inspect(folder: Path, *, expected_model_id: str) -> SimpleNamespace:
        message = f"{folder.name} for {expected_model_id}"
        return SimpleNamespace(status=status, message=message, commercial_use_permitted=permitted)

    return inspect


@pytest.mark.parametrize(
    ("status", "permitted"),
    [
        ("verified_commercial", True),
        ("verified_non_commercial", False),
        ("default_non_commercial", False),
        ("expired", False),
        ("invalid", False),
        ("dependency_missing", False),
    ],
)
def test_the_inspectors_word_is_passed_on(tmp_path: Path, status: str, permitted: bool) -> None:
    report = inspect_licence(load_pack("insightface"), tmp_path, inspector(status, permitted=permitted))
    assert report.status == status
    assert report.commercial_licence is permitted
    assert report.commercial_use == "licence_needed"
    assert "buffalo_sc for buffalo_sc" in report.message


def test_only_a_plain_true_permits(tmp_path: Path) -> None:
    assert not inspect_licence(load_pack("insightface"), tmp_path, inspector("odd", permitted="yes")).commercial_licence  # type: ignore[arg-type]


def test_a_pack_without_signed_licences_is_not_inspected(tmp_path: Path) -> None:
    report = inspect_licence(small_pack(), tmp_path, inspector("verified_commercial", permitted=True))
    assert (report.status, report.commercial_licence, report.message) == (None, False, "")


def test_without_the_insightface_package_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface.model_zoo.model_license", None)
    report = inspect_licence(load_pack("insightface"), tmp_path)
    assert report.status is None
    assert "edge-agent[insightface]" in report.message
    assert not report.commercial_licence


def test_the_real_inspector_finds_no_licence_to_be_non_commercial(tmp_path: Path) -> None:
    pytest.importorskip("insightface", exc_type=ImportError)
    report = inspect_licence(load_pack("insightface"), tmp_path)
    assert report.status == "default_non_commercial"
    assert not report.commercial_licence


def test_the_real_inspector_does_not_believe_a_forged_licence(tmp_path: Path) -> None:
    pytest.importorskip("insightface", exc_type=ImportError)
    folder = licence_folder(tmp_path, "buffalo_sc")
    folder.mkdir(parents=True)
    forged = {
        "license_version": 1,
        "license_id": "1",
        "issuer": "InsightFace",
        "model_id": "buffalo_sc",
        "grant": "commercial",
        "valid_from": "2020-01-01T00:00:00Z",
        "signature": "A" * 86,
    }
    (folder / LICENCE_FILE).write_text(json.dumps(forged))
    report = inspect_licence(load_pack("insightface"), tmp_path)
    assert report.status in {"invalid", "dependency_missing"}
    assert not report.commercial_licence
