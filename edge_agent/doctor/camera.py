"""The camera. The agent's own is never taken from it: while it runs, what it says is all that is known."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from edge_agent.camera import Camera
from edge_agent.camera.guard import DARK_LEVEL, CameraFrozen, ChangeWatch
from edge_agent.config import CameraSection
from edge_agent.doctor.finding import Finding, Limits, failed, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case
from edge_agent.errors import CameraError
from edge_agent.types import Frame

IDS = ("camera.open", "camera.frame_rate", "camera.resolution", "camera.exposure", "camera.sharpness", "camera.frozen")
WATCH_S = 4.0
"""Longer than a frozen camera takes to be noticed."""
READ_S = 2.0
MIN_FRAMES = 3
SLOWEST_FPS = 5.0
"""Five frames of one second have to vote."""
RATE_SHARE = 0.7
BLACK, DARK, BRIGHT, WHITE = 0.03, 0.1, 0.9, 0.97
"""Mean luma of the scene, 0-1: wider than for a face, which has limits of its own (gate.min_luminance)."""
SHARPNESS = Limits(warn=0.35, fail=0.15, unit="0-1", least=True)
"""Of 20 sharp pictures all had 0.47 or more; blurred with a sigma of 8 px at 1280 px width they had 0.13 to 0.28."""
_AIM = "stop the agent and check again: sudo systemctl stop edge-agent; sudo edge-agent doctor --only camera"
CABLE = "reseat its cable, try another one and another port; docs/cameras.md"
_LIGHT = "is the lens covered? Put light on the face, none behind it; docs/cameras.md"
_FOCUS = "clean the lens, take the film off it, focus it on an arm's length; point it at something with edges"


@dataclass(slots=True)
class Watched:
    """What a few seconds of a camera gave."""

    size: tuple[int, int] = (0, 0)
    times_s: list[float] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    digests: set[bytes] = field(default_factory=set)
    frozen: bool = False
    brightest: int = 0
    last: Frame | None = None
    error: CameraError | None = None
    """Why it ended early."""


def camera(case: Case) -> list[Finding]:
    if case.status is not None:
        return _through_agent(case.status["camera"])
    if case.has_agent:
        return [unknown(id_, "an agent may have the camera, and it did not say: see agent.state") for id_ in IDS]
    if case.config is None:
        return case.without_config(*IDS)
    settings = case.config.camera
    if settings.source == "none":
        return [unknown(id_, "camera.source is none: this terminal has no camera") for id_ in IDS]
    try:
        source = case.sources.make_camera(settings)
        description = source.description
        with source:
            watched = _watch(source, case)
    except CameraError as exc:
        told = failed("camera.open", exc.message, exc.hint or CABLE, exc.code)
        return [told, *(unknown(id_, "the camera cannot be opened: see camera.open") for id_ in IDS[1:])]
    return [_opened(description, watched), *_judged(settings, watched)]


def _through_agent(told: dict[str, str]) -> list[Finding]:
    why = "the agent has the camera, and only a closed one can be measured"
    rest = [unknown(id_, why, _AIM) for id_ in IDS[1:]]
    if told["state"] == "lost":
        first = failed("camera.open", told["detail"], told["hint"] or CABLE, told["code"])
    elif told["state"] == "ok":
        first = passed("camera.open", f"the agent used it: {told['detail']}")
    elif told["state"] == "none":
        first = unknown("camera.open", "camera.source is none: this terminal has no camera")
    else:
        first = unknown("camera.open", "the agent did not need it yet: a verification tries it")
    return [first, *rest]


def _watch(source: Camera, case: Case) -> Watched:
    """Look for ``WATCH_S``; the end of the run ends it."""
    from edge_agent.vision.pipeline import picture_digest

    watched, changes = Watched(source.size), ChangeWatch(source.description)
    now = case.sources.clock.monotonic_s
    end_s = now() + WATCH_S
    while now() < end_s and not case.stop.is_set():
        try:
            frame = source.read(READ_S)
            changes.see(frame.image, frame.captured_at_s)
        except CameraFrozen:  # noticed by the camera, or here: not all of them look
            watched.frozen = True
            break
        except CameraError as exc:
            watched.error = exc
            break
        watched.times_s.append(frame.captured_at_s)
        watched.indexes.append(frame.index)
        watched.digests.add(picture_digest(frame.image))
        watched.brightest = max(watched.brightest, int(frame.image[::8, ::8].max()))
        watched.last = frame
    return watched


def _opened(description: str, watched: Watched) -> Finding:
    if watched.error is not None:
        seen = f"after {len(watched.times_s)} frames" if watched.times_s else "at the first frame"
        detail = f"{seen}: {watched.error.message}"
        return failed("camera.open", detail, watched.error.hint or CABLE, watched.error.code)
    return passed("camera.open", description)


def _judged(settings: CameraSection, watched: Watched) -> Iterator[Finding]:
    if watched.last is None or len(watched.times_s) < MIN_FRAMES:
        yield from (unknown(id_, "too few frames came: see camera.open") for id_ in IDS[1:])
        return
    yield _rate(settings, watched)
    yield _resolution(settings, watched)
    yield from _scene(watched.last)
    yield _still(watched)


def _rate(settings: CameraSection, watched: Watched) -> Finding:
    """The median distance of two frames: a pause at the start says nothing of the rate."""
    pairs = zip(pairwise(watched.times_s), pairwise(watched.indexes), strict=True)
    gaps_s = [(later - earlier) / max(1, after - before) for (earlier, later), (before, after) in pairs]
    gap_s = statistics.median(gaps_s)
    if gap_s <= 0:
        return unknown("camera.frame_rate", "the frames carry no time")
    fps, asked = 1.0 / gap_s, settings.fps
    limits = Limits(warn=RATE_SHARE * asked, fail=min(SLOWEST_FPS, RATE_SHARE * asked), unit="fps", least=True)
    mend = "more light (a dark scene needs long exposures), a USB 3 port, a smaller camera.size, MJPG: docs/cameras.md"
    return measured("camera.frame_rate", fps, limits, f"{fps:.1f} frames a second; camera.fps asks for {asked:g}", mend)


def _resolution(settings: CameraSection, watched: Watched) -> Finding:
    id_, turned = "camera.resolution", settings.rotate in {90, 270}
    asked = (settings.size[1], settings.size[0]) if turned else settings.size
    got, wanted = (f"{size[0]}x{size[1]}" for size in (watched.size, asked))
    if watched.size[0] < asked[0] or watched.size[1] < asked[1]:
        mend = "v4l2-ctl --list-formats-ext lists what it can; set camera.size to one of them"
        return warned(id_, f"it delivers {got}, smaller than asked for", mend, got, limit=wanted, unit="px")
    return passed(id_, f"it delivers {got}", got, limit=wanted, unit="px")


def _scene(frame: Frame) -> Iterator[Finding]:
    from edge_agent.vision.scene import measure_scene

    scene = measure_scene(frame.image)
    yield _exposure(scene.luminance, scene.dark_share, scene.bright_share)
    if scene.sharpness is None or scene.luminance < BLACK:
        yield unknown("camera.sharpness", "the scene has no edges to judge", "point it at something with edges")
        return
    detail = f"sharpness of the scene {scene.sharpness:.2f}"
    yield measured("camera.sharpness", scene.sharpness, SHARPNESS, detail, _FOCUS)


def _exposure(luminance: float, dark: float, bright: float) -> Finding:
    id_ = "camera.exposure"
    detail = f"mean luminance {luminance:.2f}; {dark:.0%} black, {bright:.0%} white"
    if luminance < BLACK or luminance > WHITE:
        limit = BLACK if luminance < BLACK else WHITE
        return failed(id_, f"nothing can be seen: {detail}", _LIGHT, luminance, limit=limit, unit="0-1")
    if luminance < DARK or luminance > BRIGHT:
        limit = DARK if luminance < DARK else BRIGHT
        word = "dark" if luminance < DARK else "bright"
        return warned(id_, f"the scene is {word}: {detail}", _LIGHT, luminance, limit=limit, unit="0-1")
    return passed(id_, detail, luminance, limit=DARK, unit="0-1")


def _still(watched: Watched) -> Finding:
    id_, pictures = "camera.frozen", len(watched.digests)
    if watched.frozen:
        detail = f"it repeats its last picture ({pictures} different ones in {len(watched.times_s)} frames)"
        return failed(id_, detail, f"unplug it and plug it in again; {CABLE}", pictures, limit=2, unit="pictures")
    if watched.brightest <= DARK_LEVEL:
        return unknown(id_, "the pictures are black: equal ones prove nothing")
    return passed(
        id_, f"{pictures} different pictures in {len(watched.times_s)} frames", pictures, limit=2, unit="pictures"
    )
