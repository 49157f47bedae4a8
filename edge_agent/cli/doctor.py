"""``edge-agent doctor``: what works, what does not, and what mends it."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import config_option
from edge_agent.cli.verify import socket_option

if TYPE_CHECKING:
    from edge_agent.doctor.examination import Report

WIDTH = 80
NEGATIVE = 1


@click.command()
@click.option(
    "--only", metavar="ID", multiple=True, help="Only this check or topic (camera.frozen, camera); repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@socket_option
@config_option
def doctor(only: tuple[str, ...], as_json: bool, socket: Path | None, config_path: Path) -> None:
    """Examine this terminal: camera, models, disk, board, clock, network, service, queue. Call it as root.

    Exit code 0 when nothing failed, 1 when a check failed, 3 when it cannot run.
    """
    from edge_agent.doctor.examination import examine, to_json
    from edge_agent.doctor.finding import Status
    from edge_agent.doctor.setup import borrow_credentials

    borrow_credentials(os.environ)
    report = examine(config_path, socket=socket, only=only)
    if as_json:
        click.echo(json.dumps(to_json(report.findings), ensure_ascii=False))
    else:
        for line in lines(report):
            click.echo(line)
    failed = report.status is Status.FAIL or report.interrupted
    click.get_current_context().exit(NEGATIVE if failed else 0)


def lines(report: Report) -> Iterator[str]:
    """The findings by topic, in 80 columns; then what to do."""
    from edge_agent.doctor.examination import to_json
    from edge_agent.report import printable

    for topic, findings in groupby(report.findings, key=lambda finding: finding.topic):
        yield topic
        for (status, detail, mend), alike in groupby(findings, key=lambda f: (f.status, f.detail, f.mend)):
            ids = ", ".join(finding.id for finding in alike)
            yield from _wrapped(f"  {status.value:<8}{ids}: {printable(detail)}", " " * 10)
            if mend:
                yield from _wrapped(f"          try: {printable(mend)}", " " * 15)
    counts = to_json(report.findings)["counts"]
    yield ", ".join(f"{number} {status}" for status, number in counts.items())


def _wrapped(text: str, indent: str) -> list[str]:
    """A command must stay whole when it is copied: words are never cut."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
