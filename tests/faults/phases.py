"""In which phase of its work a life of the process under test was cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tests.faults.ledger import Line

Phase = Literal["start", "enqueue", "upload", "match", "commit"]
PHASES: tuple[Phase, ...] = ("start", "enqueue", "upload", "match", "commit")


def phases_at_the_end(lines: Iterable[Line]) -> set[Phase]:
    """The phases that were under way after the last of these lines; several users may be in different ones.

    ``enqueue``: between the intent to store a capture and its acknowledgement. ``upload``: from generate-url to the
    end of the PUT. ``match``: until the answer. ``commit``: between the answer and the line that follows the commit.
    """
    open_: dict[str, Phase] = {"": "start"}
    for line in lines:
        user = line.get("user", "")
        match line["event"]:
            case "started":
                del open_[""]
            case "creating":
                open_["the enqueuer"] = "enqueue"
            case "ack" | "refused":
                open_.pop("the enqueuer", None)
            case "url" | "put":
                open_[user] = "upload"
            case "match":
                open_[user] = "match"
            case "answered":
                open_[user] = "commit"
            case "gave_up" | "final":
                open_.pop(user, None)
    return set(open_.values())
