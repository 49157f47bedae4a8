"""What lies outside the releases: units, drop-in, users' description, configuration and keys."""

from __future__ import annotations

import secrets
from pathlib import Path

from scripts.installer.hands import Hands
from scripts.installer.places import UNITS, Places
from scripts.installer.refusal import USAGE, CannotInstall

EXAMPLE = "docs/config.example.yaml"


def put_users(hands: Hands, places: Places, source: Path) -> None:
    """The descriptions of the user and of the folders, from the ``systemd`` folder ``source``."""
    hands.write(places.sysusers, (source / "edge-agent.sysusers.conf").read_bytes())
    hands.write(places.tmpfiles, (source / "edge-agent.tmpfiles.conf").read_bytes())


def put_units(hands: Hands, places: Places, source: Path, board: str) -> bool:
    """The units and the board's device lines; True when one changed."""
    changed = [hands.write(places.units / unit, (source / unit).read_bytes()) for unit in UNITS]
    if board != "none":
        changed.append(hands.write(places.board, (source / f"drop-ins/{board}.conf").read_bytes()))
    elif places.board.exists():
        hands.remove(places.board)
        changed.append(True)
    return any(changed)


def put_folders(hands: Hands, places: Places) -> None:
    """Where there are no tmpfiles.d to do it."""
    hands.folder(places.etc, 0o750)
    hands.folder(places.credentials, 0o700)
    hands.folder(places.state, 0o700)


def put_device_key(hands: Hands, places: Places) -> None:
    """A new key where there is none. Raises CannotInstall when there is a queue that only a lost key can open."""
    if places.device_key.exists():
        return
    if (places.state / "outbox.db").exists():
        raise CannotInstall(
            f"cannot make a device key: {places.state} holds an outbox that another key encrypted, and that key is gone",
            hint=f"put the key back at {places.device_key}, or, if its captures may be lost, move {places.state} away",
        )
    hands.write(places.device_key, secrets.token_hex(32).encode(), mode=0o600)


def put_api_key(hands: Hands, places: Places, given: Path | None) -> None:
    """The key that was given; one that is there already stays unless another is given."""
    if given is not None:
        key = read(given).strip()
        if not key:
            raise CannotInstall(f"cannot use the API key in {given}: the file is empty", exit_code=USAGE)
        hands.write(places.api_key, key, mode=0o600)


def put_config(hands: Hands, places: Places, given: Path | None, example: Path, group: str | None) -> None:
    """The one that was given, else the example; one that is there already stays."""
    if places.config.exists():
        if given is not None and read(given) != places.config.read_bytes():
            raise CannotInstall(
                f"cannot install {given}: {places.config} is there already",
                hint=f"compare them; then edit {places.config}, or move it away",
                exit_code=USAGE,
            )
        if group is not None:
            hands.let_read(places.config, group)
        return
    hands.write(places.config, read(given or example), mode=0o640, group=group)


def read(path: Path) -> bytes:
    """Raises CannotInstall."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CannotInstall(f"cannot read {path}: {exc.strerror}", exit_code=USAGE) from exc
