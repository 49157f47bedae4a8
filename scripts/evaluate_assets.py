"""Runs ``edge-agent screen`` over the shared test assets and holds the verdicts against the manifest's labels.

The expectations are written down here per kind of picture, from the manifest's labels. Bona fide must be accepted,
attacks refused for whatever reason, defects refused with their code among the reasons. Everything that came out
otherwise is listed with the values that decided. The project's limits have been looked at on these very pictures, so
the shares are descriptive, not error rates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "../shared/assets"
MEASURES = ("inter_eye", "margin", "yaw", "pitch", "roll", "luminance", "light_uniformity", "sharpness")

DEFECTS: tuple[tuple[str, frozenset[str]], ...] = (
    ("q_dark*", frozenset({"too_dark"})),
    ("q_overexposed*", frozenset({"too_bright"})),
    ("q_defocus*", frozenset({"too_blurry"})),
    ("q_motionblur*", frozenset({"too_blurry"})),
    ("blur_motion_dark*", frozenset({"too_blurry"})),
    ("q_far*", frozenset({"too_far"})),
    ("q_sidelight*", frozenset({"uneven_light"})),
    ("multi_*", frozenset({"multiple_faces"})),
    ("crowd_*", frozenset({"multiple_faces"})),
    ("noface_*", frozenset({"no_face"})),
    ("partial_*", frozenset({"face_cut_off", "not_centered", "no_face"})),
    # the label says where the face looks in the picture; the code says how the customer gets back
    ("pose_left*", frozenset({"turn_left"})),
    ("pose_down*", frozenset({"chin_up"})),
    ("pose_roll*", frozenset({"look_straight"})),
    ("rot_90*", frozenset({"look_straight"})),
)
"""File name pattern -> the codes of which one must be among the reasons."""

NOT_ASSESSED = ("mask_*", "sunglasses_*", "eyes_closed*", "q_jpeg8*")
"""No pack here can tell hidden or closed eyes or mouths, and no check looks for JPEG artefacts: shown, not counted."""

OUT_OF_RANGE = ("LFW 250x250", "small/side face", "320x240")
"""Labels of faces that are too small (or turned) for a kiosk by their making."""
OUT_OF_RANGE_CODES = frozenset({"too_far", "turn_left", "turn_right"})


class Kind(StrEnum):
    """What a picture is by its label."""

    BONA_FIDE = "bona fide"
    OUT_OF_RANGE = "bona fide, out of range"
    ATTACK = "presentation attack"
    DEFECT = "defect"
    NOT_ASSESSED = "not assessed"
    SCENE = "scene"
    """A clip without a label."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is expected of one file."""

    kind: Kind
    codes: frozenset[str] = frozenset()
    species: str = ""
    """Of an attack."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file's label and what ``screen`` said."""

    name: str
    label: Label
    result: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return bool(self.result["accepted"])

    @property
    def right(self) -> bool:
        """True also where nothing is expected."""
        if self.label.kind in {Kind.NOT_ASSESSED, Kind.SCENE}:
            return True
        if self.label.kind is Kind.BONA_FIDE:
            return self.accepted
        return not self.accepted and (not self.label.codes or bool(self.label.codes & set(self.result["reasons"])))


def label_of(item: dict[str, Any]) -> Label:
    """The expectation of one entry of manifest.json."""
    name, category = Path(item["file"]).name, item["category"]
    for pattern, codes in DEFECTS:
        if fnmatch(name, pattern):
            return Label(Kind.DEFECT, codes)
    if any(fnmatch(name, pattern) for pattern in NOT_ASSESSED):
        return Label(Kind.NOT_ASSESSED)
    label = item.get("label") or ""
    if label == "spoof" or label.startswith("not live"):
        return Label(Kind.ATTACK, species=item.get("attack") or category.split(":")[0])
    if item["kind"] == "video" and label != "live":
        return Label(Kind.SCENE)
    if any(mark in f"{category} {item.get('note', '')}" for mark in OUT_OF_RANGE):
        return Label(Kind.OUT_OF_RANGE, OUT_OF_RANGE_CODES)
    return Label(Kind.BONA_FIDE)


def screened(pack: str, files: Sequence[Path], models_dir: Path | None) -> list[dict[str, Any]]:
    """The results of ``edge-agent screen`` in the order of ``files``."""
    command = [sys.executable, "-m", "edge_agent", "screen", "--json", "--pack", pack]
    command += ["--models-dir", str(models_dir)] if models_dir else []
    done = subprocess.run([*command, "--", *map(str, files)], stdout=subprocess.PIPE, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(done.returncode)
    return [json.loads(line) for line in done.stdout.splitlines()]


def evaluate(pack: str, assets: Path, models_dir: Path | None) -> list[Verdict]:
    media = json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]
    results = screened(pack, [assets / item["file"] for item in media], models_dir)
    return [Verdict(item["file"], label_of(item), result) for item, result in zip(media, results, strict=True)]


def summary(pack: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The counts, and the files that came out otherwise than expected."""
    return {
        "pack": pack,
        "bona_fide_accepted": _share(v.accepted for v in _of(verdicts, Kind.BONA_FIDE)),
        "out_of_range_refused": _share(v.right for v in _of(verdicts, Kind.OUT_OF_RANGE)),
        "attacks_accepted": _share(v.accepted for v in _of(verdicts, Kind.ATTACK)),
        "attacks_accepted_by_species": _by_species(_of(verdicts, Kind.ATTACK)),
        "attacks_stopped_by_liveness": _share(
            "spoof_suspected" in v.result["reasons"] for v in _of(verdicts, Kind.ATTACK)
        ),
        "defects_refused": _share(not v.accepted for v in _of(verdicts, Kind.DEFECT)),
        "defects_with_the_right_code": _share(v.right for v in _of(verdicts, Kind.DEFECT)),
        "not_assessed_accepted": _share(v.accepted for v in _of(verdicts, Kind.NOT_ASSESSED)),
        "scenes_accepted": _share(v.accepted for v in _of(verdicts, Kind.SCENE)),
        "wrong": [_wrong(v) for v in verdicts if not v.right],
    }


def _of(verdicts: Iterable[Verdict], kind: Kind) -> list[Verdict]:
    return [v for v in verdicts if v.label.kind is kind]


def _share(flags: Iterable[bool]) -> list[int]:
    """[how many, of how many]."""
    known = list(flags)
    return [sum(known), len(known)]


def _by_species(attacks: Sequence[Verdict]) -> dict[str, list[int]]:
    total = Counter(v.label.species for v in attacks)
    accepted = Counter(v.label.species for v in attacks if v.accepted)
    return {species: [accepted[species], count] for species, count in sorted(total.items())}


def _wrong(verdict: Verdict) -> dict[str, Any]:
    result = verdict.result
    values = {c["measure"]: c["value"] for c in result["checks"] if c["measure"] in MEASURES}
    live = {m["model"]: m["score"] for m in (result["liveness"] or {"models": []})["models"]}
    return {
        "file": verdict.name,
        "kind": verdict.label.kind.value,
        "expected": sorted(verdict.label.codes) or ("accepted" if verdict.label.kind is Kind.BONA_FIDE else "refused"),
        "got": result["reasons"] or ("accepted" if verdict.accepted else "refused"),
        "values": {name: round(value, 2) for name, value in (values | live).items() if value is not None},
    }


def _text(report: dict[str, Any]) -> str:
    lines = [f"pack {report['pack']}"]
    for key, value in report.items():
        if isinstance(value, list) and key != "wrong":
            lines.append(f"  {key.replace('_', ' '):<32}{value[0]:>3} of {value[1]}")
    lines += [
        f"    {species:<40}{accepted} of {total}"
        for species, (accepted, total) in report["attacks_accepted_by_species"].items()
    ]
    lines.append("  otherwise than expected:")
    lines += [_wrong_text(wrong) for wrong in report["wrong"]]
    return "\n".join(lines)


def _wrong_text(wrong: dict[str, Any]) -> str:
    expected, got = (v if isinstance(v, str) else ", ".join(v) for v in (wrong["expected"], wrong["got"]))
    values = " ".join(f"{name}={value:g}" for name, value in wrong["values"].items())
    return f"    {Path(wrong['file']).name}: expected {expected}; got {got}\n        {values}"


def lay_out(assets: Path, folder: Path) -> None:
    """Links to the pictures in the folders that ``edge-agent evaluate`` takes: ``people/`` and ``presentations/``.

    People are those whom the manifest names, without pictures made from another one: a smaller or blurred copy of a
    portrait is no second capture. Presentations are what is labelled bona fide or an attack.
    """
    for item in json.loads((assets / "manifest.json").read_text(encoding="utf-8"))["media"]:
        file, label = assets / item["file"], label_of(item)
        derived = item["source"].startswith("derived")
        if item.get("identity") and file.name.startswith(("id_", "single_")):
            _link(file, folder / "people" / item["identity"])
        if label.kind is Kind.BONA_FIDE and (item["kind"] == "video" or not derived):
            _link(file, folder / "presentations/bona_fide")
        if label.kind is Kind.ATTACK:
            _link(file, folder / "presentations" / label.species.replace("/", " or ").replace(" ", "_"))


def _link(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file.name).symlink_to(file.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="*", default=["open", "open-lite"], metavar="PACK")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object a pack")
    parser.add_argument(
        "--lay-out", type=Path, metavar="DIR", help="only link the files into DIR, for edge-agent evaluate"
    )
    options = parser.parse_args()
    if not (options.assets / "manifest.json").is_file():
        parser.error(f"cannot find {options.assets}/manifest.json: name the folder with --assets")
    if options.lay_out:
        lay_out(options.assets, options.lay_out)
        return
    for pack in options.packs:
        report = summary(pack, evaluate(pack, options.assets, options.models_dir))
        print(json.dumps(report) if options.json else _text(report), flush=True)


if __name__ == "__main__":
    main()
