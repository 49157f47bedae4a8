"""Draws an assessment onto its picture: box, landmarks, every check with its value and limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge_agent.types import Assessment, Box, Check, Face, Image

if TYPE_CHECKING:
    from collections.abc import Sequence

Colour = tuple[int, int, int]
"""Blue, green, red."""

GREEN: Final[Colour] = (80, 200, 80)
RED: Final[Colour] = (90, 90, 245)
GREY: Final[Colour] = (150, 150, 150)
WHITE: Final[Colour] = (240, 240, 240)
BACKGROUND: Final = 32

MIN_SIDE_PX: Final = 480
MAX_SIDE_PX: Final = 900
"""The longer side of the shown picture; smaller ones are enlarged, larger ones reduced."""
LINE_PX: Final = 20
GAP_PX: Final = 16
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE: Final = 0.45

Row = tuple[tuple[str, ...], Colour]
"""The cells of one line of the panel, and their colour."""


def annotate(assessment: Assessment, *, accepted: bool | None = None, headline: str = "") -> Image:
    """uint8 (H, W, 3) BGR: the picture beside a panel with the checks, what failed first.

    ``accepted`` overrules the frame's own verdict (a clip can be refused although this frame passed);
    ``headline`` is a line under the verdict, ASCII.
    """
    verdict = assessment.accepted if accepted is None else accepted
    picture, scale = _scaled(assessment.frame.image)
    for i, face in reversed(list(enumerate(assessment.measurement.faces))):
        _draw_face(picture, face, scale, GREY if i else _verdict_colour(passed=verdict))
    return _beside(picture, _panel(assessment.checks, _heading(assessment, headline, accepted=verdict)))


def _verdict_colour(*, passed: bool) -> Colour:
    return GREEN if passed else RED


def _scaled(image: Image) -> tuple[Image, float]:
    """A copy at which a person can look, and its scale."""
    longest = max(image.shape[:2])
    scale = min(1.0, MAX_SIDE_PX / longest) if longest >= MIN_SIDE_PX else MIN_SIDE_PX / longest
    if scale == 1.0:
        return image.copy(), scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8), scale


def _draw_face(picture: Image, face: Face, scale: float, colour: Colour) -> None:
    """Lines as thick as the face is large, so that small faces stay visible beneath them."""
    thickness = max(2, min(3, round(face.box.width * scale / 80)))
    top_left, bottom_right = _corners(face.box, scale, picture)
    cv2.rectangle(picture, top_left, bottom_right, colour, thickness, cv2.LINE_AA)
    for x, y in face.landmarks:
        centre = (round(float(x) * scale), round(float(y) * scale))
        cv2.circle(picture, centre, thickness + 1, WHITE, -1, cv2.LINE_AA)


def _corners(box: Box, scale: float, picture: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """The box in the shown picture; a side outside is drawn on the edge."""
    height, width = picture.shape[:2]
    xs = [min(max(round(x * scale), 0), width - 1) for x in (box.x1, box.x2)]
    ys = [min(max(round(y * scale), 0), height - 1) for y in (box.y1, box.y2)]
    return (xs[0], ys[0]), (xs[1], ys[1])


def _heading(assessment: Assessment, headline: str, *, accepted: bool) -> list[Row]:
    size = f"{assessment.measurement.frame_width} x {assessment.measurement.frame_height} px"
    faces = f"{len(assessment.measurement.faces)} face(s)"
    rows: list[Row] = [(("ACCEPTED" if accepted else "REFUSED",), _verdict_colour(passed=accepted))]
    if headline:
        rows.append(((headline,), WHITE))
    return [*rows, ((f"{faces}, {size}, quality {assessment.quality_score:.2f}",), WHITE)]


def _panel(checks: Sequence[Check], heading: list[Row]) -> Image:
    """A table as wide as its text: mark, measure, value, limit, and the code of what failed."""
    order = {False: 0, True: 1, None: 2}
    table = [(_cells(check), _colour(check)) for check in sorted(checks, key=lambda c: order[c.passed])]
    columns = [max(_text_px(cells[i]) for cells, _ in table) + GAP_PX for i in range(5)] if table else []
    width = max(sum(columns), *(_text_px(cells[0]) for cells, _ in heading)) + 2 * GAP_PX
    panel = np.full((LINE_PX * (len(heading) + len(table) + 2), width, 3), BACKGROUND, np.uint8)
    for i, (cells, colour) in enumerate(heading):
        _write(panel, cells[0], GAP_PX, i, colour)
    for i, (cells, colour) in enumerate(table, len(heading) + 1):
        x = GAP_PX
        for text, column in zip(cells, columns, strict=True):
            _write(panel, text, x, i, colour)
            x += column
    return panel


def _write(panel: Image, text: str, x: int, line: int, colour: Colour) -> None:
    cv2.putText(panel, text, (x, LINE_PX * (line + 1)), FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)


def _text_px(text: str) -> int:
    (width, _), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    return int(width)


def _cells(check: Check) -> tuple[str, ...]:
    mark = "-" if check.passed is None else "ok" if check.passed else "NO"
    value = "not assessed" if check.value is None else f"{check.value:.3g}"
    limit = "" if check.limit is None else f"limit {check.limit:.3g}"
    unit = "" if check.unit == "0-1" or not limit else f" {check.unit}"
    return mark, check.measure, value, limit + unit, check.code.value if check.passed is False else ""


def _colour(check: Check) -> Colour:
    return GREY if check.passed is None else _verdict_colour(passed=check.passed)


def _beside(left: Image, right: Image) -> Image:
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + right.shape[1], 3), BACKGROUND, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] :] = right
    return canvas


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """JPEG bytes without any metadata. Raises ValueError when OpenCV refuses."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("cannot encode the picture as JPEG")
    return bytes(data.tobytes())


def shown_jpeg(image: Image, *, max_side_px: int, quality: int) -> bytes:
    """``image`` as a JPEG for a screen, its longer side reduced to ``max_side_px``. Raises ValueError as encode_jpeg."""
    scale = max_side_px / max(image.shape[:2])
    if scale < 1.0:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return encode_jpeg(image, quality)
