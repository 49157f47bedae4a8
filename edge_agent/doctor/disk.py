"""The disk of the state directory: room, speed, wear, errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edge_agent.doctor.finding import Finding, Limits, failed, measured, passed, unknown, warned
from edge_agent.doctor.sources import Case, text_of
from edge_agent.outbox.space import RESERVE_FILE, room_for

ROOM_WARN_BYTES = 256 << 20
PICTURE_BYTES = 200_000
"""A large capture."""
WRITE = Limits(warn=100.0, fail=1000.0, unit="ms")
"""A capture is durable after a few of these; the customer waits for them."""
_WORN = 0x0B
"""JEDEC JESD84-B51: beyond the estimated life time; 1 to 10 are tenths of it."""
_FREE_IT = "free some: du -xh / | sort -h | tail; journalctl --vacuum-size=50M"
RENEW = "renew the card or disk; keep the queue: docs/durability.md"
_NO_ENTRY = "call as root: sudo edge-agent doctor"


def space(case: Case) -> list[Finding]:
    if case.config is None:
        return case.without_config("disk.space")
    folder = _existing(case.config.state_dir)
    free = case.sources.disk_free(folder)
    needed = _needed(case)
    limits = Limits(warn=max(ROOM_WARN_BYTES, needed) / 1e6, fail=needed / 1e6, unit="MB", least=True)
    told = case.status["storage"] if case.status else {}
    if told.get("takes_captures") is False:
        why = told.get("problem") or "too little room"
        return [failed("disk.space", f"the agent takes no captures: {why}", _FREE_IT, free / 1e6, limit=limits.fail, unit="MB")]  # fmt: skip
    return [measured("disk.space", free / 1e6, limits, f"{free / 1e6:.0f} MB are free at {folder}", _FREE_IT)]


def _needed(case: Case) -> int:
    """For one more capture; what is set aside already need not be free."""
    if case.config is None:
        return room_for(PICTURE_BYTES)
    try:
        set_aside = (case.config.state_dir / RESERVE_FILE).stat().st_blocks * 512
    except OSError:
        set_aside = 0
    return room_for(PICTURE_BYTES) + max(0, case.config.outbox.reserve_bytes - set_aside)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that this user can see."""
    return next((place for place in (folder, *folder.parents) if os.access(place, os.F_OK)), Path("/"))


def write(case: Case) -> list[Finding]:
    id_ = "disk.write"
    if case.config is None:
        return case.without_config(id_)
    folder = case.config.state_dir
    try:
        took_ms = case.sources.write_ms(folder)
    except FileNotFoundError:
        return [unknown(id_, f"{folder} is not there yet: the agent makes it")]
    except PermissionError:
        return [unknown(id_, f"this user may not write in {folder}", _NO_ENTRY)]
    except OSError as exc:
        return [failed(id_, f"cannot write in {folder}: {exc.strerror}", _mend_of(exc))]
    mend = "another program may keep the disk busy (iotop); a slow or worn card: renew it"
    return [measured(id_, took_ms, WRITE, f"a page is on the disk after {took_ms:.1f} ms", mend)]


def _mend_of(exc: OSError) -> str:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _FREE_IT
    if exc.errno == errno.EROFS:
        return f"dmesg says why it is read-only; mount it anew, or {RENEW}"
    return f"dmesg says more; {RENEW}"


def wear(case: Case) -> list[Finding]:
    id_ = "disk.wear"
    if case.config is None:
        return case.without_config(id_)
    device = block_device(case.sources.sys, _existing(case.config.state_dir))
    if device is None:
        return [unknown(id_, "the state directory is on no disk that the kernel names")]
    spans = (text_of(device / "device/life_time") or "").split()
    tenths = [int(span, 16) for span in spans if span.startswith("0x")]
    if not any(tenths):
        return [unknown(id_, f"{device.name} does not tell (only eMMC does; an SSD: smartctl -a /dev/{device.name})")]
    return [_worn(id_, device.name, max(tenths), text_of(device / "device/pre_eol_info"))]


def _worn(id_: str, name: str, tenths: int, end_of_life: str | None) -> Finding:
    used = min(tenths * 10, 110)
    detail = f"{name}: up to {used} % of its life time are used"
    if tenths >= _WORN or end_of_life == "0x03":
        return failed(id_, f"{name} is at the end of its life", RENEW, used, limit=100, unit="%")
    if tenths >= 9 or end_of_life == "0x02":
        return warned(id_, detail, RENEW, used, limit=80, unit="%")
    return passed(id_, detail, used, limit=80, unit="%")


def errors(case: Case) -> list[Finding]:
    """ext4 counts what went wrong since the last check of the file system."""
    id_ = "disk.errors"
    if case.config is None:
        return case.without_config(id_)
    partition = _partition(case.sources.sys, _existing(case.config.state_dir))
    count = text_of(case.sources.sys / "fs/ext4" / partition.name / "errors_count") if partition else None
    if partition is None or count is None or not count.isdigit():
        return [unknown(id_, "the file system does not count them (only ext4 does)")]
    if int(count):
        mend = f"look at dmesg, check it at the next boot (fsck.mode=force), or {RENEW}"
        return [failed(id_, f"{partition.name} met {count} errors", mend, int(count), limit=0)]
    return [passed(id_, f"{partition.name} met none", 0, limit=0)]


def _partition(sys: Path, folder: Path) -> Path | None:
    """The kernel's folder of what holds ``folder``: a partition or a whole disk."""
    device = folder.stat().st_dev
    found = sys / "dev/block" / f"{os.major(device)}:{os.minor(device)}"
    return found.resolve() if found.exists() else None


def block_device(sys: Path, folder: Path) -> Path | None:
    """The disk that holds ``folder``, as the kernel's folder of it."""
    found = _partition(sys, folder)
    if found is not None and (found / "partition").exists():
        return found.parent
    return found
