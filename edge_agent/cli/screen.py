"""``edge-agent screen``: pre-screen pictures and clips by the gate of a session."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.opening import open_models
from edge_agent.cli.options import load_config, models_dir_option
from edge_agent.config import Config, GateSection, SessionSection
from edge_agent.errors import CameraError, EnvironmentFault, InputError, ModelError
from edge_agent.types import Assessment, JsonObject

if TYPE_CHECKING:
    from edge_agent.session import BestShot
    from edge_agent.vision.pipeline import Pipeline


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--pack", help="Model pack: a name, or the path of a pack file.  [default: the configuration's, or open]")
@models_dir_option
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Take limits and pack from this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout (a stable contract).")
@click.option("--annotate", type=click.Path(path_type=Path, file_okay=False), help="Write annotated pictures here.")
@click.option("--threads", type=click.IntRange(0, 64), default=0, help="Threads per model; 0 = the measured default.")
def screen(
    files: tuple[Path, ...],
    pack: str | None,
    models_dir: Path | None,
    config_path: Path | None,
    as_json: bool,
    annotate: Path | None,
    threads: int,
) -> None:
    """Pre-screen pictures and clips, one result each.

    A picture is judged by the rules for a single frame, a clip by the rules of a session (best shot, vote).
    Exit code 0 when every file was accepted, 1 when one was refused or could not be used, 2 for a mistake in the
    command line or the configuration, 3 when a model is missing, altered or fails.
    """
    config = load_config(config_path) if config_path else None
    annotations = _Annotations(annotate) if annotate else None
    pipeline = open_models(pack, models_dir, config, threads)
    screening = _Screening(pipeline, config, annotations)
    for path in files:
        _print(screening.file(path), as_json=as_json)
    if not as_json and len(files) > 1:
        click.echo(f"{screening.accepted} of {len(files)} accepted", err=True)
    sys.exit(screening.exit_code(len(files)))


class _Screening:
    """Judges file after file and counts."""

    def __init__(self, pipeline: Pipeline, config: Config | None, annotations: _Annotations | None) -> None:
        self._pipeline = pipeline
        self._limits = config.gate if config else GateSection()
        self._session = config.session if config else SessionSection()
        self._annotations = annotations
        self.accepted = 0
        self._model_failed = False

    def exit_code(self, files: int) -> int:
        if self._model_failed:
            return EnvironmentFault.exit_code
        return 0 if self.accepted == files else 1

    def file(self, path: Path) -> JsonObject:
        """The result of one file; one that cannot be used is a result too."""
        from edge_agent.report import unusable_json

        try:
            assessment, result = self._judge(path)
        except (InputError, CameraError, ModelError) as exc:
            self._model_failed |= isinstance(exc, ModelError)
            return {"file": str(path), **unusable_json(exc)}
        self.accepted += result["accepted"]
        if self._annotations is not None:
            result["annotated"] = str(self._annotations.write(path, assessment, result))
        return {"file": str(path), **result}

    def _judge(self, path: Path) -> tuple[Assessment, JsonObject]:
        """Raises InputError or CameraError for a file that cannot be used, ModelError for a model that fails."""
        try:
            return self._clip(path) if _is_clip(path) else self._picture(path)
        except OSError as exc:  # a name that is too long, a folder that may not be entered
            raise InputError(f"cannot read {path}: {exc.strerror}", code="picture_unreadable") from exc

    def _picture(self, path: Path) -> tuple[Assessment, JsonObject]:
        from edge_agent.picture import read_picture
        from edge_agent.report import assessment_json
        from edge_agent.screening import Screener
        from edge_agent.types import Frame

        image = read_picture(path)
        assessment = Screener(self._pipeline, self._limits).still(Frame(image, 0.0, 0))
        return assessment, assessment_json(assessment)

    def _clip(self, path: Path) -> tuple[Assessment, JsonObject]:
        """Play the clip through one session's framing: the best shot, else the frame that came nearest to one."""
        from edge_agent.camera.clip import Clip
        from edge_agent.screening import Screener
        from edge_agent.session import Framing
        from edge_agent.types import Frame

        clip = Clip(path, default_fps=10.0, loop=False)
        screener = Screener(self._pipeline, self._limits)
        framing = Framing(
            liveness_frames=self._session.liveness_frames,
            window_s=self._session.capture_window_s,
            hint_hold_s=self._session.hint_hold_s,
            started_at_s=-1.0,
        )
        nearest: Assessment | None = None
        failed = False
        number = 0
        try:
            while (image := clip.image(number)) is not None:
                frame = Frame(image, number / clip.fps, number)
                seen = screener.screen(frame, whole=framing.may_decide(frame.captured_at_s))
                best, _ = framing.add(seen)
                number += 1
                if best is not None:
                    return best.assessment, _accepted_clip(best, number)
                failed |= bool(seen.reasons)
                nearest = seen if nearest is None or _nearness(seen) > _nearness(nearest) else nearest
        finally:
            clip.close()
        if nearest is None:
            raise InputError(f"cannot screen {path}: the clip has no frame", code="not_an_image")
        return nearest, _refused_clip(nearest, [r.value for r in framing.reasons()] if failed else [], number)


def _nearness(assessment: Assessment) -> tuple[bool, bool, int, float]:
    """Larger for a frame that is nearer to qualifying."""
    failed = sum(check.passed is False for check in assessment.checks)
    return assessment.measurement.face is not None, assessment.accepted, -failed, assessment.quality_score


def _accepted_clip(best: BestShot, frames: int) -> JsonObject:
    """The best shot, with the vote's liveness (medians) instead of this frame's."""
    from edge_agent.report import assessment_json, liveness_json

    shot = best.assessment
    vote = {"liveness": liveness_json(best.liveness), "frames": frames, "frame": shot.frame.index, "votes": best.votes}
    return {**assessment_json(shot), **vote}


def _refused_clip(nearest: Assessment, reasons: list[str], frames: int) -> JsonObject:
    """The reasons are the clip's (what kept most frames from qualifying), the rest describes the nearest frame."""
    from edge_agent.report import assessment_json

    verdict = {"accepted": False, "reasons": reasons}
    return {**assessment_json(nearest), **verdict, "frames": frames, "frame": nearest.frame.index, "votes": 0}


def _is_clip(path: Path) -> bool:
    from edge_agent.camera.clip import CLIP_SUFFIXES

    return path.suffix.lower() in CLIP_SUFFIXES


class _Annotations:
    """Annotated pictures in one folder, a name of its own each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise _cannot_write(folder, exc) from exc

    def write(self, path: Path, assessment: Assessment, result: JsonObject) -> Path:
        from edge_agent.vision.annotate import annotate, encode_jpeg

        where = f"frame {result['frame']} of {result['frames']}: " if "frames" in result else ""
        headline = where + ", ".join(result["reasons"])
        picture = annotate(assessment, accepted=result["accepted"], headline=headline)
        target = self._folder / self._free_name(f"{path.stem}{path.suffix.replace('.', '-')}")
        try:
            target.write_bytes(encode_jpeg(picture))
        except OSError as exc:
            raise _cannot_write(target, exc) from exc
        return target

    def _free_name(self, stem: str) -> str:
        """Files of the same name in several folders do not overwrite one another."""
        name, number = f"{stem}.annotated.jpg", 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}.annotated.jpg"
        self._names.add(name)
        return name


def _cannot_write(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot write annotated pictures to {path}: {error.strerror}", hint="choose another folder with --annotate"
    )


def _print(result: JsonObject, *, as_json: bool) -> None:
    from edge_agent.report import line

    click.echo(json.dumps(result, allow_nan=False) if as_json else line(result))
