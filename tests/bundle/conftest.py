"""The doctor's patient, for whom a bundle is made."""

from __future__ import annotations

from tests.doctor.conftest import patient, trusted

__all__ = ["patient", "trusted"]
