"""What was told: by the process under test to whoever relies on it, and by the service about what it judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edge_agent.sandbox.matcher import Comparison
from edge_agent.sandbox.server import SandboxServer
from edge_agent.sandbox.state import Picture, Upload

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A capture that the outbox took: from here on it may not be lost."""

    id: str
    sha256: str
    user: str
    seq: int
    live: bool


STORE_ERRORS = {"storage_full", "storage_failed"}
"""With these the forwarder ends a sequence between two steps, which the client cannot tell."""


@dataclass(slots=True)
class Ledger:
    """Everything the process under test told, over all its lives."""

    acknowledged: dict[str, Acknowledged] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    """Name -> bytes of every picture that it was about to store."""
    ends: dict[str, list[str]] = field(default_factory=dict)
    """Final states announced per capture, parked ones excepted, repetitions left out."""
    parked: set[str] = field(default_factory=set)
    """Captures that were ever set aside: they leave the order."""
    heads: list[str] = field(default_factory=list)
    """Audit heads, ``SEQ:MAC``, in the order in which they were noted."""
    deleted: set[str] = field(default_factory=set)
    """Users that were destroyed."""
    problems: list[str] = field(default_factory=list)
    """Sequences of one user that the process itself ran into each other."""

    def absorb(self, lines: Iterable[Line]) -> None:
        """Take in what one life of the process told."""
        busy: set[str] = set()
        for line in lines:
            self._absorb(line)
            self._follow(line, busy)

    def _absorb(self, line: Line) -> None:
        match line["event"]:
            case "creating":
                self.pictures[line["picture"]] = line["bytes"]
            case "ack":
                named = {name: line[name] for name in ("id", "sha256", "user", "seq", "live")}
                self.acknowledged[line["id"]] = Acknowledged(**named)
            case "final" if line["parked"]:
                self.parked.add(line["id"])
            case "final" if line["state"] not in self.ends.setdefault(line["id"], [])[-1:]:
                self.ends[line["id"]].append(line["state"])
            case "deleted":
                self.deleted.add(line["user"])
        if line.get("head", "None") != "None":
            self.heads.append(line["head"])

    def _follow(self, line: Line, busy: set[str]) -> None:
        user = line.get("user", "")
        match line["event"]:
            case "url" if user in busy:
                self.problems.append(f"a sequence of {user} began while another one was under way")
            case "url":
                busy.add(user)
            case "answered" | "gave_up":
                busy.discard(user)
            case "state" if line.get("error") in STORE_ERRORS:
                busy.discard(user)  # the store failed between two steps: the capture was given back


@dataclass(frozen=True, slots=True)
class Act:
    """One thing the service did, in the order of its event loop."""

    kind: Literal["url", "put", "match", "judged", "refused"]
    user: str
    image_name: str = ""
    sha256: str = ""
    outcome: str = ""
    at_s: float = 0.0
    """By the service's clock."""
    lands_at_s: float = 0.0
    """Of a ``put``: until then the picture is still on its way, whatever its sender was told."""


class ServiceRecord:
    """What the sandbox did for whom; unlike its own state it forgets nothing."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.tokens: list[str] = []

    @classmethod
    def of(cls, server: SandboxServer) -> ServiceRecord:
        """Listen to ``server`` from now on."""
        record = cls()
        record.listen(server)
        return record

    def listen(self, server: SandboxServer) -> None:
        """Listen to this one too: the same service after a restart."""
        sandbox = server.sandbox
        receive, judge, new_url, new_token = (
            sandbox.receive_picture,
            sandbox.match,
            sandbox.new_upload_url,
            sandbox.new_token,
        )

        def new_upload_url(upload: Upload, *, host: str, path: str) -> str:
            if upload.type == "match":
                self.acts.append(Act("url", upload.user_id, upload.image_name))
            return new_url(upload, host=host, path=path)

        async def receive_picture(upload: Upload, content: bytes, *, late_s: float = 0.0) -> Picture:
            stored = await receive(upload, content, late_s=late_s)
            if upload.type == "match":
                sent = Act("put", upload.user_id, upload.image_name, stored.sha256)
                self.acts.append(replace(sent, at_s=stored.received_at_s, lands_at_s=stored.lands_at_s))
            return stored

        async def match(user_id: str) -> Comparison:
            self.acts.append(Act("match", user_id, at_s=sandbox.clock.now_s()))
            try:
                comparison = await judge(user_id)
            except BaseException:
                self.acts.append(Act("refused", user_id))
                raise
            last = next(j for j in reversed(server.state.saved.judgements) if j.user_id == user_id)
            self.acts.append(Act("judged", user_id, last.target_image_name, last.target_sha256, comparison.outcome))
            return comparison

        def token() -> str:
            self.tokens.append(new_token())
            return self.tokens[-1]

        for name, method in (
            ("receive_picture", receive_picture),
            ("match", match),
            ("new_upload_url", new_upload_url),
            ("new_token", token),
        ):
            setattr(sandbox, name, method)

    @property
    def judged(self) -> list[Act]:
        return [act for act in self.acts if act.kind == "judged"]
