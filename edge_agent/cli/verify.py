"""``edge-agent verify`` and ``edge-agent status``: clients of the running agent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import config_option, load_config

if TYPE_CHECKING:
    from edge_agent.api.wire import VerificationBody
    from edge_agent.client import AgentClient, ServerEvent

socket_option = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="EDGE_AGENT_SOCKET",
    help="The agent's socket.  [default: the configuration's]",
)


def _socket(socket: Path | None, config_path: Path) -> Path:
    return socket or load_config(config_path).api.socket


@click.command()
@click.argument("user")
@click.option("--reference", help="Your own reference of the payment.")
@click.option("--amount", help="Amount, carried to the audit record.")
@click.option("--currency", help="ISO 4217 code of the amount.")
@click.option("--search-timeout", type=float, help="Seconds to look for a face.")
@click.option("--cannot-turn", is_flag=True, help="The customer cannot turn the head: ask for a blink instead.")
@click.option("--key", help="Idempotency key.  [default: a fresh one]")
@click.option("--json", "as_json", is_flag=True, help="Print the final record as JSON on stdout.")
@socket_option
@config_option
def verify(
    user: str,
    reference: str | None,
    amount: str | None,
    currency: str | None,
    search_timeout: float | None,
    cannot_turn: bool,
    key: str | None,
    as_json: bool,
    socket: Path | None,
    config_path: Path,
) -> None:
    """Verify that the person in front of the terminal is USER; hints appear while the camera looks.

    Prompts of a challenge appear too, and are acknowledged where somebody can read them: stderr is a terminal.
    Exit code 0 when approved, 1 when not, 3 when the agent or its camera cannot be used.
    """
    from edge_agent.client import AgentClient

    with AgentClient(_socket(socket, config_path)) as client:
        started = client.verify(
            user,
            idempotency_key=key,
            reference=reference,
            amount=amount,
            currency=currency,
            search_timeout_s=search_timeout,
        )
        try:
            if cannot_turn:
                _say_cannot_turn(client, started)
            record = _follow(client, started)
        except KeyboardInterrupt:
            record = client.cancel(started.id)
    click.echo(record.model_dump_json() if as_json else _sentence(record))
    sys.exit(0 if record.approved else 1)


def _say_cannot_turn(client: AgentClient, started: VerificationBody) -> None:
    """Where no challenge is asked for, or none any more, there is nothing to say."""
    from edge_agent.client import ApiError

    if started.challenge is None:
        return
    try:
        client.cannot_turn(started.id)
    except ApiError as exc:
        if exc.code != "challenge_not_running":
            raise


def _somebody_reads() -> bool:
    return sys.stderr.isatty()


def _show_challenge(client: AgentClient, event: ServerEvent) -> None:
    """Show what is asked, and say so to the agent where somebody can see it."""
    if event.kind == "challenge.prompt":
        click.echo(f"  > {event.data['text']}", err=True)
        if _somebody_reads():
            _acknowledge(client, event)
    elif event.kind == "challenge.done":
        click.echo(f"  > {event.data['text']}", err=True)
    elif event.kind == "challenge.cancel":
        click.echo(f"  not done: {event.data['reason']}", err=True)


def _acknowledge(client: AgentClient, event: ServerEvent) -> None:
    from edge_agent.client import ApiError

    try:
        client.acknowledge(str(event.data["verification_id"]), event.data["step"])
    except ApiError as exc:  # an old event, or it is over by now: its end is told by other events
        if exc.code not in {"challenge_wrong_step", "challenge_not_running"}:
            raise


def _follow(client: AgentClient, started: VerificationBody) -> VerificationBody:
    """Show hints and states on stderr until the verification is no longer working."""
    from edge_agent.client import FROM_THE_START
    from edge_agent.types import WORKING_STATES

    if started.state in WORKING_STATES:
        for event in client.events(started.id, after=FROM_THE_START):
            if event.kind == "hint":
                click.echo(f"  {event.data['text']}", err=True)
            _show_challenge(client, event)
            if event.kind == "camera":
                click.echo(f"  camera {event.data['state']}: {event.data['detail']}", err=True)
            if event.kind == "state":
                click.echo(f"  {event.data['state']}", err=True)
                if event.data["state"] not in WORKING_STATES:
                    break
    return client.get(started.id)


def _sentence(record: VerificationBody) -> str:
    why = f" ({', '.join(record.reasons)})" if record.reasons else ""
    error = f" ({record.error.code}: {record.error.detail})" if record.error else ""
    similarity = f", similarity {record.similarity:.1f}" if record.similarity is not None else ""
    verdict = "approved" if record.approved else "not approved"
    passed = f", {record.challenge.outcome}" if record.approved and record.challenge else ""
    return f"{verdict}: {record.state.value}{why}{error}{similarity}{passed}  [{record.id}]"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@socket_option
@config_option
def status(as_json: bool, socket: Path | None, config_path: Path) -> None:
    """How the running agent is doing. Exit code 0 when ready, 1 when degraded, 3 when it does not answer."""
    from edge_agent.client import AgentClient

    with AgentClient(_socket(socket, config_path)) as client:
        body = client.status()
    if as_json:
        click.echo(json.dumps(body))
    else:
        _print_status(body)
    sys.exit(0 if body["ready"] else 1)


def _print_status(body: dict[str, object]) -> None:
    from edge_agent.api.wire_status import StatusBody
    from edge_agent.cli.tables import status_lines

    click.echo(f"edge-agent {body['version']} on {body['terminal_id']}: {'ready' if body['ready'] else 'degraded'}")
    for line in status_lines(StatusBody.model_validate(body)):
        click.echo(line)
    _print_configuration(body["configuration"])
    faults = body["faults"]
    for fault in faults if isinstance(faults, list) else []:
        click.echo(f"  missing {fault['part']}: {fault['detail']}")
        if fault["hint"]:
            click.echo(f"    try: {fault['hint']}")


def _print_configuration(configuration: object) -> None:
    """What is not as the file says."""
    if not isinstance(configuration, dict):
        return
    for problem in (configuration.get("last_reload") or {}).get("problems", []):
        click.echo(f"  the old configuration goes on: {problem}")
    if configuration["restart_needed"]:
        click.echo(f"  a restart is needed for: {', '.join(configuration['restart_needed'])}")
    trial = configuration.get("trial")  # an admin is told
    if trial and trial["left_s"] is not None:
        click.echo(f"  a configuration is on trial: {trial['phase']}, {trial['left_s']:.0f} s left")
