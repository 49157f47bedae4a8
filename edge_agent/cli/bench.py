"""``edge-agent bench``: what this machine can do, beside a bare measure of the same work."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import DEFAULT_CONFIG, load_config, models_dir_option
from edge_agent.config import Config, ModelsSection
from edge_agent.errors import AgentError, EnvironmentFault, ModelError

if TYPE_CHECKING:
    from edge_agent.bench.outbox import Report
    from edge_agent.bench.watched import WatchedPipeline
    from edge_agent.types import Image


@click.group()
def bench() -> None:
    """Measure this machine, each figure beside a bare one of the same work."""


@bench.command()
@click.option("--rows", type=click.IntRange(20, 1_000_000), help="Queue so many for the claims.  [default: 100000]")
@click.option("--pictures", type=click.IntRange(1, 100_000), help="Store so many captures.  [default: 500]")
@click.option("--drain", "drained", type=click.IntRange(5, 100_000), help="Forward so many.  [default: 10000]")
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Measure in a fresh folder in this one; default: the state directory, else the temporary folder.",
)
@click.option("--quick", is_flag=True, help="Small numbers: half a minute instead of a quarter of an hour.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def outbox(
    rows: int | None, pictures: int | None, drained: int | None, parent: Path | None, quick: bool, as_json: bool
) -> None:
    """Enqueue, claim, memory and drain of the outbox, in a queue of its own that is removed again."""
    from edge_agent.bench.ground import own_folder
    from edge_agent.bench.outbox import QUICK, Plan, measure

    given = {"rows": rows, "pictures": pictures, "drained": drained}
    plan = replace(QUICK if quick else Plan(), **{name: value for name, value in given.items() if value is not None})
    with own_folder(parent or _default_parent()) as folder:
        report = measure(folder, plan, lambda text: click.echo(f"{text} …", err=True))
    if as_json:
        click.echo(json.dumps(report.as_json()))
        return
    for line in _lines(report):
        click.echo(line)


@bench.command()
@click.option("--pack", help="Model pack.  [default: the configuration's, or open]")
@models_dir_option
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A sharp portrait; default: the demo's, which comes from the package index.",
)
@click.option("--frames", type=click.IntRange(10, 100_000), default=100, show_default=True, help="Screen so many.")
@click.option("--threads", type=click.IntRange(0, 64), default=0, help="Per model.  [default: as the daemon does]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the bars to this file (.svg or .png)."
)
def pipeline(
    pack: str | None,
    models_dir: Path | None,
    picture: Path | None,
    frames: int,
    threads: int,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Screening: every stage beside its models, new and followed faces, resolutions, start-up and memory."""
    from edge_agent.bench.charts import check_plot, pipeline_bars
    from edge_agent.bench.ground import own_folder
    from edge_agent.bench.lines import lines
    from edge_agent.bench.pipeline import Plan, measure
    from edge_agent.bench.start import start_once
    from edge_agent.vision.runtime import DEFAULT_THREADS

    check_plot(plot)
    models = _models(pack, models_dir, threads)
    opened = _open_watched(models)
    person = _picture(picture)
    with own_folder(Path(tempfile.gettempdir())) as scratch:
        report = measure(
            scratch,
            opened,
            person,
            Plan(frames=frames),
            start=lambda file: start_once(models, file),
            threads=models.threads or DEFAULT_THREADS,
            tell=lambda text: click.echo(f"{text} …", err=True),
        )
    if plot is not None:
        pipeline_bars(report, plot).write(plot)
        click.echo(f"drawn: {plot}", err=True)
    for line in [json.dumps(report.as_json(), allow_nan=False)] if as_json else lines(report):
        click.echo(line)


def _models(pack: str | None, models_dir: Path | None, threads: int) -> ModelsSection:
    """The options' before the configuration's before the defaults."""
    from edge_agent.packs.folder import default_models_dir

    config = _config_here()
    settings = config.models if config else ModelsSection(dir=default_models_dir())
    given = {"pack": pack, "dir": models_dir, "threads": threads or None}
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


def _open_watched(models: ModelsSection) -> WatchedPipeline:
    """Raises ModelError whose hint is the command that mends it for these very options."""
    from edge_agent.bench.watched import WatchedPipeline
    from edge_agent.cli.opening import name_the_remedy
    from edge_agent.packs.manifest import load_pack

    try:
        return WatchedPipeline(load_pack(models.pack), models)
    except ModelError as exc:
        name_the_remedy(exc, models.pack, models.dir)
        raise


def _picture(file: Path | None) -> Image:
    """Of one person. Raises InputError for a file that is none, EnvironmentFault where the demo's cannot be had."""
    if file is not None:
        from edge_agent.picture import read_picture

        return read_picture(file)
    from edge_agent.cli.demo import cache_folder
    from edge_agent.cli.models import terminal_progress
    from edge_agent.demo.pictures import fetch_people

    try:
        return fetch_people(cache_folder() / "pictures", terminal_progress())["alice"]
    except EnvironmentFault as exc:
        exc.hint = "give a sharp portrait with --picture"
        raise


def _default_parent() -> Path:
    """The state directory that is configured here, if a folder can be made in it: there the queue will be."""
    config = _config_here()
    if config is None or not os.access(config.state_dir, os.W_OK):
        return Path(tempfile.gettempdir())
    return config.state_dir


def _config_here() -> Config | None:
    """The configuration of this terminal; None where there is none that can be read: this is no daemon."""
    try:
        return load_config(Path(os.environ.get("EDGE_AGENT_CONFIG", DEFAULT_CONFIG)))
    except AgentError:
        return None


def _lines(report: Report) -> Iterator[str]:
    machine, enqueue, drain = report.machine, report.enqueue, report.drain
    yield f"{machine.processor}, {machine.cores} cores, {machine.file_system}, load {machine.load:.1f}"
    yield f"Python {machine.python}, SQLite {machine.sqlite}; medians (10 %-90 % of the samples)"
    yield f"sync of one page            {report.sync}"
    yield f"enqueue of {enqueue.picture_bytes // 1000} KB, {enqueue.capture.samples} times by turns"
    yield f"  bare write+fsync, append  {enqueue.append}"
    yield f"  bare write+fsync, file    {enqueue.new_file}"
    yield f"  create                    {enqueue.create}"
    yield f"  commit_capture            {enqueue.capture}"
    yield f"  ratio                     {enqueue.ratio:.2f} (append), {enqueue.ratio_new_file:.2f} (file); goal 2.00"
    yield f"  met from a bare write of  {enqueue.break_even_ms:.2f} ms"
    yield "claim (lease and release) and memory"
    for depth in report.claims:
        yield f"  {depth.rows:>7} rows {depth.claim}"
        yield (
            f"          {depth.ratio:.2f} of ten rows' {depth.short.median_ms:.3f} ms; among waiting users "
            f"{depth.backed_off.median_ms:.3f} ms; start {depth.begin_s:.2f} s; {depth.resident_mb:.0f} MB"
        )
    yield f"  memory growth             {report.memory_growth_mb:+.1f} MB; goal within 10"
    yield f"drain of {drain.rows} captures of {drain.users} users, {drain.turns} turns"
    yield f"  forwarder                 {drain.forwarder_per_s:.0f}/s"
    yield f"  bare loop                 {drain.bare_per_s:.0f}/s; three at once {drain.bare_together_per_s:.0f}/s"
    yield f"  ratio                     {drain.ratio:.2f}; three at once {drain.ratio_together:.2f}; goal 0.60"
