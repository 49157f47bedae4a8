"""The outbox in numbers: how many in which state, how old, why they wait. No row of it, no user, not even a keyed hash."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from edge_agent.bundle.part import Found, Gap, Terminal, as_json
from edge_agent.camera.last_exit import FILE as CAMERA_EXIT
from edge_agent.config import Config
from edge_agent.outbox.database import DATABASE_FILE, KEY_FILE, LOCK_FILE
from edge_agent.outbox.holdings import Holding, Holdings
from edge_agent.outbox.records import Limits, VerificationRecord
from edge_agent.outbox.space import RESERVE_FILE
from edge_agent.outbox.structure import Structure
from edge_agent.types import JsonObject, State

PAGE = 500
MAX_ITEMS = 20_000
"""Captures that are looked at one by one; a fuller queue is described by these, the newest."""
AGES_S = {"under_1_min": 60.0, "under_1_h": 3600.0, "under_1_d": 86_400.0, "under_3_d": 3 * 86_400.0}
_OUR_FILES = (
    DATABASE_FILE,
    f"{DATABASE_FILE}-wal",
    f"{DATABASE_FILE}-shm",
    KEY_FILE,
    LOCK_FILE,
    RESERVE_FILE,
    CAMERA_EXIT,
)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def stored(terminal: Terminal) -> Iterator[Found]:
    """``outbox.json``, counted on a read-only connection: beside an agent or without one, and without the key."""
    config = terminal.config
    if config is None:
        yield Gap("outbox", "the configuration cannot be used: nobody knows where the outbox is")
        return
    clock = terminal.around.sources.clock
    with Structure(config.state_dir, clock) as structure:
        queue, states = structure.queue(), structure.states()
        waiting = _waiting(structure)
    with Holdings(config.state_dir, clock) as holdings:
        held = holdings.holdings(Limits.of(config))
    told: JsonObject = {
        "authenticated": False,
        "states": {state.value: states.get(state.value, 0) for state in State},
        "waiting": queue.depth,
        "parked": queue.parked,
        "being_forwarded": queue.leased,
        "pictures": queue.payload_items,
        "picture_bytes": queue.payload_bytes,
        "oldest_age_s": queue.oldest_age_s,
        "captures": waiting,
        "held": {holding.purpose.name: _held(holding) for holding in held},
        "files": _files(config),
    }
    yield as_json("outbox.json", told, "the outbox in numbers, counted without its key")


def _waiting(structure: Structure) -> JsonObject:
    """What holds a picture, by age and by why it waits."""
    ages, why, attempts = Counter[str](), Counter[str](), Counter[str]()
    for record in _records(structure):
        ages[_age(record.age_s)] += 1
        attempts[str(min(record.attempts, 10))] += 1
        code = record.error_code or "none"
        why[f"{'parked' if record.parked else 'waiting'}: {code if _CODE.fullmatch(code) else 'unknown'}"] += 1
    return {"by_age": dict(ages), "by_error": dict(why), "by_attempts_up_to_10": dict(attempts)}


def _records(structure: Structure) -> Iterator[VerificationRecord]:
    before: int | None = None
    for _ in range(MAX_ITEMS // PAGE):
        page = structure.waiting_list(limit=PAGE, before=before)
        yield from page.items
        before = page.next_before
        if before is None:
            return


def _age(age_s: float) -> str:
    return next((name for name, limit_s in AGES_S.items() if age_s < limit_s), "3_d_and_more")


def _held(holding: Holding) -> JsonObject:
    """Without since when: of one item that would be the time of one person's payment."""
    return {"items": holding.items, "bytes": holding.bytes, "users": holding.users, "kept_s": holding.kept_s}


def _files(config: Config) -> JsonObject:
    """Sizes by name where the name is ours; of the rest how many, because a name may say anything."""
    ours: dict[str, int] = {}
    others = {"files": 0, "bytes": 0}
    for name, size in _sizes(config):
        if name in _OUR_FILES:
            ours[name] = size
        else:
            others = {"files": others["files"] + 1, "bytes": others["bytes"] + size}
    return {**ours, "others": others}


def _sizes(config: Config) -> Iterable[tuple[str, int]]:
    for file in sorted(config.state_dir.iterdir()):
        with suppress(FileNotFoundError):  # it went while we looked
            found = file.lstat()
            yield file.name, found.st_size
