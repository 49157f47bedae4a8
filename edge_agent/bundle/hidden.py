"""What must not leave, as far as it can be known: every secret that this user can read, every name in the outbox."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edge_agent.bundle.cleaning import Cleaner
from edge_agent.bundle.part import Gap
from edge_agent.config import Config, SecretRef
from edge_agent.doctor.redaction import SHORTEST
from edge_agent.errors import AgentError, ConfigurationError
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.names import Names
from edge_agent.outbox.structure import require_outbox

SECRET_KEYS = frozenset({"api_key", "key", "previous_key", "token", "enrol_token", "admin_token"})
"""Keys of the configuration that name a secret; in a file that cannot be used one may stand there itself."""
_TELLING = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_PLACE = re.compile(r"_(?:SOCK|FILE|DIR|DIRECTORY|PATH|URL|MODE|TYPE)$", re.IGNORECASE)
MAX_SECRET_BYTES = 64 * 1024
NOT_COMPARED = "texts were not compared with the user ids in the outbox"


def secrets(config_path: Path, folders: Iterable[Path], environment: Mapping[str, str]) -> set[bytes]:
    """From the configuration's text (also one that cannot be used), the credential folders and the environment."""
    found = set(_of_configuration(config_path))
    for folder in folders:
        found |= set(_of_folder(folder))
    found |= {value.encode(errors="replace") for name, value in environment.items() if _is_secret(name, value)}
    return {secret for secret in found if len(secret) >= SHORTEST}


def _is_secret(name: str, value: str) -> bool:
    """By the variable's name, as far as its value is not a place or an everyday word: those must stay in the bundle."""
    random = len(value) >= 16 or (len(value) >= 8 and any(c.isdigit() for c in value))
    return random and _TELLING.search(name) is not None and _PLACE.search(name) is None


def _of_configuration(path: Path) -> Iterator[bytes]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError):
        return
    for value in _at_secret_keys(values):
        if isinstance(value, str):
            yield value.encode()
        elif isinstance(value, dict):
            yield from _referred_to(value)


def _at_secret_keys(value: Any) -> Iterator[Any]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if key in SECRET_KEYS:
            yield item
        yield from _at_secret_keys(item)


def _referred_to(value: dict[Any, Any]) -> Iterator[bytes]:
    """Also one that its file shows to others: it is a secret all the same."""
    try:
        ref = SecretRef.model_validate(value)
    except ValidationError:
        return
    try:
        yield ref.read()
    except ConfigurationError:
        path = ref.path()
        yield from _of_file(path) if path is not None else ()


def _of_folder(folder: Path) -> Iterator[bytes]:
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return
    for file in files:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[bytes]:
    try:
        if file.is_file():
            with file.open("rb") as stream:
                content = stream.read(MAX_SECRET_BYTES)
            yield content
            yield content.strip()
    except OSError:
        return


def names(config: Config | None, clock: Clock) -> set[str]:
    """User ids and references. Raises AgentError where they cannot be had; an outbox that is not there has none."""
    if config is None:
        raise ConfigurationError("cannot find the outbox: the configuration cannot be used")
    try:
        require_outbox(config.state_dir)
    except AgentError as exc:
        if exc.code == "storage_missing":
            return set()
        raise
    previous = config.outbox.previous_key
    with Names(config.state_dir, clock) as outbox:
        return outbox.names(config.outbox.key.read(), previous.read() if previous is not None else None)


def cleaner(known_secrets: Iterable[bytes], config: Config | None, clock: Clock) -> tuple[Cleaner, list[Gap]]:
    """What takes all of it out of a text; the gap says that the names are not known."""
    bare = Cleaner(known_secrets)
    try:
        return Cleaner(known_secrets, names(config, clock)), []
    except AgentError as exc:
        why = bare.text(exc.message)
    except Exception as exc:  # the top of the thread that reads them: the bundle goes on without
        why = f"it broke: {type(exc).__name__}"
    return bare, [Gap("names", f"{NOT_COMPARED}: {why}")]
