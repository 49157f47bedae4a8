"""A scene per test."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene, scene


@pytest.fixture(autouse=True)
def no_litter() -> Iterator[None]:
    """A client that was killed leaves half a connection in a server's loop; it is swept up here, not in a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as ready:
        yield ready
