"""Settings with a real key file, and a service that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import CypherFaceSection

from .service import API_KEY, MERCHANT

Settings = Callable[..., CypherFaceSection]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A factory of settings: keywords replace the defaults."""
    key = tmp_path / "api-key"
    key.write_text(API_KEY + "\n")
    key.chmod(0o600)

    def make(**changes: Any) -> CypherFaceSection:
        return CypherFaceSection.model_validate(
            {
                "base_url": "https://api.example/",
                "merchant_id": MERCHANT,
                "api_key": {"file": key},
                "upload_hosts": ["bucket.example"],
                **changes,
            }
        )

    return make
