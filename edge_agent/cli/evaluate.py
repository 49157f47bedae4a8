"""``edge-agent evaluate``: how often the models confuse people, and how often attacks pass, on your own material."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from edge_agent.cli.challenge import challenge_options, turn_rules
from edge_agent.cli.opening import open_models
from edge_agent.cli.options import load_config, models_dir_option
from edge_agent.config import Config, GateSection, LivenessSection, SessionSection

if TYPE_CHECKING:
    from edge_agent.types import JsonObject
    from edge_agent.vision.pipeline import Pipeline

T = TypeVar("T")

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
pack_option = click.option("--pack", help="Model pack.  [default: the configuration's, or open]")
config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="Take limits and pack from this file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout (a stable contract).")


@click.group()
def evaluate() -> None:
    """Measure error rates on your own pictures. Nothing is configured by it, nothing is sent."""


@evaluate.command()
@folder_argument
@pack_option
@models_dir_option
@config_option
@click.option(
    "--gate",
    type=click.Choice(["quality", "none"]),
    default="quality",
    show_default=True,
    help="Compare what passes the gate's checks of a single frame (liveness left out), or anything with a face.",
)
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Look for evidence of this cosine.  [default: propose]")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), default="det.png", show_default=True,
              help="Draw the DET curve to this PNG.")  # fmt: skip
@json_option
def match(
    folder: Path,
    pack: str | None,
    models_dir: Path | None,
    config_path: Path | None,
    gate: str,
    threshold: float | None,
    plot: Path,
    as_json: bool,
) -> None:
    """False match and false non-match rates from DIR: one subfolder per identity, with that person's pictures.

    Exit code 0 when it was measured; with --threshold, 1 when the pairs do not show FMR <= 1e-4 there.
    """
    from edge_agent.evaluate.diagrams import det_curve
    from edge_agent.evaluate.match import report, report_json
    from edge_agent.evaluate.models import models_of
    from edge_agent.evaluate.pairs import compare
    from edge_agent.evaluate.people import look_at_people, people_json, pictures_by_person

    pictures = pictures_by_person(folder)
    pipeline, config = _open(pack, models_dir, config_path, with_embedder=True)
    limits = (config.gate if config else GateSection()) if gate == "quality" else None
    people = look_at_people(pictures, pipeline, limits, _watched)
    found, models = report(compare(people.embeddings), len(people.embeddings), threshold), models_of(pipeline.pack)
    det_curve(found, f"DET: pack {models.pack}, embedder {models.embedder}").write(plot)
    if as_json:
        _print_json({**models.as_json(), "gate": gate, **people_json(people), **report_json(found), "plot": str(plot)})
    else:
        from edge_agent.evaluate.lines import match_lines

        _print_lines(match_lines(found, people, models, gate), plot)
    sys.exit(0 if threshold is None or found.evidence.sufficient else 1)


@evaluate.command()
@folder_argument
@pack_option
@models_dir_option
@config_option
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), default="pad.png", show_default=True,
              help="Draw the score histograms to this PNG.")  # fmt: skip
@challenge_options
@json_option
def pad(
    folder: Path,
    pack: str | None,
    models_dir: Path | None,
    config_path: Path | None,
    plot: Path,
    challenge: str | None,
    turn_threshold: float | None,
    mirrored: bool | None,
    as_json: bool,
) -> None:
    """Attack and bona fide error rates from DIR: a subfolder bona_fide, and one per attack species.

    Pictures are judged by the single-frame rules, clips by those of a session. Exit code 0 when it was measured.
    """
    from edge_agent.evaluate.diagrams import score_histograms
    from edge_agent.evaluate.models import models_of
    from edge_agent.evaluate.pad import files_by_group, judge, report_json
    from edge_agent.evaluate.presentations import Rules
    from edge_agent.evaluate.turn_rates import challenge_json, turn_lines, turn_report

    files = files_by_group(folder)
    pipeline, config = _open(pack, models_dir, config_path)
    gate, session = (config.gate, config.session) if config else (GateSection(), SessionSection())
    liveness = config.liveness if config else LivenessSection()
    rules = Rules(gate, session, turn_rules(challenge, turn_threshold, mirrored, liveness))
    found, models = judge(files, pipeline, rules, _watched), models_of(pipeline.pack)
    score_histograms(found, f"pack {models.pack}").write(plot)
    if as_json:
        _print_json({**models.as_json(), **report_json(found), **challenge_json(found, rules), "plot": str(plot)})
    else:
        from edge_agent.evaluate.lines import pad_lines

        turns = turn_report(found, rules)
        _print_lines([*pad_lines(found), *(["", *turn_lines(turns)] if turns else [])], plot)


def _open(
    pack: str | None, models_dir: Path | None, config_path: Path | None, *, with_embedder: bool = False
) -> tuple[Pipeline, Config | None]:
    config = load_config(config_path) if config_path else None
    return open_models(pack, models_dir, config, with_embedder=with_embedder), config


def _watched(files: Sequence[T]) -> Iterable[T]:
    """A progress bar on stderr; none where nobody watches."""
    return _with_bar(files) if sys.stderr.isatty() else files


def _with_bar(files: Sequence[T]) -> Iterator[T]:
    with click.progressbar(files, label="looking", file=sys.stderr) as bar:
        yield from bar


def _print_json(result: JsonObject) -> None:
    click.echo(json.dumps(result, allow_nan=False))


def _print_lines(lines: Iterable[str], plot: Path) -> None:
    for line in lines:
        click.echo(line)
    click.echo(f"drawn: {plot}", err=True)
