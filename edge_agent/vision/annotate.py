"""Draws an assessment onto its picture: box, landmarks, every check with its value and limit."""

from __future__ import annotations

import cv2
import numpy as np

from edge_agent.types import Assessment, Check, Image

GREEN, RED, GREY, WHITE = (80, 200, 80), (60, 60, 230), (150, 150, 150), (240, 240, 240)
LINE_PX = 18
PANEL_PX = 430
MAX_SIDE_PX = 900


def annotate(assessment: Assessment) -> Image:
    """uint8 (H, W, 3) BGR: the picture, scaled down to at most 900 px, beside a panel with the checks."""
    picture, scale = _scaled(assessment.frame.image)
    thickness = max(1, round(min(picture.shape[:2]) / 250))
    for i, face in enumerate(assessment.measurement.faces):
        colour = (GREEN if assessment.accepted else RED) if i == 0 else GREY
        box = face.box
        corners = [round(v * scale) for v in (box.x1, box.y1, box.x2, box.y2)]
        cv2.rectangle(picture, (corners[0], corners[1]), (corners[2], corners[3]), colour, thickness)
        for x, y in face.landmarks:
            cv2.circle(picture, (round(float(x) * scale), round(float(y) * scale)), thickness + 1, WHITE, -1)
    return _beside(picture, _panel(assessment))


def _scaled(image: Image) -> tuple[Image, float]:
    scale = min(1.0, MAX_SIDE_PX / max(image.shape[:2]))
    if scale == 1.0:
        return image.copy(), scale
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _panel(assessment: Assessment) -> Image:
    lines = [("accepted" if assessment.accepted else "refused", GREEN if assessment.accepted else RED)]
    lines += [(_line(check), _colour(check)) for check in assessment.checks]
    panel = np.full((LINE_PX * (len(lines) + 1), PANEL_PX, 3), 32, np.uint8)
    for i, (text, colour) in enumerate(lines):
        place = (8, LINE_PX * (i + 1))
        cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return panel


def _line(check: Check) -> str:
    value = "not assessed" if check.value is None else f"{check.value:.3g}"
    limit = "" if check.limit is None else f" (limit {check.limit:.3g} {check.unit})"
    return f"{check.code.value} / {check.measure}: {value}{limit}"


def _colour(check: Check) -> tuple[int, int, int]:
    return GREY if check.passed is None else GREEN if check.passed else RED


def _beside(left: Image, right: Image) -> Image:
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + right.shape[1], 3), 32, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] :] = right
    return canvas


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """JPEG bytes without any metadata. Raises ValueError when OpenCV refuses."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("cannot encode the picture as JPEG")
    return bytes(data.tobytes())
