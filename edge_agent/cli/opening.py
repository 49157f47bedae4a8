"""Opening the models for a command that runs beside the daemon's configuration, or without any."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.config import Config, ModelsSection
from edge_agent.errors import ModelError

if TYPE_CHECKING:
    from edge_agent.packs.manifest import Pack
    from edge_agent.vision.pipeline import Pipeline


def require_embedder(pack: Pack) -> None:
    """Raises ModelError ``no_embedder``, before any file is looked for."""
    if pack.embedder is None:
        raise ModelError(
            f"cannot compare faces: the pack {pack.name} has no embedder",
            code="no_embedder",
            hint="choose a pack with an embedder (edge-agent models list)",
        )


def open_models(
    pack: str | None, models_dir: Path | None, config: Config | None, threads: int = 0, *, with_embedder: bool = False
) -> Pipeline:
    """The loaded models: the options' before the configuration's before the defaults.

    Raises ModelError whose hint is the command that mends it for these very options; ``no_embedder`` where one is
    asked for and the pack has none.
    """
    from edge_agent.packs.folder import default_models_dir
    from edge_agent.packs.manifest import load_pack
    from edge_agent.vision.opening import open_pipeline

    settings = config.models if config else ModelsSection()
    name = pack or settings.pack
    folder = models_dir or (settings.dir if config else default_models_dir())
    try:
        wanted = load_pack(name)
        if with_embedder:
            require_embedder(wanted)
        return open_pipeline(
            wanted,
            folder,
            providers=settings.providers,
            threads=threads or settings.threads,
            with_embedder=with_embedder,
        )
    except ModelError as exc:
        name_the_remedy(exc, name, folder)
        raise


def name_the_remedy(error: ModelError, pack: str, folder: Path) -> None:
    """The hint becomes the command that mends it for these very options."""
    if error.code == "pack_unknown":
        error.hint = f"edge-agent models list, then --pack with {error.hint}"
    elif error.code in {"models_missing", "model_tampered"}:
        error.hint = f"edge-agent models fetch {shlex.quote(pack)} --dir {shlex.quote(str(folder))}"
