"""How long damaged files that were set aside are kept.

They hold users' wrapped keys and pictures as of then. So they go as soon as anything is erased, they get as old as a
capture at most, and they never take room from captures: they are not counted against ``max_bytes`` when a capture
comes, but give way when both together are more than that, or when the disk runs short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_agent.outbox.ages import Moment, age_s
from edge_agent.outbox.aside import Aside, asides, remove
from edge_agent.outbox.audit import Entry
from edge_agent.outbox.crypto import mac, same
from edge_agent.outbox.forwarding import Forwarding

_PREFIX = "aside:"
MOST_ASIDES = 3
"""Each is as large as a whole outbox."""


def aside_fact(aside: Aside, now: Moment, *, erased: bool = False) -> tuple[str, bytes]:
    """(name, value) of the row of ``meta`` that tells since when files are set aside.

    erased: they hold something that was erased already, so they must go.
    """
    since = {
        "at": now.iso,
        "boot_id": now.instant.boot_id,
        "running_s": now.running_s,
        "erased": erased,
    }
    return f"{_PREFIX}{aside.name}", json.dumps(since).encode()


class AsideRetention(Forwarding):
    """The outbox's hold on what is set aside."""

    def _tend_asides(self) -> None:
        """Destroy what is too old or in the way; note what is there without a note."""
        for aside, why in self._overdue().items():
            self._destroy_aside(aside, why)

    def _destroy_asides(self, why: str) -> None:
        """All of it, at once: every copy may hold what is being erased."""
        for aside in asides(self._state_dir):
            self._destroy_aside(aside, why)

    # -- parts

    @property
    def _state_dir(self) -> Path:
        return self._database.path.parent

    def _overdue(self) -> Mapping[Aside, str]:
        found = asides(self._state_dir)
        if not found:
            return {}
        with self._change() as now:
            facts = {aside: self._fact(aside, now) for aside in found}
            stored = self._query("totals").fetchone()["bytes"]
        if any(fact["erased"] for fact in facts.values()):
            return dict.fromkeys(found, "erasure")
        reasons = {aside: "max_age_s" for aside, fact in facts.items() if self._is_too_old(fact, now)}
        kept = [aside for aside in found if aside not in reasons]
        short = self._reserve.held_bytes < self.limits.reserve_bytes and self._reserve.problem is not None
        while kept and (why := self._in_the_way(kept, stored, short=short)):
            reasons[kept.pop(0)] = why
        return reasons

    def _in_the_way(self, kept: list[Aside], stored: int, *, short: bool) -> str | None:
        if short:
            return "reserve_bytes"
        if stored + sum(aside.bytes for aside in kept) > self.limits.max_bytes:
            return "max_bytes"
        return "max_asides" if len(kept) > MOST_ASIDES else None

    def _fact(self, aside: Aside, now: Moment) -> dict[str, Any]:
        """Since its note; what has none, or a forged one, is noted now."""
        name, value = aside_fact(aside, now)
        row = self._query("meta", name=name).fetchone()
        if row is None or not self._is_fact(name, row["value"], row["mac"]):
            self._query("set_meta", name=name, value=value, mac=mac(self._keys.row, "meta", name, value))
            row = {"value": value}
        fact: dict[str, Any] = json.loads(row["value"])
        return fact

    def _is_too_old(self, fact: Mapping[str, Any], now: Moment) -> bool:
        return age_s(now, running_s=fact["running_s"], boot_id=fact["boot_id"]) >= self.limits.max_age_s

    def _destroy_aside(self, aside: Aside, why: str) -> None:
        size = aside.bytes
        remove(aside.path)
        with self._change() as now:
            self._query("forget_meta", name=f"{_PREFIX}{aside.name}")
            self._chain.append(Entry("aside_destroyed", detail={"aside": aside.name, "why": why, "bytes": size}), now)

    def _is_fact(self, name: str, value: bytes, sealed: bytes | None) -> bool:
        return same(sealed, mac(self._keys.row, "meta", name, value))
