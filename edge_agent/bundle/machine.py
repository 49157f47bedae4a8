"""The machine and what is installed on it: models, sizes, versions. No serial number, no address, no name of it."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import ssl
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from edge_agent import __version__
from edge_agent.bundle.part import Found, Gap, Terminal, as_json
from edge_agent.config import Config
from edge_agent.doctor.sources import text_of
from edge_agent.packs.manifest import load_pack
from edge_agent.packs.verify import verify_pack
from edge_agent.types import JsonObject

_OS_KEYS: Final = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
_MEMORY: Final = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
_CPU: Final = ("model name", "Model", "Hardware", "CPU part")
"""Of /proc/cpuinfo; on a Pi there is a serial number beside them."""
_DISK_FACTS: Final = ("device/model", "device/name", "device/type", "removable", "ro", "queue/rotational")
"""Of /sys/block; serial numbers and CIDs stay where they are."""
_REAL_DISK = re.compile(r"(?:sd[a-z]+|mmcblk\d+|nvme\d+n\d+|vd[a-z]+)")


def versions(terminal: Terminal) -> Iterator[Found]:
    """``versions.json``."""
    told = {
        "edge_agent": __version__,
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "os": _os_release(terminal),
        "kernel": {"release": platform.release(), "machine": platform.machine()},
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "libraries": _libraries(),
    }
    yield as_json("versions.json", told, "what is installed")


def _os_release(terminal: Terminal) -> JsonObject:
    text = text_of(terminal.around.os_release) or ""
    found = dict(re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?$", text, re.MULTILINE))
    return {key.lower(): terminal.cleaner.text(found[key]) for key in _OS_KEYS if key in found}


def _libraries() -> dict[str, str | None]:
    """Those that the package names, and no others: what else is installed is none of the bundle's business."""
    names = [re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0] for line in metadata.requires("edge-agent") or ()]
    return {name: _version(name) for name in sorted(set(names))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def hardware(terminal: Terminal) -> Iterator[Found]:
    """``hardware.json``."""
    proc, sys_ = terminal.around.sources.proc, terminal.around.sources.sys
    told = {
        "board": _board(proc, sys_),
        "processors": os.cpu_count(),
        "processor": sorted(set(_fields(proc / "cpuinfo", _CPU).values())),
        "memory_kb": {name: int(text.split()[0]) for name, text in _fields(proc / "meminfo", _MEMORY).items()},
        "boottime_s": round(terminal.around.sources.clock.boottime_s()),
        "disks": {disk.name: _disk(disk) for disk in sorted(sys_.glob("block/*")) if _REAL_DISK.fullmatch(disk.name)},
        "file_systems": _file_systems(terminal, proc),
        "cameras": [text_of(name) for name in sorted(sys_.glob("class/video4linux/*/name"))],
    }
    yield as_json("hardware.json", terminal.cleaner.value(told), "the board, its memory and its disks")


def _board(proc: Path, sys_: Path) -> str | None:
    """A device tree's model, else what the firmware of a PC says."""
    tree = text_of(proc / "device-tree/model") or text_of(sys_ / "firmware/devicetree/base/model")
    names = [text_of(sys_ / f"class/dmi/id/{part}") for part in ("sys_vendor", "product_name")]
    return tree.strip("\0") if tree else " ".join(name for name in names if name) or None


def _fields(file: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in (text_of(file) or "").splitlines() if ":" in line)
    return {name.strip(): text.strip() for name, text in pairs if name.strip() in wanted and text.strip()}


def _disk(disk: Path) -> JsonObject:
    sectors = text_of(disk / "size") or ""
    facts: dict[str, Any] = {fact: text_of(disk / fact) for fact in _DISK_FACTS}
    known = {name: text for name, text in facts.items() if text is not None}
    return {"bytes": int(sectors) * 512 if sectors.isdigit() else None, **known}


def _file_systems(terminal: Terminal, proc: Path) -> JsonObject:
    places = {"root": Path("/")} | ({"state": terminal.config.state_dir} if terminal.config else {})
    return {name: _file_system(place, proc) for name, place in places.items()}


def _file_system(place: Path, proc: Path) -> JsonObject | None:
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    share = found.f_favail / found.f_files if found.f_files else None
    kind = _kind(place.resolve(), proc)
    return {
        "type": kind,
        "bytes": total,
        "free_bytes": free,
        "free_inodes_share": None if share is None else round(share, 3),
    }


def _kind(place: Path, proc: Path) -> str | None:
    """The type of the mount that holds it; its options may hold a password, and are not looked at."""
    mounts = [line.split() for line in (text_of(proc / "mounts") or "").splitlines()]
    holding = [(len(fields[1]), fields[2]) for fields in mounts if len(fields) > 2 and place.is_relative_to(fields[1])]
    return max(holding, default=(0, None))[1]


def models(terminal: Terminal) -> Iterator[Found]:
    """``models.json``."""
    config = terminal.config
    if config is None:
        yield Gap("models", "the configuration cannot be used: nobody knows which models")
        return
    yield as_json("models.json", _pack(config, terminal), "the files of the model pack against their hashes")


def _pack(config: Config, terminal: Terminal) -> JsonObject:
    pack = load_pack(config.models.pack)
    clean = terminal.cleaner.text
    files = [
        {"name": clean(report.name), "state": report.state.value, "sha256": pack.files[report.name].sha256,
         "bytes": pack.files[report.name].size, "detail": clean(report.detail)}
        for report in verify_pack(pack, config.models.dir)
    ]  # fmt: skip
    return {"pack": clean(pack.name), "title": clean(pack.title), "commercial_use": pack.commercial_use, "files": files}
