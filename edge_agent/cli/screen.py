"""``edge-agent screen``: pre-screen pictures and clips by the gate of a session."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli.options import load_config, models_dir_option
from edge_agent.config import Config, GateSection, SessionSection
from edge_agent.errors import AgentError, CameraError, InputError
from edge_agent.types import Assessment, JsonObject

if TYPE_CHECKING:
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
    Exit code 0 when every file was accepted, 1 when one was not or could not be read.
    """
    from edge_agent.packs.folder import default_models_dir
    from edge_agent.packs.manifest import load_pack
    from edge_agent.vision.pipeline import open_pipeline

    config = load_config(config_path) if config_path else None
    folder = models_dir or (config.models.dir if config else default_models_dir())
    name = pack or (config.models.pack if config else "open")
    pipeline = open_pipeline(load_pack(name), folder, threads=threads)
    screening = _Screening(pipeline, config, annotate)
    accepted = [_print(screening.file(path), as_json=as_json) for path in files]
    sys.exit(0 if all(accepted) else 1)


class _Screening:
    def __init__(self, pipeline: Pipeline, config: Config | None, annotate: Path | None) -> None:
        self._pipeline = pipeline
        self._limits = config.gate if config else GateSection()
        self._session = config.session if config else SessionSection()
        self._annotate = annotate

    def file(self, path: Path) -> JsonObject:
        """The result of one file; an unreadable one is a result too."""
        try:
            assessment, extra = self._clip(path) if _is_clip(path) else self._picture(path)
        except (InputError, CameraError) as exc:
            return _unreadable(path, exc)
        return {**self._result(path, assessment), **extra}

    def _result(self, path: Path, assessment: Assessment) -> JsonObject:
        from edge_agent.report import assessment_json

        result = {"file": str(path), **assessment_json(assessment)}
        if self._annotate is not None:
            result["annotated"] = str(_write_annotated(self._annotate, path, assessment))
        return result

    def _picture(self, path: Path) -> tuple[Assessment, JsonObject]:
        from edge_agent.picture import read_picture
        from edge_agent.screening import Screener
        from edge_agent.types import Frame

        image = read_picture(path)
        return Screener(self._pipeline, self._limits).still(Frame(image, 0.0, 0)), {}

    def _clip(self, path: Path) -> tuple[Assessment, JsonObject]:
        """Play the clip through one session's framing; report the best shot, else the last frame."""
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
        last: Assessment | None = None
        try:
            number = 0
            while (image := clip.image(number)) is not None:
                last = screener.screen(Frame(image, number / clip.fps, number))
                best, _ = framing.add(last)
                if best is not None:
                    return best.assessment, {"frames": number + 1, "votes": best.votes}
                number += 1
        finally:
            clip.close()
        if last is None:
            raise InputError(f"cannot screen {path}: the clip has no frame", code="not_an_image")
        reasons = [reason.value for reason in framing.reasons()]
        return last, {"accepted": False, "reasons": reasons, "frames": number, "votes": 0}


def _is_clip(path: Path) -> bool:
    from edge_agent.camera.clip import CLIP_SUFFIXES

    return path.suffix.lower() in CLIP_SUFFIXES


def _unreadable(path: Path, error: AgentError) -> JsonObject:
    return {
        "file": str(path),
        "accepted": False,
        "reasons": [],
        "faces": 0,
        "box": None,
        "landmarks": None,
        "checks": [],
        "liveness": None,
        "timings_ms": {},
        "error": {"code": error.code, "detail": error.message, "hint": error.hint},
    }


def _write_annotated(folder: Path, path: Path, assessment: Assessment) -> Path:
    from edge_agent.vision.annotate import annotate, encode_jpeg

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}{path.suffix.replace('.', '-')}.annotated.jpg"
    target.write_bytes(encode_jpeg(annotate(assessment)))
    return target


def _print(result: JsonObject, *, as_json: bool) -> bool:
    if as_json:
        click.echo(json.dumps(result))
    elif "error" in result:
        hint = f" ({result['error']['hint']})" if result["error"]["hint"] else ""
        click.echo(f"unreadable  {result['file']}: {result['error']['detail']}{hint}")
    else:
        verdict = "accepted  " if result["accepted"] else "refused   "
        why = f": {', '.join(result['reasons'])}" if result["reasons"] else ""
        click.echo(f"{verdict}  {result['file']}{why}")
    return bool(result["accepted"])
