"""Bodies as a technician reads them, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.api.wire_outbox import (
        AuditCheck,
        Authenticity,
        OutboxCheck,
        OutboxEntry,
        OutboxItem,
        OutboxList,
        PrivacyBody,
        PurposeBody,
    )
    from edge_agent.api.wire_status import CameraBody, NetworkBody, QueueStatusBody, StatusBody, UnavailableBody

WIDTH = 80
_UNITS = ((86400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "m"), (60.0, "m", 1.0, "s"))
_SHORT = {"provisionally_verified": "provisional"}


def age(seconds: float) -> str:
    """Two units at most: ``41s``, ``2m05s``, ``3h20m``, ``3d04h``."""
    for size, unit, part, part_unit in _UNITS:
        if seconds >= size:
            rest = int(seconds % size / part)
            return f"{int(seconds // size)}{unit}{rest:02d}{part_unit}"
    return f"{int(seconds)}s"


def size(number: int) -> str:
    """Bytes with one decimal: ``38.2 kB``."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"


def local(moment: datetime, *, synchronised: bool = True) -> str:
    """Local time; a clock that nobody kept right is said to be so."""
    text = moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return text if synchronised else f"{text} (clock not synchronised)"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned columns; the last one is cut at the terminal's edge."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()[:WIDTH]


def list_lines(body: OutboxList) -> Iterator[str]:
    """``outbox list``."""
    queue = body.queue
    oldest = f", the oldest {age(queue.oldest_age_s)} old" if queue.oldest_age_s is not None else ""
    yield f"{queue.waiting} waiting ({queue.leased} being forwarded), {queue.parked} parked, {size(queue.bytes)}{oldest}"
    if body.items:
        yield from table(("ID", "STATE", "AGE", "TRIES", "NEXT", "WHY"), [_row(item) for item in body.items])
    for id_ in body.unreadable:
        yield f"{id_}  does not authenticate: see outbox verify"
    if body.next_before is not None:
        yield f"more: --before {body.next_before}"


def _row(item: OutboxItem) -> tuple[str, ...]:
    why = item.error.code if item.error else ""
    return item.id, _state(item), age(item.age_s), str(item.attempts), _next(item), why


def _state(item: OutboxItem) -> str:
    return "parked" if item.parked else _SHORT.get(item.state.value, item.state.value)


def _next(item: OutboxItem) -> str:
    if item.leased:
        return "running"
    if item.next_attempt_in_s is None:
        return "-"
    return age(item.next_attempt_in_s) if item.next_attempt_in_s > 0 else "now"


def entry_lines(body: OutboxEntry) -> Iterator[str]:
    """``outbox show``."""
    item = body.item
    facts = {
        "id": item.id,
        "state": f"{item.state.value}{' (parked)' if item.parked else ''}",
        "age": f"{age(item.age_s)}, since {local(item.created_at, synchronised=item.clock_synchronised)}",
        "picture": f"{size(item.bytes)}" if item.bytes else "none",
        "sha256": item.sha256 or "-",
        "user": item.user,
        "caller": item.caller,
        "service": f"{item.base_url} ({item.merchant_id})",
        "tries": f"{item.attempts} ({item.transients} network failures in a row, {item.conflicts} conflicts)",
        "next": _next(item),
        "error": _error(item),
    }
    for name, value in facts.items():
        yield f"{name:<8}{value}"
    yield ""
    rows = [(str(e.seq), local(datetime.fromisoformat(e.at)), e.event, e.to_state or "", _detail(e.detail))
            for e in body.history]  # fmt: skip
    yield from table(("AUDIT", "TIME", "EVENT", "STATE", "DETAIL"), rows)


def _error(item: OutboxItem) -> str:
    if item.error is None:
        return "-"
    status = f" (HTTP {item.error.status})" if item.error.status else ""
    return f"{item.error.code}{status}{': ' + item.error.detail if item.error.detail else ''}"


def _detail(detail: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items() if value is not None)


def check_lines(body: OutboxCheck) -> Iterator[str]:
    """``outbox verify``."""
    found = f"{body.verifications} verifications, {body.pictures} pictures"
    yield f"outbox: {_outcome(body, body.ok)} ({found}, {body.audit_records} audit records)"
    for problem in body.problems:
        yield f"  {problem.where}: {problem.problem}"


def audit_lines(body: AuditCheck) -> Iterator[str]:
    """``audit verify``."""
    yield f"audit log: {_outcome(body, body.ok)} ({body.records} records)"
    if body.problem:
        yield f"  {body.problem}"
    if body.head:
        yield f"head {body.head}"


def _outcome(body: Authenticity, ok: bool) -> str:
    if body.authenticated:
        return "fine" if ok else "NOT fine"
    return "NOT authenticated; its structure is " + ("sound" if ok else "NOT sound")


def warning_lines(body: Authenticity) -> Iterator[str]:
    """Why nothing was authenticated, where it was not."""
    if not body.authenticated and body.why_not:
        yield "nothing was authenticated: whoever can write the files can have made this up"
        yield f"  {body.why_not.code}: {body.why_not.detail}"


def status_lines(body: StatusBody) -> Iterator[str]:
    """``status``, without what is missing."""
    doing = "searching" if body.searching else "waiting for a request"
    doing += ", and an admin sees the live picture (aim)" if body.aiming else ""
    yield f"  running {age(body.uptime_s)}, {doing}; models: {body.pack}"
    yield f"  camera: {_camera(body.camera)}"
    yield f"  network: {_network(body.network)}"
    if body.network.state == "stopped":
        yield "    try: edge-agent doctor; once that is mended: edge-agent outbox retry"
    yield f"  queue: {_queue(body.queue)}"


def _queue(queue: QueueStatusBody | UnavailableBody) -> str:
    from edge_agent.api.wire_status import UnavailableBody

    if isinstance(queue, UnavailableBody):
        return f"cannot be read: {queue.error}"
    oldest = f", the oldest {age(queue.oldest_age_s)} old" if queue.oldest_age_s is not None else ""
    return f"{queue.depth} waiting, {queue.parked} parked, {size(queue.bytes)}{oldest}"


def _camera(camera: CameraBody) -> str:
    if camera.state == "unknown":
        return "not tried yet: a verification tries it"
    tries = f" (failed tries: {camera.failures}, step: {camera.step})" if camera.state == "lost" else ""
    return f"{camera.state}{tries}{': ' + camera.detail if camera.detail else ''}"


def _network(network: NetworkBody) -> str:
    if network.state == "unknown":
        return "not known yet: the first capture tells"
    last = f"; last success {local(network.last_success_at)}" if network.last_success_at else ""
    why = network.stopped_code or network.last_error
    return f"{network.state}{': ' + why if why and network.state != 'online' else ''}{last}"


def privacy_lines(body: PrivacyBody) -> Iterator[str]:
    """``privacy report``."""
    yield f"{body.terminal_id}, {local(body.at)}"
    head = ("PURPOSE", "ITEMS", "USERS", "CONSENT", "SINCE", "KEPT", "GONE BY")
    yield from table(head, [_purpose_row(purpose) for purpose in body.purposes])
    yield ""
    for purpose in body.purposes:
        yield f"{purpose.purpose}: {purpose.what}"
        yield f"  {purpose.why}{f' ({purpose.setting})' if purpose.setting else ''}"


def _purpose_row(purpose: PurposeBody) -> tuple[str, ...]:
    kept = "in service" if purpose.kept_s is None else age(purpose.kept_s)
    dates = [moment.astimezone().strftime("%Y-%m-%d") if moment else "-" for moment in (purpose.since, purpose.until)]
    counts = ["-" if number is None else str(number) for number in (purpose.users, purpose.with_consent)]
    return purpose.purpose, str(purpose.items), *counts, dates[0], kept, dates[1]
