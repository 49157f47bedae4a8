"""The records that were read lately, for readers that ask again and again (a till that polls, a list of the newest).

A row whose every column, its mac included, is as it was when it was authenticated needs no second authentication and no
second decryption. Only what is committed comes in; a transition always reads anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from edge_agent.outbox.records import VerificationRecord

MOST: Final = 256


class Recent:
    """Used in the store's thread only."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[int, tuple[dict[str, Any], VerificationRecord]] = OrderedDict()

    def find(self, row: dict[str, Any]) -> VerificationRecord | None:
        """The record of this very row, with the age that it had then; None when it has to be read."""
        row_then, record = self._known.get(row["seq"], (None, None))
        if row_then != row:
            return None
        self._known.move_to_end(row["seq"])
        return record

    def keep(self, row: dict[str, Any], record: VerificationRecord) -> None:
        """``record`` is what the authenticated ``row`` says."""
        self._known[row["seq"]] = row, record
        self._known.move_to_end(row["seq"])
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """Something was erased: nothing of it may be left here."""
        self._known.clear()
