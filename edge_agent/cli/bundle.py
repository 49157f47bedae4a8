"""``edge-agent bundle``: what support needs to know of this terminal, in a file that can be shared."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import config_option
from edge_agent.cli.tables import size, table
from edge_agent.cli.verify import socket_option

if TYPE_CHECKING:
    from edge_agent.bundle.archive import Written
    from edge_agent.bundle.collecting import Bundle

EVERYTHING = "*"
READ_IT = "read it before you send it"


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file or folder to write to.  [default: here]"
)
@click.option("--force", is_flag=True, help="Overwrite it.")
@click.option("--preview", metavar="[MEMBER]", is_flag=False, flag_value=EVERYTHING,
              help="Write nothing: list what would be in it, or print one member.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@socket_option
@config_option
def bundle(
    output: Path | None, force: bool, preview: str | None, as_json: bool, socket: Path | None, config_path: Path
) -> None:
    """Collect what support needs into a tar.gz, without secrets, user ids and pictures. Call it as root.

    Takes as long as the doctor. What cannot be had is named in its manifest. Exit code 0 when it was written.
    """
    from edge_agent.bundle.archive import look_before, stem, write

    if preview is not None and (output or force):
        raise click.UsageError("--preview writes nothing: leave --output and --force out")
    where = output or Path()
    if preview is None:
        look_before(where, overwrite=force)
    found = _collect(config_path, socket)
    if preview is not None:
        _show(found, preview, as_json=as_json)
        return
    path = where / f"{stem(found)}.tar.gz" if where.is_dir() else where
    written = write(found, path, overwrite=force)
    if not written.private:
        click.echo(f"others can read {written.path}: its file system has no rights", err=True)
    _tell(found, written, as_json=as_json)


def _collect(config_path: Path, socket: Path | None) -> Bundle:
    from edge_agent.bundle.collecting import collect, surroundings
    from edge_agent.doctor.setup import borrow_credentials

    borrow_credentials(os.environ)
    click.echo("looking at everything; the doctor may take a minute or two", err=True)
    return collect(config_path, surroundings(dict(os.environ)), socket=socket)


def _show(found: Bundle, name: str, *, as_json: bool) -> None:
    if name != EVERYTHING:
        member = found.member(name)
        if member is None:
            raise click.UsageError(f"there is no {name} in it; one of: {', '.join(m.name for m in found.members)}")
        click.echo(member.content, nl=False)
    elif as_json:
        click.echo(json.dumps(_contents(found), ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)


def _tell(found: Bundle, written: Written, *, as_json: bool) -> None:
    if as_json:
        told = {"file": str(written.path), "bytes": written.bytes, "sha256": written.sha256, **_contents(found)}
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    for line in _lines(found):
        click.echo(line)
    click.echo(f"{written.path}: {size(written.bytes)}, SHA-256 {written.sha256}; {READ_IT}")


def _contents(found: Bundle) -> dict[str, object]:
    return {
        "members": [{"name": m.name, "bytes": len(m.content), "what": m.what} for m in found.members],
        "gaps": [{"part": gap.part, "why": gap.why} for gap in found.gaps],
    }


def _lines(found: Bundle) -> Iterator[str]:
    from edge_agent.report import printable

    yield from table(("MEMBER", "SIZE", "WHAT"), [(m.name, size(len(m.content)), m.what) for m in found.members])
    for gap in found.gaps:
        yield printable(f"not in it: {gap.part}: {gap.why}")
