"""A healthy terminal for every test, and one service with a good certificate for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.doctor.certificates import Authority, authority, greeting
from tests.doctor.patient import Patient


@pytest.fixture(scope="session")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authority, int]]:
    folder = tmp_path_factory.mktemp("certificates")
    issuer = authority(folder)
    with greeting(issuer.issue(folder / "good.pem", days=90)) as port:
        yield issuer, port


@pytest.fixture
def patient(tmp_path: Path, trusted: tuple[Authority, int]) -> Iterator[Patient]:
    issuer, port = trusted
    with ExitStack() as stack:
        yield Patient(tmp_path, port, issuer, stack)
