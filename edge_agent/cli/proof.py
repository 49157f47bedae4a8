"""``edge-agent audit verify``, ``key rotate`` and ``adopt``: the security officer's commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_agent.cli.confirm import confirm, yes_option
from edge_agent.cli.outbox import tell, with_reach
from edge_agent.cli.tables import audit_lines
from edge_agent.outbox.records import AuditHead

if TYPE_CHECKING:
    from edge_agent.cli.access import Reach


@click.group()
def audit() -> None:
    """The tamper-evident log of everything that happened."""


@audit.command("verify")
@click.option("--expect-head", metavar="SEQ:MAC", help="A head that was noted elsewhere: finds a cut-off end too.")
@with_reach
def verify(expect_head: str | None, as_json: bool, reach: Reach) -> None:
    """Find the first record that was changed, removed or put elsewhere. Prints the head. Exit code 1 when there is one."""
    from edge_agent.api.custody import audit_body

    head = None if expect_head is None else AuditHead.parse(expect_head)
    with reach.open() as access:
        body = reach.look(
            lambda: access.audit_verify(None if head is None else str(head)),
            lambda files, why: audit_body(files.check_audit(head), why),
        )
    tell(body, audit_lines(body), as_json=as_json, ok=body.ok)


@click.group()
def key() -> None:
    """The device key that everything stored is encrypted under."""


@key.command("rotate")
@yes_option
@with_reach
def rotate(yes: bool, as_json: bool, reach: Reach) -> None:
    """Change to outbox.key; outbox.previous_key must hold the old one. Can be repeated after a power cut."""
    with reach.open() as access:
        confirm("change the device key of the outbox", yes=yes)
        done = access.key_rotate()
    if as_json:
        click.echo(done.model_dump_json())
        return
    click.echo(f"key generation {done.generation}: {done.users} user keys wrapped and {done.rows} rows sealed anew")
    if done.left_alone:
        click.echo(f"{done.left_alone} left alone because they do not authenticate: edge-agent outbox verify", err=True)
    click.echo("take outbox.previous_key out of the configuration and destroy the old key", err=True)


@click.command()
@yes_option
@with_reach
def adopt(yes: bool, as_json: bool, reach: Reach) -> None:
    """Accept a state directory that was made on another machine (state_moved). That is audited."""
    with reach.open() as access:
        confirm("adopt the state directory of another machine", yes=yes)
        done = access.adopt()
    click.echo(done.model_dump_json() if as_json else "adopted: the captures of the other machine are forwarded here")
