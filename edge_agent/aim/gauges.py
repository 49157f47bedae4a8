"""How the page shows each check of the gate: its name, its scale, and on which side of the limit it passes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edge_agent.types import JsonObject


@dataclass(frozen=True, slots=True)
class Gauge:
    """One line of the page. Values beyond the scale are drawn at its end."""

    group: str
    label: str
    at_least: bool
    """It passes at or above its limit; else at or below."""
    low: float
    high: float
    unit: str


GAUGES: dict[str, Gauge] = {
    "face_score": Gauge("Face", "Face found", True, 0.0, 1.0, ""),
    "second_face_area": Gauge("Face", "Second face", False, 0.0, 1.0, "of largest"),
    "inter_eye": Gauge("Face", "Size: eye to eye", True, 0.0, 240.0, "px"),
    "face_height": Gauge("Face", "Size: height", False, 0.0, 1.2, "of height"),
    "visible_margin": Gauge("Face", "Margin: cut off", True, -1.0, 3.0, "eye dist."),
    "margin": Gauge("Face", "Margin: centred", True, -1.0, 3.0, "eye dist."),
    "yaw": Gauge("Head", "Turned left or right", False, 0.0, 60.0, "°"),
    "pitch": Gauge("Head", "Chin up or down", False, 0.0, 60.0, "°"),
    "roll": Gauge("Head", "Tilted", False, 0.0, 60.0, "°"),
    "too_dark:luminance": Gauge("Light", "Brightness: enough", True, 0.0, 1.0, ""),
    "dark_share": Gauge("Light", "Black parts", False, 0.0, 0.3, "of face"),
    "too_bright:luminance": Gauge("Light", "Brightness: too much", False, 0.0, 1.0, ""),
    "bright_share": Gauge("Light", "White parts", False, 0.0, 0.3, "of face"),
    "light_uniformity": Gauge("Light", "Evenness, left/right", True, 0.0, 1.0, ""),
    "dynamic_range": Gauge("Light", "Contrast", True, 0.0, 8.0, "bits"),
    "motion": Gauge("Sharpness", "Motion", False, 0.0, 4.0, "eye dist./s"),
    "sharpness": Gauge("Sharpness", "Sharpness of the face", True, 0.0, 1.0, ""),
    "eyes_visible": Gauge("Sharpness", "Eyes visible", True, 0.0, 1.0, ""),
    "mouth_visible": Gauge("Sharpness", "Mouth visible", True, 0.0, 1.0, ""),
    "out_of_bounds": Gauge("Liveness", "Crop outside", False, 0.0, 1.0, "of crop"),
    "live": Gauge("Liveness", "Live", True, 0.0, 1.0, ""),
}
"""By ``measure`` of the check, without the model's name; by ``code:measure`` where one quantity has two limits."""


def gauges_json() -> JsonObject:
    """For the page."""
    return {name: asdict(gauge) for name, gauge in GAUGES.items()}
