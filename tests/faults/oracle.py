"""The oracle: given what was told and what the service judged, is the state directory what it must be?

It changes nothing: the store is opened on a copy, so that the process under test recovers by itself.

What "order" means where a process is killed at any moment: among the captures of one user that went straight into the
backlog and were never parked, the service never judges an older one after a newer one. A capture may be judged twice
(a kill between the match and its commit). A live capture may overtake; after a kill it is one of the backlog, but it
may have overtaken before, so it is left out.

What "not interleaved" means: within one life no sequence of a user begins before the one before has ended; over all
lives every comparison is about the picture that arrived last, none arrives while a comparison is being made, and none
is made while another picture of that user is still on its way (a late PUT).
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge_agent.errors import AgentError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import Clock
from edge_agent.outbox.records import AuditHead, Limits, VerificationRecord
from edge_agent.types import FINAL_STATES, State
from tests.faults.clock import FileClock
from tests.faults.ledger import Acknowledged, Act, Ledger, ServiceRecord
from tests.faults.remnants import Index, files_of
from tests.faults.worker import KEY, MACHINE, picture

DATABASE = "outbox.db"
JUDGED = frozenset({State.VERIFIED, State.NOT_VERIFIED})


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    ALTERED = "altered"
    OPEN = "still open"
    UNJUDGED = "ended without a verdict"
    UNFOUNDED = "verdict without its evidence"
    WRONG = "wrong verdict"
    DUPLICATED = "duplicated verdict"
    TWO_ENDS = "more than one end"
    ORDER = "backlog order"
    INTERLEAVED = "interleaved sequences"
    AUDIT = "audit log"
    STORE = "store does not verify"
    LEAK = "secret in a file"
    REMNANT = "remnant of something deleted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation."""

    kind: Kind
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What holds at this moment."""

    drained: bool = False
    """Everything acknowledged has ended."""
    ends: frozenset[State] = JUDGED
    """The states it may have ended in."""
    matches: Callable[[str], bool] = lambda user: not user.startswith("no-")
    """Whether the service, asked properly, says yes for this user."""
    secrets: tuple[bytes, ...] = ()
    """Byte strings that no file may hold, beside the users, tokens and pictures that the oracle knows."""
    gone: tuple[bytes, ...] = ()
    """Ciphertexts and wrapped keys from before a deletion (``harvest``): no file may hold a piece of them."""


def inspect(
    state_dir: Path,
    ledger: Ledger,
    service: ServiceRecord,
    expected: Expectation | None = None,
    *,
    clock: Clock | None = None,
    files: bool = True,
    key: bytes = KEY,
    machine: str = MACHINE,
) -> list[Finding]:
    """Everything that is wrong; empty = good. ``files`` False leaves out the search of the files, the slow part."""
    expected = expected or Expectation()
    findings = [*order(ledger, service), *turns(ledger, service)]
    if not (state_dir / DATABASE).exists():
        return [*findings, *(Finding(Kind.LOST, id_, "there is no database") for id_ in ledger.acknowledged)]
    if files:
        findings += remnants(state_dir, ledger, service, expected)
    with copy_of(state_dir) as copy:
        findings += audit(copy, ledger, drained=expected.drained)
        try:
            store = Store.open(copy, key, clock=clock or FileClock(), limits=Limits(reserve_bytes=0), machine=machine)
        except AgentError as exc:
            return [*findings, Finding(Kind.STORE, exc.code, exc.message)]
        with store:
            findings += proof(store, ledger)
            findings += captures(store, ledger, service, expected)
    return findings


def table(findings: Iterable[Finding]) -> str:
    """For people."""
    return "\n".join(f"{f.kind:28} {f.subject:36} {f.detail}" for f in findings)


@contextmanager
def copy_of(state_dir: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        yield shutil.copytree(state_dir, Path(folder) / "state")


# -- captures ---------------------------------------------------------------------------------------------------------


def captures(store: Store, ledger: Ledger, service: ServiceRecord, expected: Expectation) -> Iterator[Finding]:
    """Every acknowledged capture is there, unaltered, with one end at most, and the verdict is the service's."""
    judged = {(act.user, act.image_name, act.sha256): act.outcome for act in service.judged}
    for known in ledger.acknowledged.values():
        try:
            record = store.get(known.id)
            picture_sha256 = hashlib.sha256(store.payload(known.id)).hexdigest() if record.image_bytes else None
        except AgentError as exc:
            yield Finding(Kind.LOST if exc.code == "not_found" else Kind.ALTERED, known.id, exc.message)
            continue
        yield from _capture(known, record, picture_sha256, ledger, expected)
        if record.state in JUDGED and not record.erased:
            yield from _verdict(known, record, judged, expected)


def _capture(
    known: Acknowledged, record: VerificationRecord, stored: str | None, ledger: Ledger, expected: Expectation
) -> Iterator[Finding]:
    announced = ledger.ends.get(known.id, [])
    if record.erased and known.user not in ledger.deleted:
        yield Finding(Kind.LOST, known.id, "it was erased, and nobody asked for that")
    if not record.erased and (record.image_sha256 != known.sha256 or stored not in {None, known.sha256}):
        yield Finding(Kind.ALTERED, known.id, "it is not the picture that was acknowledged")
    if not record.final and not record.image_bytes:
        yield Finding(Kind.LOST, known.id, f"it is {record.state} and has no picture")
    if expected.drained and not record.final:
        yield Finding(Kind.OPEN, known.id, f"it is {record.state} ({record.error_code})")
    elif expected.drained and not record.erased and record.state not in expected.ends:
        yield Finding(Kind.UNJUDGED, known.id, f"it is {record.state} ({record.error_code})")
    if len(announced) > 1 or (announced and record.state != announced[-1]):
        yield Finding(Kind.TWO_ENDS, known.id, f"announced {announced}, is {record.state}")


def _verdict(
    known: Acknowledged,
    record: VerificationRecord,
    judged: dict[tuple[str, str, str], str],
    expected: Expectation,
) -> Iterator[Finding]:
    """The service compared this very picture under this very name, and said so."""
    name = record.verdict.image_name if record.verdict else ""
    outcome = judged.get((known.user, name, known.sha256), "nothing")
    positive = record.state is State.VERIFIED
    if positive != (outcome == "match") or outcome == "nothing":
        yield Finding(Kind.UNFOUNDED, known.id, f"it is {record.state}; the service said {outcome} to this picture")
    if positive != expected.matches(known.user):
        yield Finding(Kind.WRONG, known.id, f"it is {record.state}")


# -- what the service saw ---------------------------------------------------------------------------------------------


def order(ledger: Ledger, service: ServiceRecord) -> Iterator[Finding]:
    """See the module's text."""
    backlog = {a.sha256: a for a in ledger.acknowledged.values() if not a.live and a.id not in ledger.parked}
    newest: dict[str, Acknowledged] = {}
    for act in service.judged:
        known = backlog.get(act.sha256)
        if known is None:
            continue
        before = newest.setdefault(known.user, known)
        if known.seq < before.seq:
            yield Finding(Kind.ORDER, known.id, f"number {known.seq} was judged after number {before.seq}")
        else:
            newest[known.user] = known


def turns(ledger: Ledger, service: ServiceRecord) -> Iterator[Finding]:
    """See the module's text."""
    for problem in ledger.problems:
        yield Finding(Kind.INTERLEAVED, "client", problem)
    by_user: dict[str, list[Act]] = defaultdict(list)
    for act in service.acts:
        by_user[act.user].append(act)
    for user, acts in by_user.items():
        yield from _turns_of(user, acts)


def _turns_of(user: str, acts: list[Act]) -> Iterator[Finding]:
    arrived, comparing = "", ""
    late: list[Act] = []
    for act in acts:
        if act.kind == "put":
            late += [act] if act.lands_at_s > act.at_s else []
            if comparing and act.sha256 != comparing:
                yield Finding(Kind.INTERLEAVED, user, f"{act.sha256[:12]} arrived while {comparing[:12]} was compared")
            arrived = act.sha256
        elif act.kind == "match":
            comparing = arrived
            for other in late:
                if other.sha256 != arrived and other.lands_at_s > act.at_s:
                    what = f"{arrived[:12]} was compared while {other.sha256[:12]} might still land"
                    yield Finding(Kind.INTERLEAVED, user, what)
        elif act.kind in {"judged", "refused"}:
            if act.kind == "judged" and act.sha256 != arrived:
                yield Finding(Kind.INTERLEAVED, user, f"{act.sha256[:12]} was judged, {arrived[:12]} had arrived last")
            comparing = ""


# -- audit log and store ----------------------------------------------------------------------------------------------


def audit(copy: Path, ledger: Ledger, *, drained: bool) -> Iterator[Finding]:
    """The log tells one end per capture, and holds every head that was ever noted."""
    try:
        with closing(sqlite3.connect(copy / DATABASE)) as database:
            rows = database.execute("SELECT verification_id, event, from_state, to_state FROM audit").fetchall()
            macs = dict(database.execute("SELECT seq, hex(mac) FROM audit").fetchall())
    except sqlite3.Error as exc:
        if ledger.heads:  # before the first one a kill may have come before the tables
            yield Finding(Kind.AUDIT, DATABASE, str(exc))
        return
    verdicts = Counter(id_ for id_, event, _, _ in rows if event == "verdict")
    yield from (Finding(Kind.DUPLICATED, id_, f"{n} verdicts in the log") for id_, n in verdicts.items() if n > 1)
    ends = Counter(id_ for id_, _, before, after in rows if after in FINAL_STATES and before not in FINAL_STATES)
    ends.subtract(id_ for id_, event, _, _ in rows if event == "reopen")
    for id_ in ledger.acknowledged:
        if ends[id_] > 1 or (drained and ends[id_] < 1):
            yield Finding(Kind.TWO_ENDS, id_, f"{ends[id_]} ends in the log")
    for head in map(_head, ledger.heads):
        if macs.get(head.seq, "").lower() != head.mac:
            yield Finding(Kind.AUDIT, str(head.seq), "a head that was noted is not in the chain (any more)")


def _head(text: str) -> AuditHead:
    seq, mac = text.split(":")
    return AuditHead(int(seq), mac)


def proof(store: Store, ledger: Ledger) -> Iterator[Finding]:
    """``verify`` and ``verify_audit`` are clean."""
    report = store.verify_audit(_head(ledger.heads[-1]) if ledger.heads else None)
    if not report.ok:
        yield Finding(Kind.AUDIT, str(report.first_bad), report.problem or "")
    for subject, problem in store.verify().problems.items():
        yield Finding(Kind.STORE, subject, problem)


# -- files ------------------------------------------------------------------------------------------------------------


def remnants(state_dir: Path, ledger: Ledger, service: ServiceRecord, expected: Expectation) -> Iterator[Finding]:
    """No file holds a secret, a piece of a picture, or a piece of what was deleted."""
    users = {known.user for known in ledger.acknowledged.values()} | ledger.deleted
    secrets = [*expected.secrets, *(text.encode() for text in (*users, *service.tokens))]
    secrets += [part.encode() for token in service.tokens for part in token.split(".")[1:]]
    pictures = Index(picture(name, size) for name, size in ledger.pictures.items())
    gone = Index(expected.gone)
    for name, content in files_of(state_dir):
        for secret in secrets:
            if secret in content:
                yield Finding(Kind.LEAK, name, f"it holds {secret[:12]!r}…")
        if (at := pictures.found_in(content)) is not None:
            yield Finding(Kind.LEAK, name, f"a piece of a picture at {at}")
        if (at := gone.found_in(content)) is not None:
            yield Finding(Kind.REMNANT, name, f"a piece of a ciphertext or wrapped key at {at}")


def harvest(state_dir: Path, ids: Collection[str]) -> tuple[bytes, ...]:
    """Ciphertexts and wrapped keys of the users of these captures, as they are now: take them before a deletion."""
    marks = ",".join("?" * len(ids))
    users = f"SELECT user_hmac FROM verifications WHERE id IN ({marks})"
    rows = f"SELECT seq FROM verifications WHERE user_hmac IN ({users})"
    with copy_of(state_dir) as copy, closing(sqlite3.connect(copy / DATABASE)) as database:
        found = [
            *database.execute(f"SELECT wrapped_key, user_id FROM users WHERE user_hmac IN ({users})", [*ids]),
            *database.execute(f"SELECT row_key, picture FROM payloads WHERE seq IN ({rows})", [*ids]),
            *database.execute(f"SELECT private, error_detail FROM verifications WHERE seq IN ({rows})", [*ids]),
        ]
    return tuple(blob for row in found for blob in row if blob)
