"""``edge-agent outbox``: what waits, why, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.confirm import confirm, yes_option
from edge_agent.cli.options import config_option
from edge_agent.cli.tables import check_lines, entry_lines, list_lines, size, warning_lines
from edge_agent.cli.verify import socket_option
from edge_agent.errors import ConfigurationError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_agent.api.wire_outbox import Authenticity, PurgeBody
    from edge_agent.cli.access import OutboxAccess, Reach

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
NOT_AUTHENTICATED = EnvironmentFault.exit_code


def with_reach(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say where the outbox is; the command gets them as one ``reach``."""

    @wraps(command)
    def run(*args: Any, socket: Path | None, config_path: Path, **kwargs: Any) -> None:
        from edge_agent.cli.access import Reach

        command(*args, reach=Reach(socket, config_path), **kwargs)

    return socket_option(config_option(as_json_option(run)))


def tell(body: Authenticity, lines: Iterable[str], *, as_json: bool, ok: bool = True) -> None:
    """Print what was found and end: 0 fine, 1 problems were found, 3 nothing could be authenticated."""
    for line in warning_lines(body):
        click.echo(line, err=True)
    for line in [body.model_dump_json()] if as_json else lines:
        click.echo(line)
    sys.exit(1 if not ok else 0 if body.authenticated else NOT_AUTHENTICATED)


@click.group()
def outbox() -> None:
    """Look after the captures that wait: list, show, verify, retry, export, purge.

    Works through the agent when it runs, else on its files. Without the key only the structure is checked (exit
    code 3, "authenticated": false).
    """


@outbox.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--before", type=click.IntRange(1), help="The next page: next_before of the page before.")
@click.option("--parked", is_flag=True, flag_value=True, default=None, help="Only what was set aside.")
@with_reach
def list_(limit: int, before: int | None, parked: bool | None, as_json: bool, reach: Reach) -> None:
    """What holds a picture, the newest first."""
    from edge_agent.api.custody import list_body

    with reach.open() as access:
        body = reach.look(
            lambda: access.outbox_list(limit=limit, before=before, parked=parked),
            lambda files, why: list_body(
                files.waiting_list(limit=limit, before=before, parked=parked), files.queue(), why
            ),
        )
    tell(body, list_lines(body), as_json=as_json)


@outbox.command()
@click.argument("id")
@with_reach
def show(id: str, as_json: bool, reach: Reach) -> None:  # noqa: A002 - the argument's name in the usage line
    """One verification and all that happened to it."""
    from edge_agent.api.custody import entry_body

    with reach.open() as access:
        body = reach.look(lambda: access.outbox_show(id), lambda files, why: entry_body(files.describe(id), why))
    tell(body, entry_lines(body), as_json=as_json)


@outbox.command()
@with_reach
def verify(as_json: bool, reach: Reach) -> None:
    """Check the file, every row, every picture, and each state against the audit log. Exit code 1 for problems."""
    from edge_agent.api.custody import check_body

    with reach.open() as access:
        body = reach.look(access.outbox_verify, lambda files, why: check_body(files.check(), None, why))
    tell(body, check_lines(body), as_json=as_json, ok=body.ok)


@outbox.command()
@click.argument("id", required=False)
@click.option("--all", "all_", is_flag=True, help="Everything that waits, and everything parked too.")
@with_reach
def retry(id: str | None, all_: bool, as_json: bool, reach: Reach) -> None:  # noqa: A002 - see show
    """Forward ID now, parked or not; without ID everything that waits. Stopped forwarding tries again at once."""
    if id and all_:
        raise click.UsageError("give an ID or --all, not both")
    with reach.open() as access:
        done = access.outbox_retry(id) if id else access.outbox_retry_all(parked=all_)
    if as_json:
        click.echo(done.model_dump_json())
        return
    when = "now" if done.forwarding else "when the agent runs"
    click.echo(f"{done.hurried} need not wait any longer, {done.reopened} queued again; they are tried {when}")


@outbox.command()
@click.argument("id")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [default: ID.jpg]")
@yes_option
@with_reach
def export(id: str, output: Path | None, yes: bool, as_json: bool, reach: Reach) -> None:  # noqa: A002 - see show
    """Write the picture of ID in clear to a new file that only you can read. That is audited."""
    target = output or Path(f"{Path(id).name}.jpg")
    with reach.open() as access:
        item = access.outbox_show(id).item
        confirm(f"write the face of {item.id} in clear to {target}", yes=yes)
        written = _write_new(target, lambda: access.outbox_export(id))
    click.echo("this is biometric data in clear: delete it when you are done", err=True)
    if as_json:
        record = item.model_dump(mode="json")
        click.echo(json.dumps({"item": record, "file": str(target), "bytes": written}))
    else:
        click.echo(f"{target}: {size(written)}, SHA-256 {item.sha256}")


def _write_new(target: Path, content: Callable[[], bytes]) -> int:
    """Make the file first: what cannot be written is not taken out. Returns the number of bytes."""
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        raise ConfigurationError(f"cannot write {target}: it exists", hint="give another file with -o") from exc
    except OSError as exc:
        raise EnvironmentFault(f"cannot write {target}: {exc.strerror}") from exc
    try:
        with os.fdopen(fd, "wb") as file:
            data = content()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as exc:
        target.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise EnvironmentFault(f"cannot write {target}: {exc.strerror}") from exc
        raise
    return len(data)


@outbox.command()
@click.argument("id", required=False)
@click.option("--parked", is_flag=True, help="Everything that was set aside.")
@click.option("--all", "all_", is_flag=True, help="Everything that waits and everything that was set aside.")
@yes_option
@with_reach
def purge(id: str | None, parked: bool, all_: bool, yes: bool, as_json: bool, reach: Reach) -> None:  # noqa: A002
    """Destroy the capture ID, or all; they become `deleted` and are never forwarded. Cannot be undone."""
    if bool(id) + parked + all_ != 1:
        raise click.UsageError("give an ID, --parked or --all")
    with reach.open() as access:
        gone = _purge_one(access, id, yes=yes) if id else _purge_many(access, parked_only=parked, yes=yes)
    if as_json:
        click.echo(gone.model_dump_json())
    else:
        click.echo(f"{gone.captures} destroyed, {size(gone.bytes)}")
        if gone.traces_left:
            click.echo("a reader keeps their traces in the log file for now: the agent tries again", err=True)


def _purge_one(access: OutboxAccess, id_: str, *, yes: bool) -> PurgeBody:
    confirm(f"destroy the capture {id_} for good", yes=yes)
    return access.outbox_purge(id_)


def _purge_many(access: OutboxAccess, *, parked_only: bool, yes: bool) -> PurgeBody:
    queue = access.outbox_list(limit=1).queue
    number = queue.parked if parked_only else queue.pictures
    confirm(f"destroy {number} captures for good", yes=yes)
    return access.outbox_purge_all(parked_only=parked_only)
