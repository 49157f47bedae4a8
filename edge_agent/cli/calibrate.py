"""``edge-agent calibrate``: a guided measurement with this terminal's camera, in its light."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING

import click

from edge_agent.cli.challenge import challenge_options, turn_rules
from edge_agent.cli.opening import open_models
from edge_agent.cli.options import config_option, load_config, models_dir_option
from edge_agent.cli.stopped import agent_stopped
from edge_agent.texts import hint_text

if TYPE_CHECKING:
    from edge_agent.camera.port import Camera
    from edge_agent.config import Config
    from edge_agent.evaluate.calibration import Collected, Plan
    from edge_agent.evaluate.presentations import Rules
    from edge_agent.evaluate.record import ReportFiles
    from edge_agent.evaluate.turns import Challenge, TurnRules
    from edge_agent.types import GateCode
    from edge_agent.vision.pipeline import Pipeline

CHALLENGE_S = 20.0
"""A presentation may last so much longer when turns are asked for."""
STOP_HINT = "sudo systemctl stop edge-agent, calibrate, then sudo systemctl start edge-agent"


@click.command()
@config_option
@click.option("--pack", help="Model pack.  [default: the configuration's]")
@models_dir_option
@click.option("--bona-fide", type=click.IntRange(1, 10_000), default=20, show_default=True,
              help="Presentations as a customer.")  # fmt: skip
@click.option("--attack", "attacks", multiple=True, metavar="SPECIES",
              help="A species to present; may be repeated.  [default: print, screen]")  # fmt: skip
@click.option("--per-attack", type=click.IntRange(1, 10_000), default=20, show_default=True,
              help="Presentations of each species.")  # fmt: skip
@challenge_options
@click.option("--seconds", type=click.FloatRange(1, 300),
              help="How long each lasts at most.  [default: session.search_timeout_s]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="The report, a new .json; its text goes beside it.  [default: calibration-TERMINAL-TIME.json]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON too (what FILE holds).")
def calibrate(
    config_path: Path,
    pack: str | None,
    models_dir: Path | None,
    bona_fide: int,
    attacks: tuple[str, ...],
    per_attack: int,
    challenge: str | None,
    turn_threshold: float | None,
    mirrored: bool | None,
    seconds: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure this camera in this light: you present yourself, then attacks; a report says how they were judged.

    Proposes thresholds, applies none. The agent has to be stopped: the camera can be had by one process only.
    Exit code 0 when everything was presented, 1 when it was ended before.
    """
    from edge_agent.evaluate.calibration import Collected, Plan, attack_species
    from edge_agent.evaluate.record import ReportFiles

    config = load_config(config_path)
    plan = Plan(bona_fide, attack_species(attacks), per_attack)
    turns = turn_rules(challenge, turn_threshold, mirrored, config.liveness)
    lasts_s = seconds or config.session.search_timeout_s + (CHALLENGE_S if turns else 0.0)
    collected, now = Collected(), datetime.now(UTC)
    with agent_stopped(config, "calibrate", STOP_HINT):
        pipeline = open_models(pack, models_dir, config)
        files = ReportFiles(out or Path(f"calibration-{config.terminal_id}-{now:%Y%m%d-%H%M%S}.json"))
        run = _Run(config, pipeline, files, lasts_s, now, turns)
        try:
            run.measure(plan, collected, as_json=as_json)
        finally:
            if not collected.count:
                files.remove()
                click.echo("nothing was measured, so no report was written", err=True)
    sys.exit(0 if collected.complete else 1)


@dataclass(frozen=True, slots=True)
class _Run:
    """One calibration, from the open camera to the written report."""

    config: Config
    pipeline: Pipeline
    files: ReportFiles
    lasts_s: float
    now: datetime
    turns: TurnRules | None = None

    def measure(self, plan: Plan, collected: Collected, *, as_json: bool) -> None:
        """What was presented is written down, also when the camera is lost (then CameraError is raised)."""
        from edge_agent.camera import open_camera

        with open_camera(self.config.camera) as camera:
            try:
                self._guide(camera, plan, collected)
            finally:
                if collected.count:
                    self._write(camera, collected, as_json=as_json)

    def _guide(self, camera: Camera, plan: Plan, collected: Collected) -> None:
        from edge_agent.evaluate.calibration import Filming, guide

        filming = Filming(
            camera,
            self.pipeline,
            self._rules(),
            lasts_s=self.lasts_s,
            clock=monotonic,
            on_hint=_tell_hint,
            challenge=self._challenge,
        )
        try:
            guide(plan, _ask, filming, _tell, collected)
        except KeyboardInterrupt:
            _tell("ended")

    def _challenge(self) -> Challenge | None:
        from edge_agent.evaluate.turns import live

        return None if self.turns is None else live(self.turns, lambda text: _tell(f"  >> {text}"), SystemRandom())

    def _write(self, camera: Camera, collected: Collected, *, as_json: bool) -> None:
        from edge_agent.evaluate.models import models_of
        from edge_agent.evaluate.record import Scene, record_json, record_lines

        scene = Scene(
            terminal_id=self.config.terminal_id,
            made_at=self.now,
            camera=camera.description,
            frame_size=camera.size,
            models=models_of(self.pipeline.pack),
            rules=self._rules(),
            lasts_s=self.lasts_s,
        )
        self.files.write(scene, collected)
        if as_json:
            click.echo(json.dumps(record_json(scene, collected), allow_nan=False))
        else:
            click.echo("\n".join(record_lines(scene, collected)))
        _tell(f"written: {self.files.json} and {self.files.text}")

    def _rules(self) -> Rules:
        from edge_agent.evaluate.presentations import Rules

        return Rules(self.config.gate, self.config.session, self.turns)


def _ask(prompt: str) -> str | None:
    """One line of the standard input; None when it has ended."""
    click.echo(prompt, err=True)
    line = sys.stdin.readline()
    return line.strip().lower() if line else None


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _tell_hint(code: GateCode | None) -> None:
    _tell(f"  {hint_text(code)}")
