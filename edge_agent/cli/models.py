"""``edge-agent models``: which model packs there are, bring one here, check what is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edge_agent import config as configuration
from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.folder import default_models_dir
from edge_agent.packs.licence import LicenceReport, inspect_licence
from edge_agent.packs.manifest import Pack, builtin_names, load_pack
from edge_agent.packs.progress import Progress, Received
from edge_agent.packs.verify import FileReport, FileState, verify_pack

TERMS = {"yes": "permitted", "licence_needed": "needs a licence", "review": "needs your own review"}
NEGATIVE, ENVIRONMENT = 1, 3

Command = Callable[..., Any]


def folder_options(command: Command) -> Command:
    """The options that say where the model files are."""
    command = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="EDGE_AGENT_CONFIG",
        help="Take the folder from models.dir of this configuration.",
    )(command)
    return click.option(
        "--dir",
        "models_dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the model files.  [default: $EDGE_AGENT_MODELS_DIR, models.dir of --config, "
        "/var/lib/edge-agent/models, or ~/.local/share/edge-agent/models]",
    )(command)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.group()
def models() -> None:
    """List, fetch and verify model packs."""


@models.command("list")
@folder_options
@as_json
def list_packs(models_dir: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the packs that come with edge-agent, and which of them are installed."""
    folder = models_dir or default_models_dir(config_path)
    packs = [_summary(load_pack(name), folder) for name in builtin_names()]
    if as_json:
        _print_json({"dir": str(folder), "packs": packs})
        return
    for pack in packs:
        click.echo(f"{pack['name']:<14} {pack['state']:<10} {pack['bytes'] / 1e6:5.1f} MB  {pack['title']}")
        click.echo(f"{'':<14} commercial use {TERMS[pack['commercial_use']]}")
    click.echo(f"in {folder}", err=True)


@models.command()
@click.argument("pack")
@click.option(
    "--from", "from_path", type=click.Path(path_type=Path), help="Look into this file, folder or archive first."
)
@folder_options
@as_json
def fetch(pack: str, from_path: Path | None, models_dir: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Fetch PACK (a name, or the path of a pack file), verified by hash.

    Files that are there and verified stay. Mirrors are tried in the order of the manifest.
    """
    described = load_pack(pack)
    folder = models_dir or default_models_dir(config_path)
    files = fetch_pack(described, folder, from_path=from_path, progress=terminal_progress())
    if as_json:
        listing = [{"file": f.name, "path": str(f.path), "from": f.origin or None} for f in files]
        _print_json({"pack": described.name, "dir": str(folder), "files": listing})
        return
    new = sum(bool(file.origin) for file in files)
    click.echo(f"{described.name}: {len(files)} files verified, {new} of them new, in {folder}")
    click.echo(f"commercial use {TERMS[described.commercial_use]}: {described.licence_note}", err=True)


@models.command()
@click.argument("pack", required=False)
@folder_options
@as_json
def verify(pack: str | None, models_dir: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Check the files of PACK against their hashes, and its licence.

    PACK is a name or the path of a pack file; by default the pack of --config, else "open".
    Exit codes: 0 all verified, 1 a file is not what the manifest names, 3 a file is missing or unreadable.
    """
    described = load_pack(pack or _configured_pack(config_path))
    folder = models_dir or default_models_dir(config_path)
    files, licence = verify_pack(described, folder), inspect_licence(described, folder)
    if as_json:
        _print_json(_verification(described, folder, files, licence))
    else:
        _print_verification(described, folder, files, licence)
    sys.exit(_exit_code(files))


def _configured_pack(config_path: Path | None) -> str:
    return configuration.load(config_path).models.pack if config_path is not None else "open"


def _exit_code(files: tuple[FileReport, ...]) -> int:
    states = {file.state for file in files}
    if FileState.TAMPERED in states:
        return NEGATIVE
    return 0 if states == {FileState.OK} else ENVIRONMENT


def _summary(pack: Pack, folder: Path) -> dict[str, Any]:
    return {
        "name": pack.name,
        "title": pack.title,
        "state": _state(verify_pack(pack, folder)),
        "bytes": sum(file.size for file in pack.files.values()),
        "commercial_use": pack.commercial_use,
        "licence_note": pack.licence_note,
    }


def _state(files: tuple[FileReport, ...]) -> str:
    states = {file.state for file in files}
    if states == {FileState.OK}:
        return "installed"
    if FileState.TAMPERED in states:
        return "tampered"
    return "partial" if FileState.OK in states else "absent"


def _verification(pack: Pack, folder: Path, files: tuple[FileReport, ...], licence: LicenceReport) -> dict[str, Any]:
    listing = [
        {
            "file": f.name,
            "state": f.state,
            "path": str(f.path),
            "detail": f.detail,
            "licence": pack.files[f.name].licence,
        }
        for f in files
    ]
    return {
        "pack": pack.name,
        "dir": str(folder),
        "ok": _exit_code(files) == 0,
        "files": listing,
        "commercial_use": licence.commercial_use,
        "licence_note": licence.note,
        "signed_licence": {
            "status": licence.status,
            "message": licence.message,
            "commercial_licence": licence.commercial_licence,
        },
    }


def _print_verification(pack: Pack, folder: Path, files: tuple[FileReport, ...], licence: LicenceReport) -> None:
    click.echo(f"{pack.name} in {folder}")
    for file in files:
        click.echo(f"  {file.state:<10} {file.name}  {file.detail}".rstrip())
    terms = "permitted by a signed licence" if licence.commercial_licence else TERMS[licence.commercial_use]
    click.echo(f"commercial use {terms}: {licence.note}")
    if licence.message:
        click.echo(f"signed licence: {licence.message}")
    if _exit_code(files) != 0:
        click.echo(f"  try: edge-agent models fetch {pack.name} --dir {folder}", err=True)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def terminal_progress() -> Progress:
    """Bars where stderr is a terminal, plain lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """Progress as plain lines on stderr, for logs."""

    def line(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def transfer(self, label: str, expected: int | None) -> Iterator[Received]:
        size = f" ({expected / 1e6:.1f} MB)" if expected else ""
        click.echo(f"downloading {label}{size}", err=True)
        yield lambda _: None


class Bars(Lines):
    """Progress as one bar for each download on stderr, for a terminal; a plain line where the length is unknown."""

    @contextmanager
    def transfer(self, label: str, expected: int | None) -> Iterator[Received]:
        if expected is None:
            with super().transfer(label, expected) as received:
                yield received
            return
        with click.progressbar(length=expected, label=label, file=sys.stderr, show_eta=False) as bar:
            yield lambda total: bar.update(min(total, expected) - bar.pos)
            bar.update(expected - bar.pos)
