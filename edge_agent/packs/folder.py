"""Where model files are kept when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent import config

ENVIRONMENT_VARIABLE = "EDGE_AGENT_MODELS_DIR"
SYSTEM_MODELS_DIR = config.SYSTEM_STATE_DIR / "models"


def default_models_dir(config_path: Path | None = None, *, system_dir: Path = SYSTEM_MODELS_DIR) -> Path:
    """The folder of the model files, which need not exist yet.

    The first of: ``$EDGE_AGENT_MODELS_DIR``; ``models.dir`` of the configuration at ``config_path``; ``system_dir``
    where this user can read it or is root, who can make it; the user's own data folder.
    Raises ConfigurationError when ``config_path`` is given and cannot be used.
    """
    if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(chosen)
    if config_path is not None:
        return config.load(config_path).models.dir
    if os.access(system_dir, os.R_OK | os.X_OK) or os.geteuid() == 0:
        return system_dir
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local/share") / "edge-agent/models"
