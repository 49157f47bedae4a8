"""The scratch folder of a run: the models of both sides, the frames that all see, compiled modules of its own."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import yaml

from edge_agent.camera.sway import SwayingStill
from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import builtin_dir, load_pack, read_manifest
from edge_agent.picture import read_picture
from edge_agent.types import Image
from scripts.benches.addon import as_addon

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("EDGE_AGENT_ASSETS", ROOT.parent / "shared/assets"))
DETECTOR = ASSETS / "models/insightface/det_500m.onnx"
LIVENESS = ASSETS / "models/minifas/2.7_80x80_MiniFASNetV2.onnx"
YUNET = ASSETS / "models/yunet/yunet_n_dynamic.onnx"
PICTURE = ASSETS / "images/frame_1280x720_obama.jpg"
PACKS = ("open", "scrfd-minifas")
SIZE = (1280, 720)
FRAMES = 16
FPS = 30.0
OURS = {"OPENBLAS_NUM_THREADS", "PYDANTIC_DISABLE_PLUGINS"}
"""What importing edge_agent sets in this process: InsightFace starts as it would without us."""


class Stage:
    """Made once per run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        for pack in PACKS:
            fetch_pack(load_pack(pack), self.models, from_path=ASSETS / "models")
        # As pip leaves an installed package: compiled. A checkout on a read-only disk, or under
        # PYTHONDONTWRITEBYTECODE, would compile its modules at every start.
        self.environment = {k: v for k, v in os.environ.items() if k not in OURS | {"PYTHONDONTWRITEBYTECODE"}}
        self.environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "ORT_DISABLE_TELEMETRY": "1"}
        self.environment["PYTHONPATH"] = str(ROOT)

    @cached_property
    def insightface_root(self) -> Path:
        """With InsightFace's detector as the model package ``bench``."""
        theirs = self.folder / "insightface/models/bench"
        theirs.mkdir(parents=True)
        shutil.copy(DETECTOR, theirs)
        return self.folder / "insightface"

    @cached_property
    def addon(self) -> Path:
        """The liveness that InsightFace's own class can run."""
        path = self.folder / "addon.onnx"
        path.write_bytes(as_addon(LIVENESS.read_bytes()))
        return path

    @cached_property
    def clip(self) -> Path:
        """The picture as a camera sends it: motion JPEG, 15 frames a second, moving by a pixel, no two equal."""
        path = self.folder / "camera.avi"
        image = read_picture(PICTURE)
        height, width = image.shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15.0, (width, height))
        for number in range(60):
            writer.write(np.roll(image, number, axis=1))
        writer.release()
        return path

    @cached_property
    def frames(self) -> Path:
        """uint8 (FRAMES, 720, 1280, 3) BGR: the picture swaying as a person does."""
        path = self.folder / "frames.npy"
        still = SwayingStill(read_picture(PICTURE), SIZE)
        shown: list[Image] = [still.frame(number, number / FPS) for number in range(FRAMES)]
        np.save(path, np.stack(shown))
        return path

    def one_model_pack(self, input_px: int) -> str:
        """A pack file: ``scrfd-minifas`` with a detector of that input, and one MiniFASNet."""
        value = read_manifest(builtin_dir() / "scrfd-minifas.yaml")
        value["name"] = f"scrfd-one-{input_px}"
        value["detector"]["input_px"] = [input_px, input_px]
        value["liveness"] = [model for model in value["liveness"] if model["name"] == "minifasnet"]
        value["liveness"][0]["members"] = value["liveness"][0]["members"][:1]
        unused = {"fr_liveness.onnx", "minifasnet_v1se_80x80.onnx"}
        value["files"] = {name: file for name, file in value["files"].items() if name not in unused}
        path = self.folder / f"{value['name']}.yaml"
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return str(path)
