"""Whether a pack may be used in a shop: what its manifest says, and a signed InsightFace licence where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.packs.manifest import Pack

LICENCES_FOLDER = "licences"
LICENCE_FILE = "MODEL.LICENSE"
NOT_INSTALLED = "not inspected: install the extra edge-agent[insightface] to check a signed licence"


@dataclass(frozen=True, slots=True)
class LicenceReport:
    """The terms of a pack, and what the inspection of its signed licence gave."""

    commercial_use: str
    """As the manifest says: yes, licence_needed or review."""
    note: str
    status: str | None
    """The inspector's own word, such as verified_commercial; None when nothing was inspected."""
    message: str
    """For people; empty where the pack has no signed licence to inspect."""
    commercial_licence: bool
    """True only for a valid signed commercial licence for this very pack."""


Inspect = Callable[..., Any]
"""``insightface.model_zoo.model_license.inspect_model_package_license``, or its stand-in."""


def licence_folder(models_dir: Path, model_id: str) -> Path:
    """Where the operator puts the signed ``MODEL.LICENSE`` file of ``model_id``."""
    return models_dir / LICENCES_FOLDER / model_id


def inspect_licence(pack: Pack, models_dir: Path, inspect: Inspect | None = None) -> LicenceReport:
    """Inspect the licence of ``pack``; with ``inspect`` in the place of the insightface package's own function."""
    if pack.licence_model_id is None:
        return LicenceReport(pack.commercial_use, pack.licence_note, None, "", commercial_licence=False)
    inspector = inspect or _insightface_inspector()
    if inspector is None:
        return LicenceReport(pack.commercial_use, pack.licence_note, None, NOT_INSTALLED, commercial_licence=False)
    folder = licence_folder(models_dir, pack.licence_model_id)
    result = inspector(folder, expected_model_id=pack.licence_model_id)
    return LicenceReport(
        pack.commercial_use,
        pack.licence_note,
        str(result.status),
        f"{folder / LICENCE_FILE}: {result.message}",
        commercial_licence=result.commercial_use_permitted is True,
    )


def _insightface_inspector() -> Inspect | None:
    # The package imports matplotlib, scikit-image and more, which may warn about each other.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from insightface.model_zoo.model_license import inspect_model_package_license
        except ImportError:
            return None
    return inspect_model_package_license  # type: ignore[no-any-return]  # the package has no types
