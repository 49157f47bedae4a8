"""``edge-agent privacy``: what is held of persons, and its destruction for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.confirm import confirm, yes_option
from edge_agent.cli.options import config_option, load_config
from edge_agent.cli.outbox import with_reach
from edge_agent.cli.tables import privacy_lines
from edge_agent.errors import AgentError, InputError

if TYPE_CHECKING:
    from edge_agent.cli.access import Reach


@click.group()
def privacy() -> None:
    """What the terminal holds of persons: report it, destroy it for one user.

    Works through the agent when it runs, else on its files.
    """


@privacy.command("report")
@with_reach
def report(as_json: bool, reach: Reach) -> None:
    """What is held, why, since when and until when: counts and dates, never its content. Needs no key."""
    with reach.open() as access:
        body = access.privacy()
    for line in [body.model_dump_json()] if as_json else privacy_lines(body):
        click.echo(line)


@privacy.command("sweep")
@config_option
def sweep(config_path: Path) -> None:
    """Destroy what is kept for longer than its period. The agent does it by itself; this is for one that does not run."""
    from edge_agent.cli.access import answers, exit_code_of
    from edge_agent.cli.files import FilesAccess

    config = load_config(config_path)
    if answers(config.api.socket):
        click.echo("the agent runs: it keeps the periods itself", err=True)
        return
    try:
        done = FilesAccess(config).sweep()
    except AgentError as exc:
        exc.exit_code = exit_code_of(exc)
        raise
    click.echo(f"{done.verdicts} ended verifications stripped, {done.audit_records} audit records cut off")
    if done.traces_left:
        click.echo("a reader keeps their traces in the log file for now: try again", err=True)


@privacy.command("delete")
@click.argument("user")
@yes_option
@with_reach
def delete(user: str, yes: bool, as_json: bool, reach: Reach) -> None:
    """Destroy everything that is held here of USER, as DELETE /v1/users/USER does. Cannot be undone."""
    user_id = _checked(user)
    with reach.open() as access:
        confirm("destroy everything that is held here of this user", yes=yes)
        done = access.delete_user(user_id)
    if as_json:
        click.echo(done.model_dump_json())
        return
    click.echo(
        f"{done.captures} pictures destroyed, {done.verifications} verifications stripped; audit record {done.audit_seq}"
    )
    if done.traces_left:
        click.echo("a reader keeps their traces in the log file for now: the agent tries again", err=True)
    click.echo("what CypherFace holds of the user is deleted there", err=True)


def _checked(user: str) -> str:
    """As the API checks it, so that a slip of the pen is not answered with "nothing was there"."""
    from pydantic import TypeAdapter, ValidationError

    from edge_agent.api.wire import UserId

    try:
        return TypeAdapter[str](UserId).validate_python(user)
    except ValidationError as exc:
        why = exc.errors(include_url=False, include_input=False)[0]["msg"]
        raise InputError(f"cannot use the user id: {why}", code="invalid_user_id") from exc
