"""Decommissioning: everything that this terminal holds is destroyed, its keys and credentials first.

The device key goes before the data: from then on nothing of the state directory can be decrypted, wherever it is cut
short. What is done stays done, so the whole can be repeated until it succeeds. Files are removed, and the small ones that
hold a secret are overwritten before; what a flash controller keeps of old blocks is beyond any program.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from edge_agent.config import Config, SecretRef
from edge_agent.errors import ConfigurationError, EnvironmentFault, StorageError
from edge_agent.outbox import keyfile
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.database import DATABASE_FILE, KEY_FILE, LOCK_FILE, StateLock
from edge_agent.outbox.files import sync_folder
from edge_agent.outbox.structure import Structure

CREDENTIALS = "credentials"
"""The folder beside the configuration where the unit takes credentials from."""
CREDENTIAL_STORES = tuple(Path(f"/etc/{name}") for name in ("credstore", "credstore.encrypted"))
"""Where systemd looks for a credential without a path."""
_HARMLESS = frozenset({"models", LOCK_FILE})
"""What may be there before the agent ever ran, or when the last purge had only its lock left to remove."""
_BEGUN = b"purged by edge-agent\n"
"""In the lock of a directory whose purge has begun: whatever is left of it can still be told from somebody else's."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret that the configuration names."""

    key: str
    """Of the configuration, such as ``outbox.key``."""
    reference: str
    paths: tuple[Path, ...]
    """The files that hold it; none where it is no file, or gone."""
    within_reach: bool
    """False for what no program can take away: an environment variable."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is to destroy."""

    state_dir: Path
    files: int
    bytes: int
    secrets: tuple[Secret, ...]
    audit_head: str | None
    """The end of the log that is destroyed, as far as it can be read without the key."""
    others: tuple[Path, ...]
    """Files among the credentials that the configuration does not name: they are left."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """What is gone."""

    files: int
    bytes: int
    secrets: tuple[str, ...]
    """Keys of the configuration whose files were destroyed."""
    left: tuple[str, ...]
    """What a person must see to, in words."""


def take_inventory(config: Config, config_file: Path, clock: Clock) -> Inventory:
    """Look, and refuse what must not be purged. Raises ConfigurationError, EnvironmentFault."""
    folder = config.state_dir
    _refuse_foreign(folder)
    secrets = tuple(_secret(key, ref, config_file.parent / CREDENTIALS) for key, ref in _references(config))
    for path in (path for secret in secrets for path in secret.paths):
        _refuse_indestructible(path)
    files = list(_files(folder))
    size = sum(path.lstat().st_size for path in files)
    named = {path for secret in secrets for path in secret.paths}
    others = tuple(path for path in _files(config_file.parent / CREDENTIALS) if path not in named)
    return Inventory(folder, len(files), size, secrets, _audit_head(folder, clock), others)


def purge(inventory: Inventory) -> Destroyed:
    """Destroy it all. Harmless when it is repeated.

    Raises StorageError ``state_locked`` while an agent uses the directory (nothing is touched then), EnvironmentFault
    ``purge_incomplete`` with everything that could not be removed.
    """
    failed: list[str] = []
    with ExitStack() as stack:
        if inventory.state_dir.exists():
            stack.callback(StateLock(inventory.state_dir).release)
            with contextlib.suppress(OSError):  # a full disk: then only one that is cut short cannot be repeated
                (inventory.state_dir / LOCK_FILE).write_bytes(_BEGUN)
        gone = tuple(secret.key for secret in inventory.secrets if _destroy_secret(secret, failed))
        files, size = _empty(inventory.state_dir, failed)
        if failed:
            raise EnvironmentFault(
                f"cannot destroy everything: {'; '.join(failed)}",
                code="purge_incomplete",
                hint="mend that and repeat the command: it goes on with what is left",
            )
        (inventory.state_dir / LOCK_FILE).unlink(missing_ok=True)  # the last: it marks the directory as ours
    return Destroyed(files, size, gone, tuple(_left(inventory)))


# -- the state directory ----------------------------------------------------------------------------------------------


def _refuse_foreign(folder: Path) -> None:
    """A slip in ``state_dir`` must not cost somebody's home directory."""
    try:
        foreign = bool({entry.name for entry in os.scandir(folder)} - _HARMLESS) and not _is_ours(folder)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise EnvironmentFault(f"cannot look at {folder}: {exc.strerror}", hint="call as root") from exc
    if foreign:
        raise ConfigurationError(
            f"cannot purge {folder}: nothing in it says that it is the state directory of edge-agent",
            code="not_a_state_directory",
            hint="is this the right configuration? What is there was not touched",
        )


def _is_ours(folder: Path) -> bool:
    """By what is in our files, damaged as they may be: others have a ``lock`` and ``keys`` too."""
    database, keys, lock = (folder / name for name in (DATABASE_FILE, KEY_FILE, LOCK_FILE))
    if database.is_file() and database.stat().st_size > 0:
        return True
    if keys.is_file() and keyfile.load(folder) != keyfile.KeyMaterial():
        return True
    return lock.is_file() and lock.stat().st_size == len(_BEGUN) and lock.read_bytes() == _BEGUN


def _files(folder: Path) -> Iterator[Path]:
    """Everything below that is no directory; links are not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in sorted((*names, *_links(parent))))


def _links(parent: str) -> Iterator[str]:
    """Links to directories, which ``os.walk`` lists among the directories."""
    yield from (entry.name for entry in os.scandir(parent) if entry.is_symlink() and entry.is_dir())


def _empty(folder: Path, failed: list[str]) -> tuple[int, int]:
    """Remove what is in the folder but its lock; returns (files, bytes). The folder itself belongs to systemd."""
    files = size = 0
    for path in list(_files(folder)):
        if path == folder / LOCK_FILE:
            continue
        try:
            size += path.lstat().st_size
            path.unlink()
            files += 1
        except OSError as exc:
            failed.append(f"{path} ({exc.strerror})")
    for parent, names, _ in os.walk(folder, topdown=False):
        for name in names:
            _try(failed, Path(parent) / name, os.rmdir)
    if folder.exists():
        sync_folder(folder)
    return files, size


def _audit_head(folder: Path, clock: Clock) -> str | None:
    try:
        with Structure(folder, clock) as structure:
            head = structure.check_audit().head
    except StorageError:
        return None  # none there, or none to be read: what is purged may be damaged
    return None if head is None else str(head)


# -- secrets ----------------------------------------------------------------------------------------------------------


def _references(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, SecretRef]]:
    """Every secret that the configuration names, wherever a section has one."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, SecretRef):
            yield f"{prefix}{name}", value
        elif isinstance(value, BaseModel):
            yield from _references(value, f"{prefix}{name}.")


def _secret(key: str, ref: SecretRef, credentials: Path) -> Secret:
    """A credential's own file is gone with the service; what is destroyed is where the unit takes it from."""
    places: tuple[Path, ...] = () if ref.file is None else (ref.file,)
    if ref.credential is not None:
        places = tuple(folder / ref.credential for folder in (credentials, *CREDENTIAL_STORES))
    paths = tuple(path for path in places if path.is_symlink() or path.exists())
    return Secret(key, str(ref), paths, within_reach=ref.env is None)


def _refuse_indestructible(path: Path) -> None:
    """Before anything is touched: keys that stay beside data that went are the wrong half."""
    if path.exists() and not path.is_file():
        hint = "the configuration names it as a secret: take it out there, and destroy the secret where it comes from"
        raise EnvironmentFault(f"cannot destroy {path}: it is no file", hint=hint)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise EnvironmentFault(f"cannot destroy {path}: its folder may not be written", hint="call as root")


def _destroy_secret(secret: Secret, failed: list[str]) -> bool:
    before = len(failed)
    for path in secret.paths:
        _try(failed, path, _overwrite)
        _try(failed, path, _remove)
    return bool(secret.paths) and len(failed) == before


def _overwrite(path: Path) -> None:
    """Zeros over the content, also of a file that a link leads to or that has other names."""
    if not path.exists():
        return  # a link to nothing
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "it is no file")
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    target = path.resolve()
    path.unlink(missing_ok=True)
    target.unlink(missing_ok=True)
    sync_folder(path.parent)


def _try(failed: list[str], path: Path, action: Callable[[Path], None]) -> None:
    try:
        action(path)
    except OSError as exc:
        failed.append(f"{path} ({exc.strerror})")


def _left(inventory: Inventory) -> Iterator[str]:
    for secret in inventory.secrets:
        if not secret.within_reach:
            yield f"{secret.key}: {secret.reference} is set by whoever starts the agent: remove it there"
    for path in inventory.others:
        yield f"{path}: the configuration does not name it"
